"""The contract of the command line: what scripts and people rely on."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import models
from onnx_shapprune import __version__, bench, estimators, metrics, options
from onnx_shapprune.bench import Bench
from onnx_shapprune.cli import cli
from onnx_shapprune.cost import Quantity
from onnx_shapprune.errors import ModelError, TargetUnreachable
from onnx_shapprune.pipeline import open_bench, prune
from onnx_shapprune.runtime import Session
from onnx_shapprune.scoring import Scoring
from onnx_shapprune.tree import Order
from onnx_shapprune.types import Cost
from zoo import ZOO

ESCAPE = "\x1b"
CUT = ("--data", "data.npz", "--keep", "0.5", "--estimator", "l1")
COMMANDS = sorted(cli.commands)
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with models and data, so that commands and messages have short paths."""
    monkeypatch.chdir(tmp_path)
    models.workplace(tmp_path)


def run(*args: object) -> Result:
    """A command in this process."""
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="onnx-shapprune")


def done(*args: object) -> Result:
    """A command that has to succeed."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def process(*args: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "onnx_shapprune", *args],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def environment() -> dict[str, str]:
    """The environment without what makes rich decorate pipes."""
    forced = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {name: value for name, value in os.environ.items() if name not in forced}


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def width(proto: onnx.ModelProto, name: str) -> int:
    """Output channels of the weight called `name`."""
    return next(int(t.dims[0]) for t in proto.graph.initializer if t.name == name)


def files() -> set[str]:
    """Names of all files here, hidden ones too."""
    return set(models.contents(Path()))


# --- help and options --------------------------------------------------------------------


def examples(name: str) -> list[list[str]]:
    """The command lines in the help of a command, continued lines joined."""
    text = run(name, "--help").stdout.split("Options:")[0].replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("onnx-shapprune ")]


def test_commands_are_those_of_the_contract() -> None:
    assert COMMANDS == ["compare", "demo", "inspect", "prune", "score"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(name: str) -> None:
    found = examples(name)
    assert found
    for words in found:
        assert words[1] == name
        cli.commands[name].make_context(name, words[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    named = [p for p in cli.commands[name].params if isinstance(p, click.Option)]
    assert [option.name for option in named if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_short_and_long_help_are_the_same(name: str) -> None:
    assert done(name, "-h").output == done(name, "--help").output


def test_version() -> None:
    assert __version__ in done("--version").stdout


def test_console_command_is_installed() -> None:
    (found,) = entry_points(group="console_scripts", name="onnx-shapprune")
    module = importlib.import_module("onnx_shapprune.__main__")
    assert found.load() is module.main


@pytest.mark.parametrize(
    ("choices", "owned"),
    [
        (options.ESTIMATORS, estimators.NAMES),
        (options.METRICS, metrics.NAMES),
        (options.QUANTITIES, get_args(Quantity)),
        (options.ABSENT, bench.ABSENT),
        (options.ORDERS, get_args(Order)),
    ],
    ids=["estimators", "metrics", "quantities", "absent", "orders"],
)
def test_choices_are_those_of_their_owners(
    choices: tuple[str, ...], owned: tuple[str, ...]
) -> None:
    assert sorted(choices) == sorted(owned)


# --- inspect -----------------------------------------------------------------------------


def test_inspect_shows_groups_and_what_stands_in_the_way() -> None:
    result = done("inspect", "net.onnx")
    for words in ("conv1: 6 players", "conv2: 8 players", "MACs", "the model's output 'y'"):
        assert words in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(("sort", "first"), [("graph", "Conv_0"), ("cost", "Conv_10")])
def test_inspect_sorts_groups(sort: str, first: str) -> None:
    onnx.save(ZOO["dense"].build(), "dense.onnx")
    shown = done("inspect", "dense.onnx", "--sort", sort).stdout
    assert re.findall(r"─ (\w+): \d+ players", shown)[0] == first


def test_inspect_sorts_groups_of_open_sizes_by_parameters() -> None:
    shown = done("inspect", "open.onnx", "--sort", "cost").stdout
    assert re.findall(r"─ (\w+): \d+ players", shown) == ["conv1", "conv2"]


def test_inspect_json_is_all_there_is_on_stdout() -> None:
    result = done("inspect", "net.onnx", "--json")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert [(g["name"], g["players"]) for g in found["groups"]] == [("conv1", 6), ("conv2", 8)]
    assert found["cost"]["macs"] == 36 * 9 * (6 * 2 + 8 * 6) + 8 * models.CLASSES
    assert found["cost"]["channels"] == 14
    assert found["skipped"][0]["node"] == "fc"


def test_inspect_of_open_sizes_knows_no_macs_until_it_is_told() -> None:
    unknown = json.loads(done("inspect", "open.onnx", "--json").stdout)
    sized = ("--dim", "height=6", "--dim", "width=6")
    known = json.loads(done("inspect", "open.onnx", "--json", *sized).stdout)
    fixed = json.loads(done("inspect", "net.onnx", "--json").stdout)
    assert unknown["cost"]["macs"] is None
    assert [group["macs"] for group in unknown["groups"]] == [None, None]
    assert known["cost"]["macs"] == fixed["cost"]["macs"]
    assert "use --dim" in done("inspect", "open.onnx").stdout


def test_inspect_leaves_out_what_is_excluded() -> None:
    found = json.loads(done("inspect", "net.onnx", "--json", "--exclude", "conv1").stdout)
    assert [group["name"] for group in found["groups"]] == ["conv2"]
    assert "excluded by 'conv1'" in {skipped["reason"] for skipped in found["skipped"]}


# --- score -------------------------------------------------------------------------------


def test_score_prints_json_and_speaks_on_stderr() -> None:
    result = done("score", "net.onnx", "--data", "data.npz", "--budget", "4n")
    found = json.loads(result.stdout)
    assert [len(group["values"]) for group in found["groups"]] == [6, 8]
    assert "ONNX Runtime" in result.stderr
    assert "score: done" in result.stderr


def test_score_to_a_file_leaves_stdout_empty() -> None:
    command = ("score", "net.onnx", "--data", "data.npz", "--estimator", "l1")
    result = done(*command, "-o", "scores.json")
    assert result.stdout == ""
    assert read_json("scores.json") == json.loads(done(*command).stdout)


def test_score_of_a_model_with_nothing_to_prune() -> None:
    result = run("score", "stuck.onnx", "--data", "data.npz", "-o", "scores.json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "scores.json" not in files()


@pytest.mark.parametrize("name", ["leave-one-out", "permutation", "random"])
def test_seed_makes_scores_reproducible(name: str) -> None:
    def scores(seed: int) -> str:
        how = ("--estimator", name, "--budget", "4n", "--seed", seed)
        return done("score", "net.onnx", "--data", "data.npz", *how, "--quiet").stdout

    assert scores(5) == scores(5)
    values = [json.loads(scores(seed))["groups"][1]["values"] for seed in (5, 6)]
    assert (values[0] == values[1]) == (name == "leave-one-out")


@pytest.mark.parametrize("metric", ["kl", "error", "accuracy", "cross-entropy"])
def test_score_with_every_metric(metric: str) -> None:
    how = ("--budget", "4n", "--metric", metric)
    found = json.loads(done("score", "net.onnx", "--data", "data.npz", *how).stdout)
    assert found["metric"] == metric


# --- prune -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net", "skip", "fixed"])
@pytest.mark.parametrize("of", options.QUANTITIES)
def test_prune_reaches_its_target(name: str, of: str) -> None:
    done("prune", f"{name}.onnx", "-o", "out.onnx", *CUT, "--of", of, "--report", "r.json")
    report = read_json("r.json")
    assert 0 < report["after"][of] <= 0.5 * report["before"][of]
    assert report["max_difference"] <= 1e-4


def test_prune_writes_what_it_reports() -> None:
    """The report's figures are those of the file, which still takes the source's samples."""
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--report", "r.json")
    report, written = read_json("r.json"), onnx.load("out.onnx")
    kept = {group["name"]: len(group["kept"]) for group in report["groups"]}
    cost = json.loads(done("inspect", "out.onnx", "--json").stdout)["cost"]
    (result,) = Session(written).run({"x": models.samples()})
    assert {name: width(written, f"{name}.w") for name in kept} == kept
    assert cost == report["after"]
    assert result.shape == (12, models.CLASSES)


def targets() -> list[tuple[str, Quantity]]:
    return [(name, of) for name in ("sequential", "residual") for of in get_args(Quantity)]


def cost_or_none(opened: Bench, keep: float, of: Quantity) -> Cost | None:
    """The cost of the pruned model; None where the target is out of reach."""
    try:
        return prune(opened, keep=keep, of=of, scoring=Scoring("l1")).report.after
    except TargetUnreachable:
        return None


@pytest.mark.parametrize(("name", "of"), targets())
def test_success_means_that_the_target_is_reached(name: str, of: Quantity) -> None:
    """Also where removal adds biases that the prediction doesn't know."""
    opened = open_bench(getattr(models, name)(), models.samples(), provider="cpu")
    full = getattr(opened.costs.cost(opened.costs.full()), of)
    missed = [
        keep
        for keep in np.linspace(0.1, 0.9, 21)
        if (cost := cost_or_none(opened, keep, of)) and getattr(cost, of) > keep * full
    ]
    assert missed == []


