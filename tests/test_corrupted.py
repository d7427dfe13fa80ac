"""Damaged model files end in a result that runs, or in one `Error:` line and no file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import corrupt
from onnx_shapprune.cli import cli

ROOM = 2**29
FIRST = range(50)
"""Every corruption comes at least once; `tools/corrupt.py` runs many more, each confined."""

FOUND = {
    "a rule refuses after it made channels": (1, 2),
    "outputs whose recorded rank is wrong": (1, 20),
    "a sparse weight of another size": (1, 8870),
    "an attribute that comes twice": (1, 50),
    "names that are no UTF-8": (1, 71),
    "a weight's name that is no UTF-8": (1, 2567),
    "a weight of another type than its input says": (1, 95),
    "a function that calls itself": (1, 112),
    "no groups": (1, 113),
    "more samples than memory has": (1, 173),
    "an attribute that refers to a function's": (1, 242),
    "groups that don't divide the inputs": (1, 244),
    "more groups than outputs": (1, 305),
    "channels that no node makes": (1, 497),
    "words for an index": (1, 910),
    "a name that a mask has": (1, 985),
    "deep bodies": (1, 1173),
    "an empty output": (1, 1768),
    "less than no groups": (1, 1937),
    "a kernel of one axis": (1, 2777),
    "complex numbers for an index": (1, 3461),
    "a long chain of Identity": (1, 3571),
    "values that don't fill their shape": (1, 3596),
    "weights that overflow": (1, 4351),
    "a segmented tensor": (1, 4582),
    "an element type that there is not": (1, 6252),
    "a matrix of one axis": (1, 6918),
    "an index beyond a shape": (1, 9183),
    "random numbers": (2, 2478),
    "a model that needs more than one sample": (2, 7528),
}
"""What `tools/corrupt.py` has found: seed and number."""


@pytest.fixture(autouse=True)
def _confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, and no room for tensors as large as some of the files say."""
    monkeypatch.chdir(tmp_path)
    if sys.platform != "linux":
        yield
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def test_every_corruption_is_tried() -> None:
    assert len(corrupt.CORRUPTIONS) <= len(FIRST)


@pytest.mark.parametrize("number", FIRST)
def test_it_ends_as_it_may(number: int, tmp_path: Path) -> None:
    require_an_end(0, number, tmp_path)


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found(what: str, tmp_path: Path) -> None:
    require_an_end(*FOUND[what], tmp_path)


@pytest.mark.parametrize("number", [506, 917])
def test_odd_constants_are_folded_without_a_word(number: int, tmp_path: Path) -> None:
    """NaN and complex numbers, in nets that compute everything from constants."""
    corrupt.make_case(number, 0).write(tmp_path)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = CliRunner().invoke(cli, ["inspect", "model.onnx"])
    assert (found.exit_code, [str(warning.message) for warning in heard]) == (0, [])


def require_an_end(seed: int, number: int, folder: Path) -> None:
    """Prune a damaged file; nothing that counts as a defect comes of it."""
    case = corrupt.make_case(number, seed)
    case.write(folder)
    before = {path.name for path in folder.iterdir()}
    found = CliRunner().invoke(cli, [*corrupt.COMMAND], prog_name="onnx-shapprune")
    left = {path.name for path in folder.iterdir()} - before
    defect = corrupt.defect(found.exit_code, found.output, left)
    assert not defect, f"{case.corruption} of {case.source}: {defect}\n{found.output}"
    if "out.onnx" in left:
        assert corrupt.try_result() == 0


@pytest.mark.parametrize(
    ("code", "said", "left", "defect"),
    [
        (0, "", {"out.onnx"}, ""),
        (3, "Error: none\nHint: see", {"out.onnx"}, ""),
        (4, "Error: too low", set(), ""),
        (1, "Note: so\nError: wrong\n", set(), ""),
        (1, "Error: wrong\n", {"out.onnx"}, "a file where none may be"),
        (0, "", set(), "no file"),
        (0, "", {"out.onnx", ".out.onnx.x1"}, "leftovers"),
        (1, "", set(), "no message"),
        (1, "Error: one\nError: two\n", set(), "several messages"),
        (1, "Error: unexpected KeyError: 'x'\n", set(), "unexpected"),
        (1, "Traceback (most recent call last):\n", set(), "traceback"),
        (1, "Error: it differs\nHint: please report this model\n", set(), "refuted by verify"),
        (1, "free(): invalid pointer\nError: wrong\n", set(), "noise"),
        (2, "Error: usage\n", set(), "exit 2"),
        (-11, "", set(), "SIGSEGV"),
        (None, "", set(), "timeout"),
    ],
)
def test_what_counts_as_a_defect(code: int | None, said: str, left: set[str], defect: str) -> None:
    assert corrupt.defect(code, said, left) == defect


def test_files_are_the_same_for_the_same_seed() -> None:
    for number in range(len(corrupt.CORRUPTIONS)):
        assert corrupt.make_case(number, 3).content == corrupt.make_case(number, 3).content


def test_the_data_say_how_all_ended() -> None:
    verdicts = [
        corrupt.Verdict(0, "aliased", "alone", 1, "", "Error: no", seconds=0.5, memory=80),
        corrupt.Verdict(1, "aliased", "cycle", None, "timeout", "", seconds=10.0, memory=90),
    ]
    data = corrupt.as_data(7, verdicts)
    assert data["summary"] == {
        "seed": 7,
        "files": 2,
        "codes": {"1": 1, "None": 1},
        "outcomes": {"error": 1, "DEFECT: timeout": 1},
        "defects": 1,
        "worst_seconds": 10.0,
        "worst_memory": 90,
    }
    assert data["versions"]["onnx"]
    assert [case["number"] for case in data["cases"]] == [0, 1]
    assert "1 defects" in corrupt.table(7, verdicts)
    assert "1 cycle of aliased: timeout" in corrupt.table(7, verdicts)
