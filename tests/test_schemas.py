"""The JSON that commands write is what the schemas in docs/ say."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

import models
from onnx_shapprune import estimators, metrics
from onnx_shapprune.bench import ABSENT
from onnx_shapprune.cli import cli
from onnx_shapprune.report import SCHEMA_VERSION

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMAS = ("report", "scores", "inspection", "comparison")
DATA = "--data data.npz"
REPORT = f"--report r.json -o out.onnx {DATA}"

CASES = [
    # schema, command, exit code
    ("report", f"prune net.onnx --keep 0.5 --budget 4n {REPORT}", 0),
    ("report", f"prune net.onnx --keep 0.5 --estimator l1 {REPORT}", 0),
    ("report", f"prune net.onnx --keep 0.5 --estimator l1 --absent zero {REPORT}", 0),
    ("report", f"prune net.onnx --keep 0.5 --estimator exact --metric accuracy {REPORT}", 0),
    ("report", f"prune net.onnx --keep 1 --estimator leave-one-out --metric error {REPORT}", 0),
    ("report", f"prune skip.onnx --keep 0.5 --estimator random {REPORT}", 0),
    ("report", f"prune net.onnx --keep 0.7 --scores partial.json {REPORT}", 0),
    ("report", f"prune stuck.onnx --keep 0.5 {REPORT}", 3),
    ("report", f"prune net.onnx --keep 0.01 --estimator l1 {REPORT}", 4),
    ("report", "prune net.onnx --keep 0.5 --report r.json -o out.onnx --data random:8", 0),
    ("scores", f"score net.onnx --budget 4n {DATA}", 0),
    ("scores", f"score skip.onnx --estimator l1 {DATA}", 0),
    ("scores", f"score fixed.onnx --estimator leave-one-out --metric cross-entropy {DATA}", 0),
    ("inspection", "inspect net.onnx --json", 0),
    ("report", f"prune norm.onnx --keep 0.5 --estimator l1 --allow approximate {REPORT}", 0),
    ("inspection", "inspect stuck.onnx --json", 0),
    ("inspection", "inspect norm.onnx --json", 0),
    ("inspection", "inspect norm.onnx --json --allow approximate", 0),
    ("inspection", "inspect open.onnx --json", 0),
    ("inspection", "inspect open.onnx --json --dim height=9 --dim width=8", 0),
    ("inspection", "inspect net.onnx --json --groups g.toml", 0),
    ("report", f"prune net.onnx --keep 0.5 --groups g.toml --estimator l1 {REPORT}", 0),
    ("comparison", f"compare net.onnx skip.onnx --json {DATA}", 0),
    ("comparison", f"compare net.onnx net.onnx --json --labels {DATA}", 0),
    ("comparison", f"compare stuck.onnx stuck.onnx --json {DATA}", 0),
]


@cache
def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found


def validate(name: str, data: object) -> None:
    Draft202012Validator(schema(name)).validate(data)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models.workplace(tmp_path)
    Path("g.toml").write_text("[[group]]\nname = 'first'\nmembers = ['conv1']\n")


def output(command: str, code: int = 0) -> Any:
    """The JSON that a command writes: its report, or what it prints."""
    result = CliRunner().invoke(cli, shlex.split(command), prog_name="onnx-shapprune")
    assert result.exit_code == code, result.output
    text = Path("r.json").read_text(encoding="utf-8") if "r.json" in command else result.stdout
    return json.loads(text, parse_constant=pytest.fail)


def partial_scores() -> None:
    """Scores that leave a group out."""
    scores = output(f"score net.onnx --estimator l1 {DATA}")
    Path("partial.json").write_text(json.dumps(scores | {"groups": scores["groups"][:1]}))


@pytest.mark.parametrize(("name", "command", "code"), CASES, ids=[case[1] for case in CASES])
def test_output_is_as_the_schema_says(name: str, command: str, code: int) -> None:
    partial_scores()
    validate(name, output(command, code))


@pytest.mark.parametrize("command", [case[1] for case in CASES if case[0] in ("report", "scores")])
def test_lists_have_an_entry_per_player(command: str) -> None:
    """What a schema can't say."""
    partial_scores()
    code = next(case[2] for case in CASES if case[1] == command)
    for group in output(command, code)["groups"]:
        for name in ("values", "scores", "stderr"):
            assert len(group.get(name, ())) in (0, group["players"])
        kept = group.get("kept", [0])
        assert kept == sorted(set(kept))
        assert kept[-1] < group["players"]