def test_keeping_everything_changes_nothing() -> None:
    done("prune", "net.onnx", "-o", "out.onnx", "--data", "data.npz", "--keep", "1")
    assert onnx.load("out.onnx") == onnx.load("net.onnx")


def test_prune_twice_gives_the_same_file() -> None:
    how = ("--data", "data.npz", "--keep", "0.5", "--budget", "4n", "--seed", "4")
    for name in ("one.onnx", "two.onnx"):
        done("prune", "net.onnx", "-o", name, *how)
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


def test_scores_round_trip_gives_the_same_file() -> None:
    """Scoring first and pruning later is the same as pruning at once."""
    how = ("--data", "data.npz", "--budget", "4n", "--seed", "3")
    cut = ("--data", "data.npz", "--keep", "0.5")
    done("score", "net.onnx", *how, "-o", "scores.json")
    done("prune", "net.onnx", "-o", "late.onnx", *cut, "--scores", "scores.json")
    done("prune", "net.onnx", "-o", "once.onnx", *cut, *how[2:])
    assert Path("late.onnx").read_bytes() == Path("once.onnx").read_bytes()


def test_scores_of_another_meaning_of_absent_are_refused() -> None:
    how = ("--data", "data.npz", "--budget", "4n", "--absent", "zero", "-o", "scores.json")
    done("score", "net.onnx", *how)
    cut = ("--data", "data.npz", "--keep", "0.5", "--scores", "scores.json")
    result = run("prune", "net.onnx", "-o", "out.onnx", *cut)
    assert result.exit_code == 1
    assert "Error: the scores are of absent=zero, now absent=mean is asked for" in result.stderr
    assert "Hint: use --absent zero, or score this model again" in result.stderr
    done("prune", "net.onnx", "-o", "out.onnx", *cut, "--absent", "zero")


