"""What importing loads, and under which names modules are imported."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnx_shapprune
from onnx_shapprune.cli import cli

ROOT = Path(__file__).resolve().parents[1]
LIGHT = {"click", "onnx_shapprune"}
"""All that --help may load, beside the standard library."""

LISTED = """
import json, sys
before = {name.partition(".")[0] for name in sys.modules}
%s
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))), file=sys.stderr)
"""

HELP = """
import runpy
sys.argv = ["onnx-shapprune", *{args!r}]
try:
    runpy.run_module("onnx_shapprune", run_name="__main__")
except SystemExit as end:
    assert not end.code
"""


def loaded(statements: str) -> set[str]:
    """Top-level packages that some statements load in a new process."""
    found = subprocess.run(
        [sys.executable, "-c", LISTED % statements], capture_output=True, text=True, check=True
    )
    return set(json.loads(found.stderr))


def test_package_is_light() -> None:
    assert loaded("import onnx_shapprune") == {"onnx_shapprune"}


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_is_light(command: str) -> None:
    args = [*command.split(), "--help"]
    assert loaded(HELP.format(args=args)) <= LIGHT


def test_the_list_of_what_is_loaded_is_complete() -> None:
    """The test above would see a library that is loaded."""
    assert {"numpy", "onnx", "onnxruntime"} <= loaded("import onnx_shapprune.runtime")


def test_the_path_to_a_pruned_model_needs_no_torch() -> None:
    """Every module of the package but for what extras bring."""
    names = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in sorted((ROOT / "onnx_shapprune").glob("*.py"))
        if not path.stem.startswith("__")
    ]
    found = loaded("\n".join(f"import {name}" for name in names))
    assert not found & {"torch", "dask", "distributed", "cupy"}


def test_help_is_quick() -> None:
    """At most 2.5 times what importing click and numpy takes."""
    shortest = [
        min(seconds(*command) for _ in range(4))
        for command in (["-m", "onnx_shapprune", "--help"], ["-c", "import click, numpy"])
    ]
    assert shortest[0] <= 2.5 * shortest[1]


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("name", onnx_shapprune.__all__)
def test_public_name(name: str) -> None:
    """Every name that the package promises is there, from its own module."""
    found = getattr(onnx_shapprune, name)
    assert found.__name__ == name
    assert found.__module__.startswith("onnx_shapprune.")


def test_public_names_are_listed_once_each() -> None:
    assert sorted(set(onnx_shapprune.__all__)) == onnx_shapprune.__all__
    assert {"prune", "score", "load_model", "find_groups", "remove"} <= set(onnx_shapprune.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        _ = onnx_shapprune.prunes


def test_package_is_typed() -> None:
    assert (Path(onnx_shapprune.__file__).parent / "py.typed").is_file()


# --- the passes have one name --------------------------------------------------------------------


def python_files() -> list[Path]:
    folders = ("onnx_shapprune", "passes", "calib_data", "tests", "tools")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def top_level_imports(source: str) -> Iterator[str]:
    """First parts of the names of imported modules, relative ones left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_nobody_imports_the_passes_by_their_folder() -> None:
    """They would be there twice, with two of every class."""
    guilty = [
        path.relative_to(ROOT).as_posix()
        for path in python_files()
        if {"passes", "calib_data"} & set(top_level_imports(path.read_text(encoding="utf-8")))
    ]
    assert guilty == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import passes", {"passes"}),
        ("import passes.graph as g", {"passes"}),
        ("def f():\n    from passes.graph import Graph", {"passes"}),
        ("from .passes.graph import Graph", set()),
        ("from onnx_shapprune.passes import graph", {"onnx_shapprune"}),
    ],
)
def test_top_level_imports(source: str, found: set[str]) -> None:
    assert set(top_level_imports(source)) == found
