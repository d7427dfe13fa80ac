"""JSON files: what goes out comes in again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_shapprune.documents import dump, read_scores, write_json
from onnx_shapprune.errors import OutputError, ScoresError
from onnx_shapprune.report import SCHEMA_VERSION, scores_to_json
from onnx_shapprune.types import GroupScore, Scores

words = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@st.composite
def group_scores(draw: st.DrawFn) -> GroupScore:
    players = draw(st.integers(1, 5))
    column = st.lists(numbers, min_size=players, max_size=players).map(tuple)
    members = draw(st.lists(words, max_size=3).map(tuple))
    return GroupScore(draw(words), players, members, draw(column), draw(column), draw(counts))


all_scores = st.builds(
    Scores,
    *(words, words, words, words),
    seed=counts,
    samples=counts,
    groups=st.lists(group_scores(), max_size=3).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(all_scores)
def test_scores_come_back_as_they_were(scores: Scores) -> None:
    """To the last bit: a plan made from the file is the same plan."""
    write_json(Path("s.json"), scores_to_json(scores))
    assert read_scores(Path("s.json")) == scores


def test_scores_name_their_schema_and_versions() -> None:
    data = scores_to_json(Scores("0" * 64, "exact", "kl", "mean", 0, 1))
    assert data["schema_version"] == SCHEMA_VERSION
    assert {"onnx-shapprune", "numpy", "onnx", "python"} <= set(data["versions"])
    assert any(name.startswith("onnxruntime") for name in data["versions"])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_such_numbers(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dump({"a": number})


def test_what_can_not_be_written_leaves_what_was_there() -> None:
    Path("r.json").write_text("precious")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(Path("r.json"), {"a": float("nan")})
    assert Path("r.json").read_text() == "precious"
    assert [path.name for path in Path().iterdir()] == ["r.json"]


def test_json_is_for_people_too() -> None:
    write_json(Path("r.json"), {"name": "ß → x", "list": [1]})
    text = Path("r.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert text.count("\n") > 3
    assert json.loads(text) == {"name": "ß → x", "list": [1]}


def test_unwritable_place() -> None:
    with pytest.raises(OutputError, match=r"can't write 'far/r\.json': No such file"):
        write_json(Path("far/r.json"), {})


def good() -> dict[str, object]:
    """Scores as they stand in a file."""
    group = GroupScore("conv", 2, ("conv",), (1.0, 2.0), (0.0, 0.0), 4)
    return scores_to_json(Scores("0" * 64, "exact", "kl", "mean", 0, 1, (group,)))


@pytest.mark.parametrize("field", sorted(set(good()) - {"versions"}))
def test_every_field_is_needed(field: str) -> None:
    data = good()
    del data[field]
    write_json(Path("s.json"), data)
    with pytest.raises(ScoresError) as caught:
        read_scores(Path("s.json"))
    assert "onnx-shapprune score" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"scores"', "{}", "1e999"])
def test_other_files_are_no_scores(text: str) -> None:
    Path("s.json").write_text(text)
    with pytest.raises(ScoresError, match=r"'s\.json'"):
        read_scores(Path("s.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"values": "12"},
        {"stderr": [0.0]},
        {"players": 3},
        {"values": [1.0, 2.0, 3.0]},
    ],
    ids=["text", "short stderr", "players", "long values"],
)
def test_lists_are_as_long_as_there_are_players(change: dict[str, object]) -> None:
    data = good()
    data["groups"] = [{**data["groups"][0], **change}]  # type: ignore[index]
    write_json(Path("s.json"), data)
    with pytest.raises(ScoresError):
        read_scores(Path("s.json"))