def test_doubts_about_scores_are_notes() -> None:
    """Another metric, and a group that nobody scored."""
    done("score", "net.onnx", "--data", "data.npz", "--budget", "4n", "-o", "scores.json")
    scores = read_json("scores.json")
    left_out = scores["groups"].pop()["name"]
    Path("scores.json").write_text(json.dumps(scores))
    cut = ("--data", "data.npz", "--keep", "0.8", "--scores", "scores.json", "--metric", "error")
    said = done("prune", "net.onnx", "-o", "out.onnx", *cut, "--report", "r.json").stderr
    notes = read_json("r.json")["notes"]
    assert "the channels were scored by kl, widths are chosen by error" in notes
    assert f"groups without scores stay whole: {left_out}" in notes
    assert all(note in said for note in notes)


def test_the_assumption_of_class_scores_is_a_note() -> None:
    how = ("--data", "data.npz", "--keep", "0.8", "--estimator", "l1", "--report", "r.json")
    done("prune", "net.onnx", "-o", "out.onnx", *how)
    (note,) = read_json("r.json")["notes"]
    assert (
        note == "the output 'y' is taken for scores of classes; if it is none, use --metric error"
    )
    done("prune", "net.onnx", "-o", "out.onnx", *how, "--metric", "kl", "--force")
    assert read_json("r.json")["notes"] == []