def test_channels_of_a_report_are_the_players_kept() -> None:
    report = output(CASES[0][1])
    assert report["before"]["channels"] == sum(group["players"] for group in report["groups"])
    assert report["after"]["channels"] == sum(len(group["kept"]) for group in report["groups"])


# --- the schemas themselves ----------------------------------------------------------------------


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """All parts of a schema that describe objects."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def fields(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with its description."""
    for part in objects(schema(name)):
        yield from part["properties"].items()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema(name)["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_allows_nothing_else(name: str) -> None:
    assert all(part["additionalProperties"] is False for part in objects(schema(name)))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_describes_every_field(name: str) -> None:
    assert [field for field, part in fields(name) if not part.get("description")] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_page_names_every_field(name: str) -> None:
    page = (DOCS / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)(?:\[\])?`", page))
    assert sorted({field for field, _ in fields(name)} - named) == []
    assert f"({name}.schema.json)" in page


@pytest.mark.parametrize("name", SCHEMAS)
def test_shared_parts_are_the_same_everywhere(name: str) -> None:
    parts, known = schema(name)["$defs"], schema("report")["$defs"]
    for shared in {"versions", "skipped"} & set(parts):
        assert parts[shared] == known[shared]


def test_names_in_schemas_are_those_of_their_owners() -> None:
    values = {
        name: schema("scores")["properties"][name]["enum"] for name in ("estimator", "metric")
    }
    assert sorted(values["estimator"]) == sorted(estimators.NAMES)
    assert {*values["metric"], "auto"} == {*metrics.NAMES, "none"}
    for name in ("report", "scores"):
        assert sorted(schema(name)["properties"]["absent"]["enum"]) == sorted(ABSENT)


def spoiled(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of the data, each without one of its fields, and one with a field too many."""
    for name in data:
        yield name, {key: value for key, value in data.items() if key != name}
    yield "surplus", data | {"surplus": 1}


EXAMPLES = [next(case for case in CASES if case[0] == name) for name in SCHEMAS]


@pytest.mark.parametrize(("name", "command"), [c[:2] for c in EXAMPLES], ids=SCHEMAS)
def test_schema_notices_what_is_missing(name: str, command: str) -> None:
    for field, data in spoiled(output(command)):
        with pytest.raises(ValidationError, match=field):
            validate(name, data)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("report", ["provider"], "tpu"),
        ("report", ["before", "macs"], -1),
        ("report", ["before", "macs"], None),
        ("report", ["groups", 0, "kept"], []),
        ("report", ["groups", 0, "kept", 0], 0.5),
        ("report", ["max_difference"], -1e-9),
        ("report", ["model_sha256"], "abc"),
        ("report", ["seconds", "coffee"], 1.0),
        ("scores", ["groups"], []),
        ("scores", ["groups", 0, "stderr", 0], -1.0),
        ("scores", ["metric"], "auto"),
        ("inspection", ["inputs", 0, "shape", 0], 1.5),
        ("inspection", ["groups", 0, "players"], 1),
        ("inspection", ["groups", 0, "channels"], [1]),
        ("inspection", ["groups", 0, "weights", 0, "cut"], 0),
        ("inspection", ["layers", 0, "macs"], -1),
        ("inspection", ["convolutions", "total"], None),
        ("comparison", ["a", "milliseconds"], 0),
        ("comparison", ["b", "cost", "bytes"], "many"),
    ],
)
def test_schema_notices_what_is_wrong(name: str, path: list[str | int], value: object) -> None:
    command = next(case[1] for case in EXAMPLES if case[0] == name)
    data = copy.deepcopy(output(command))
    part = data
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(ValidationError):
        validate(name, data)