def test_scores_decide_what_stays() -> None:
    done("score", "net.onnx", "--data", "data.npz", "--estimator", "l1", "-o", "scores.json")
    scores = read_json("scores.json")
    for group in scores["groups"]:
        group["values"] = list(range(group["players"]))
    Path("scores.json").write_text(json.dumps(scores))
    cut = ("--data", "data.npz", "--keep", "0.5", "--scores", "scores.json")
    done("prune", "net.onnx", "-o", "out.onnx", *cut, "--report", "r.json")
    for group in read_json("r.json")["groups"]:
        kept = len(group["kept"])
        assert group["kept"] == list(range(group["players"] - kept, group["players"]))


def test_excluded_channels_stay() -> None:
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--exclude", "c?nv1")
    pruned = onnx.load("out.onnx")
    assert width(pruned, "conv1.w") == 6
    assert width(pruned, "conv2.w") < 8


def test_round_to() -> None:
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--round-to", "4")
    pruned = onnx.load("out.onnx")
    assert width(pruned, "conv1.w") in (4, 6)
    assert width(pruned, "conv2.w") in (4, 8)


def test_min_channels() -> None:
    cut = ("--data", "data.npz", "--keep", "0.01", "--estimator", "l1", "--best-effort")
    run("prune", "net.onnx", "-o", "out.onnx", *cut, "--min-channels", "3")
    pruned = onnx.load("out.onnx")
    assert [width(pruned, f"conv{i}.w") for i in (1, 2)] == [3, 3]


def test_means_over_channels_are_cut_only_if_that_is_allowed() -> None:
    shown = done("inspect", "norm.onnx").stdout
    assert "its statistics run over the channels" in shown
    assert "--allow approximate lets channels under LayerNormalization be cut" in shown
    allowed = done("inspect", "norm.onnx", "--allow", "approximate").stdout
    assert "approximate: 1 mean over the channels that are left (LayerNormalization)" in allowed
    assert "--allow" not in allowed


def test_what_was_approximated_is_reported() -> None:
    files = ("norm.onnx", "-o", "out.onnx", "--report", "r.json", "--data", "random:8")
    how = ("--allow", "approximate", "--estimator", "l1")
    result = done("prune", *files, *how, "--keep", "0.5")
    group = {"node": "norm", "op_type": "LayerNormalization", "group": "first"}
    assert read_json("r.json")["approximated"] == [group]
    assert "approximate: 1 mean over the channels that are left" in result.stderr
    done("prune", *files, *how, "--keep", "1", "--force")
    assert read_json("r.json")["approximated"] == []
    scores = json.loads(done("score", "norm.onnx", "--data", "random:8", *how).stdout)
    assert "first" in {part["name"] for part in scores["groups"]}


@pytest.mark.parametrize("absent", options.ABSENT)
def test_absent(absent: str) -> None:
    """A mean goes into the bias of what reads it; a zero leaves biases alone."""
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--absent", absent, "--report", "r.json")
    biases = [
        onnx.numpy_helper.to_array(t).tolist()
        for name in ("net.onnx", "out.onnx")
        for t in onnx.load(name).graph.initializer
        if t.name == "fc.b"
    ]
    assert (biases[0] == biases[1]) == (absent == "zero")
    assert read_json("r.json")["absent"] == absent


def test_dims_for_random_data() -> None:
    sized = ("--dim", "height=5", "--dim", "width=7", "--data", "random:4")
    result = done("prune", "open.onnx", "-o", "out.onnx", "--keep", "0.5", *sized)
    assert "Note: random data are a poor choice" in result.stderr
    assert onnx.load("out.onnx").graph.input == onnx.load("open.onnx").graph.input


def test_external_weights() -> None:
    """Read from beside the model; the smaller model is one file."""
    Path("far").mkdir()
    models.external(Path("far"))
    done("prune", "far/external.onnx", "-o", "out.onnx", *CUT)
    done("prune", "net.onnx", "-o", "same.onnx", *CUT)
    found, expected = (
        Session(onnx.load(n)).run({"x": models.samples()}) for n in ("out.onnx", "same.onnx")
    )
    np.testing.assert_array_equal(found[0], expected[0])


def test_report_has_what_the_issue_asks_for() -> None:
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--report", "r.json")
    report = read_json("r.json")
    assert {
        *("model_sha256", "before", "after", "groups", "metric", "max_difference", "skipped"),
        *("evaluations", "seconds", "provider", "versions", "command", "schema_version"),
    } <= set(report)
    assert {"score", "verify"} <= set(report["seconds"])
    assert {"onnx", "numpy", "python", "onnx-shapprune"} <= set(report["versions"])


def test_report_counts_the_coalitions_that_were_run() -> None:
    cut = ("--data", "data.npz", "--keep", "0.5", "--estimator", "leave-one-out")
    done("prune", "net.onnx", "-o", "out.onnx", *cut, "--report", "r.json")
    report = read_json("r.json")
    assert report["evaluations"] == sum(group["players"] + 1 for group in report["groups"])
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--report", "r.json", "--force")
    assert read_json("r.json")["evaluations"] == 0


def test_words_go_to_stderr() -> None:
    result = done("prune", "net.onnx", "-o", "out.onnx", *CUT)
    assert result.stdout == ""
    for words in ("before", "after", "conv1", "conv2", "left alone", "masked ≡ removed"):
        assert words in result.stderr


@pytest.mark.parametrize(("name", "code"), [("net", 0), ("stuck", 3)])
def test_quiet_says_nothing_but_errors(name: str, code: int) -> None:
    result = run("prune", f"{name}.onnx", "-o", "out.onnx", *CUT, "--quiet")
    assert result.exit_code == code
    assert result.stdout == ""
    assert [line[:6] for line in result.stderr.splitlines()] == ["Error:", "Hint: "][
        : 2 * (code > 0)
    ]


def test_quiet_score_prints_the_scores_alone() -> None:
    result = done("score", "net.onnx", "--data", "data.npz", "--estimator", "l1", "-q")
    assert result.stderr == ""
    assert json.loads(result.stdout)["estimator"] == "l1"


def test_verbose_lists_all_that_was_left_alone() -> None:
    many = [word for i in range(14) for word in ("--exclude", f"conv{1 + i % 2}{'*' * (i // 2)}")]
    few = done("inspect", "net.onnx", *many).stdout
    everything = done("inspect", "net.onnx", *many, "--verbose").stdout
    assert "more (-v shows all)" in few
    assert "more (-v shows all)" not in everything
    assert len(everything.splitlines()) > len(few.splitlines())


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_one_line_says_where_it_runs(provider: str) -> None:
    result = done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--provider", provider)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ONNX Runtime")]
    assert re.search(r"on (CPU|GPU \(CUDA\))$", line)
    assert provider == "auto" or line.endswith("on CPU")


# --- endings other than success ------------------------------------------------------------


def test_nothing_to_prune_copies_the_source() -> None:
    """Exit 3; the report says why every channel stays."""
    result = run("prune", "stuck.onnx", "-o", "out.onnx", *CUT, "--report", "r.json")
    report = read_json("r.json")
    assert result.exit_code == 3
    assert Path("out.onnx").read_bytes() == Path("stuck.onnx").read_bytes()
    assert report["before"] == report["after"]
    assert report["groups"] == []
    (skipped,) = report["skipped"]
    assert skipped == {
        "node": "only",
        "op_type": "Conv",
        "reason": "its channels are the model's output 'y'",
        "members": ["only"],
        "approximable": False,
    }
    assert skipped["reason"] in result.stderr


def test_nothing_to_prune_in_a_model_with_external_weights() -> None:
    """The copy has its weights inside: it may lie anywhere."""
    Path("far").mkdir()
    models.external(Path("far"))
    everything = ("--exclude", "conv*")
    result = run("prune", "far/external.onnx", "-o", "out.onnx", *CUT, *everything)
    assert result.exit_code == 3
    found, expected = (
        Session(onnx.load(n)).run({"x": models.samples()}) for n in ("out.onnx", "net.onnx")
    )
    np.testing.assert_array_equal(found[0], expected[0])


UNREACHABLE = ("--data", "data.npz", "--keep", "0.01", "--estimator", "l1", "--report", "r.json")


def test_target_out_of_reach_writes_the_report_alone() -> None:
    """Exit 4; the report says how far it got."""
    before = files()
    result = run("prune", "net.onnx", "-o", "out.onnx", *UNREACHABLE)
    report = read_json("r.json")
    assert result.exit_code == 4
    assert files() - before == {"r.json"}
    assert [len(group["kept"]) for group in report["groups"]] == [1, 1]
    share = report["after"]["macs"] / report["before"]["macs"]
    assert f"the smallest model has {share:.3g} ×" in result.stderr


def test_best_effort_writes_the_smallest_model() -> None:
    result = run("prune", "net.onnx", "-o", "out.onnx", *UNREACHABLE, "--best-effort")
    pruned = onnx.load("out.onnx")
    assert result.exit_code == 4
    assert [width(pruned, f"conv{i}.w") for i in (1, 2)] == [1, 1]


@pytest.mark.parametrize("code", [0, 3, 4])
def test_existing_output_is_kept_without_force(code: int) -> None:
    source, keep = {0: ("net", "0.5"), 3: ("stuck", "0.5"), 4: ("net", "0.01")}[code]
    command = ("prune", f"{source}.onnx", "-o", "out.onnx", "--data", "data.npz", "--keep", keep)
    command += ("--estimator", "l1", "--best-effort")
    Path("out.onnx").write_text("precious")
    refused = run(*command)
    assert refused.exit_code == 1
    assert Path("out.onnx").read_text() == "precious"
    assert run(*command, "--force").exit_code == code
    assert onnx.load("out.onnx").graph.name == "tiny"


def test_source_is_kept_even_with_force() -> None:
    before = Path("net.onnx").read_bytes()
    result = run("prune", "net.onnx", "-o", "./net.onnx", *CUT, "--force")
    assert result.exit_code == 1
    assert Path("net.onnx").read_bytes() == before


def test_weights_of_the_source_are_kept_even_with_force() -> None:
    """They are the source as much as the model that names them."""
    Path("far").mkdir()
    models.external(Path("far"))
    before = Path("far/weights.bin").read_bytes()
    result = run("prune", "far/external.onnx", "-o", "far/weights.bin", *CUT, "--force")
    assert Path("far/weights.bin").read_bytes() == before
    assert result.exit_code == 1


def test_scores_of_the_same_graph_with_other_weights_are_refused() -> None:
    """With external weights, the file that names them is the same to the byte."""
    for seed, folder in enumerate(("old", "new")):
        Path(folder).mkdir()
        models.external(Path(folder), seed=seed)
    assert Path("old/external.onnx").read_bytes() == Path("new/external.onnx").read_bytes()
    how = ("--data", "data.npz", "--estimator", "l1", "-o", "scores.json")
    done("score", "old/external.onnx", *how)
    cut = ("--data", "data.npz", "--keep", "0.5", "--scores", "scores.json")
    result = run("prune", "new/external.onnx", "-o", "o.onnx", *cut)
    assert result.exit_code == 1
    assert "the scores are of the model" in result.stderr


def test_debug_shows_the_traceback() -> None:
    assert isinstance(run("inspect", "none.onnx", "--debug").exception, ModelError)
    shown = process("inspect", "none.onnx", "--debug")
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert "there is no file 'none.onnx'" in shown.stderr


def test_unforeseen_errors_have_no_traceback_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bolt is loose")

    monkeypatch.setattr("onnx_shapprune.model_io.load_model", fail)
    result = run("inspect", "net.onnx")
    assert result.exit_code == 1
    assert "Error: unexpected RuntimeError: a bolt is loose" in result.stderr
    assert "--debug" in result.stderr


def test_out_of_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("onnx_shapprune.model_io.load_model", fail)
    result = run("inspect", "net.onnx")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "Error: out of memory")


# --- compare -----------------------------------------------------------------------------


def test_compare_a_model_with_itself() -> None:
    result = done("compare", "net.onnx", "net.onnx", "--data", "data.npz", "--json")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert found["max_difference"] == 0
    assert found["a"]["cost"] == found["b"]["cost"]
    assert found["a"]["metric"] == found["b"]["metric"] == 0


def test_compare_with_the_pruned_model() -> None:
    done("prune", "net.onnx", "-o", "out.onnx", *CUT, "--report", "r.json")
    result = done("compare", "net.onnx", "out.onnx", "--data", "data.npz", "--json")
    found, report = json.loads(result.stdout), read_json("r.json")
    for side, name in (("a", "before"), ("b", "after")):
        assert found[side]["cost"]["macs"] == report[name]["macs"]
        assert found[side]["milliseconds"] > 0
    assert found["b"]["metric"] == pytest.approx(report["metric"]["removed"])
    assert found["max_difference"] > 0


def test_compare_by_labels() -> None:
    result = done("compare", "net.onnx", "net.onnx", "--data", "data.npz", "--labels", "--json")
    found = json.loads(result.stdout)
    (outputs,) = Session(models.sequential()).run({"x": models.samples()})
    right = float(np.mean(outputs.argmax(axis=1) == models.labels()))
    assert found["metric"] == "accuracy"
    assert found["a"]["metric"] == pytest.approx(right)


def test_compare_in_words() -> None:
    result = done("compare", "net.onnx", "skip.onnx", "--data", "data.npz")
    for words in ("MACs", "parameters", "bytes", "kl", "ms per run", "B/A"):
        assert words in result.stdout
    assert "ONNX Runtime" in result.stderr


@pytest.mark.parametrize("extra", [(), ("--labels", "--json")])
def test_compare_refuses_models_with_other_outputs(extra: tuple[str, ...]) -> None:
    """The same names, but five classes instead of three."""
    models.save(models.sequential(classes=5), Path("five.onnx"))
    result = run("compare", "net.onnx", "five.onnx", "--data", "data.npz", *extra)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "unexpected" not in result.stderr
    assert "Error: the models have different outputs" in result.stderr


# --- demo --------------------------------------------------------------------------------


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both accuracies, its files, and a command that does the same; scored by weights here."""
    monkeypatch.setattr("onnx_shapprune.demo.prune", partial(prune, scoring=Scoring("l1")))
    result = done("demo", "--out", "tried out")
    (accuracy,) = re.findall(r"accuracy +([\d.]+) +([\d.]+)", result.stdout)
    (command,) = re.findall(r"(onnx-shapprune prune .*)", result.stdout)
    assert float(accuracy[0]) > 0.85
    assert 0 < float(accuracy[1]) < float(accuracy[0])
    assert "took no part in scoring" in result.stdout
    assert "ms per run" in result.stdout
    done(*shlex.split(command)[1:], "--estimator", "l1")
    folder = Path("tried out")
    assert (folder / "small.onnx").read_bytes() == (folder / "pruned.onnx").read_bytes()
    assert read_json("tried out/report.json")["after"]["macs"] > 0


def test_demo_replaces_what_a_demo_has_left_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnx_shapprune.demo.prune", partial(prune, scoring=Scoring("l1")))
    Path("mine").mkdir()
    Path("mine/test.npz").write_text("precious")
    result = run("demo", "--out", "mine")
    assert result.exit_code == 1
    assert "exists already, and is not of an earlier demo" in result.stderr
    assert {path.name: path.read_text() for path in Path("mine").iterdir()} == {
        "test.npz": "precious"
    }
    done("demo", "--out", "again")
    Path("again/pruned.onnx").write_text("old")
    done("demo", "--out", "again")
    assert onnx.load("again/pruned.onnx").graph.node


def test_demo_where_no_folder_can_be() -> None:
    result = run("demo", "--out", "net.onnx")
    assert result.exit_code == 1
    assert "Error: can't make the folder 'net.onnx'" in result.stderr


# --- processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["prune", "net.onnx", "-o", "out.onnx", *CUT], 0),
        (["prune", "none.onnx", "-o", "out.onnx", *CUT], 1),
        (["prune", "net.onnx", "--data", "data.npz", "--keep", "0.5"], 2),
        (["prune", "stuck.onnx", "-o", "out.onnx", *CUT], 3),
        (["prune", "net.onnx", "-o", "out.onnx", *UNREACHABLE], 4),
    ],
    ids=["done", "error", "usage", "nothing", "unreachable"],
)
def test_exit_codes_and_streams(args: list[str], code: int) -> None:
    found = process(*args)
    assert found.returncode == code, found.stderr
    assert found.stdout == ""
    assert ESCAPE not in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stderr.count("Error: ") == (code > 0)


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", "net.onnx", "--json"],
        ["score", "net.onnx", "--data", "data.npz", "--estimator", "l1"],
        ["compare", "net.onnx", "net.onnx", "--data", "data.npz", "--json"],
    ],
    ids=["inspect", "score", "compare"],
)
def test_piped_data_parse(args: list[str]) -> None:
    found = process(*args)
    assert json.loads(found.stdout)["schema_version"] == 1
    assert ESCAPE not in found.stderr


def test_piped_tables_are_plain() -> None:
    found = process("compare", "net.onnx", "net.onnx", "--data", "data.npz")
    assert "MACs" in found.stdout
    assert ESCAPE not in found.stdout + found.stderr
    assert all(line == line.rstrip("\r") for line in found.stderr.split("\n"))


def test_report_names_the_command() -> None:
    args = ["prune", "net.onnx", "-o", "a b.onnx", *CUT, "--report", "r.json"]
    process(*args)
    assert shlex.split(read_json("r.json")["command"]) == ["onnx-shapprune", *args]


@unix
def test_closed_pipe_is_no_error() -> None:
    """As in `onnx-shapprune inspect … | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "onnx_shapprune", "inspect", "net.onnx", "--json"]
    found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert found.stderr == ""


@unix
@pytest.mark.parametrize("command", ["prune", "score"])
def test_interrupted_while_scoring(command: str) -> None:
    """Ctrl-C: exit 130 at once, and whatever was there before is all that is there."""
    Path("out.onnx").write_text("precious")
    keep = ["--keep", "0.5"] if command == "prune" else []
    args = [command, "wide.onnx", "-o", "out.onnx", "--force", "--data", "data.npz", *keep]
    models.save(models.sequential(widths=(64, 64)), Path("wide.onnx"))
    before = models.contents(Path())
    code, words = interrupted([*args, "--budget", "100000n"])
    assert code == 130, words
    assert "Interrupted: nothing was left half-written." in words
    assert "Traceback" not in words
    assert models.contents(Path()) == before


INTERRUPTIBLE = """
import signal
from onnx_shapprune.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
main()
"""


def interrupted(args: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command that gets Ctrl-C a moment after it began to score."""
    command = [sys.executable, "-c", INTERRUPTIBLE, *args]
    with subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, encoding="utf-8"
    ) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=60)
        return running.returncode, first + rest


@pytest.mark.parametrize("stage", ["options", "load", "write"])
def test_interrupted_whenever(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the work begins and at its very end."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = {"options": "estimators.Budget.parse", "load": "bench.Bench.metric"}
    monkeypatch.setattr(f"onnx_shapprune.{place.get(stage, 'files.os.replace')}", interrupt)
    before = models.contents(Path())
    result = run("prune", "net.onnx", "-o", "out.onnx", *CUT)
    assert result.exit_code == 130
    assert models.contents(Path()) == before
