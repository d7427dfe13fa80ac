"""Who may know whom: read from the source, so that no import has to work for it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "onnx_shapprune"
FOLDERS = {"": ROOT / PACKAGE, "passes": ROOT / "passes", "calib_data": ROOT / "calib_data"}

RANKS = (
    # what everybody speaks
    "onnx_shapprune types errors calib_data passes",
    # where the bytes of a model are
    "wire passes.weights passes.bodies",
    # alone with their subject
    "settings",
    "files weight_files images metrics progress command passes.shapes passes.functions "
    "passes.rules.effects estimators.base estimators.budget",
    "passes.validity",
    "calibration model_io groups_file passes.graph passes.outputs "
    "estimators.exact estimators.leave_one_out estimators.permutation estimators.baselines",
    # one thing done to a model or a game
    "passes.folding",
    "passes.stored",
    "passes.averages passes.shifts",
    "runtime cost estimators passes.partition passes.masking "
    "passes.removal passes.suffix passes.inner passes.rules.constants",
    "passes.wishes",
    # the rules, from their tools to their register
    "passes.rules.site",
    "passes.rules.registry",
    "passes.rules.along passes.rules.normalisation passes.rules.numbers "
    "passes.rules.pointwise passes.rules.quantisation",
    "passes.rules.layout passes.rules.linear passes.rules.selection passes.rules.spatial",
    "passes.rules",
    "passes.couplings",
    # stages
    "game allocation inner",
    "verification",
    "bench",
    "curves scoring report",
    "inspection comparison documents pipeline",
    # people
    "console options",
    "tree demo",
    "cli",
    "onnx_shapprune.__main__",
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names.split()}

ONLY_IMPORTER = {"onnxruntime": "runtime", "onnx_graphsurgeon": "passes.masking"}
NO_NAMES = {"utils", "util", "helpers", "helper", "base", "common", "misc"}
ESTIMATORS_MAY_IMPORT = {"numpy", *sys.stdlib_module_names}


@cache
def sources() -> dict[str, Path]:
    """Every module by its name within the package."""
    found = {}
    for prefix, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [*prefix.split(), *path.relative_to(folder).with_suffix("").parts]
            found[module_name(parts)] = path
    return found


def module_name(parts: list[str]) -> str:
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]) or PACKAGE
    return f"{PACKAGE}.__main__" if parts == ["__main__"] else ".".join(parts)


def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from run_time_nodes(child)


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """Full names that a module imports, late imports too, and whether they are ours."""
    for node in run_time_nodes(tree(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name.startswith(PACKAGE)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(name, node)
            yield from ((f"{origin}.{alias.name}", is_ours(origin)) for alias in node.names)


def is_ours(origin: str) -> bool:
    return origin.split(".", maxsplit=1)[0] == PACKAGE


def absolute(name: str, node: ast.ImportFrom) -> str:
    """The full name of the module that a from-import names."""
    if not node.level:
        return node.module or ""
    inside = [] if name.startswith(PACKAGE) else name.split(".")
    is_package = sources()[name].name == "__init__.py"
    above = node.level - 1 if is_package else node.level
    home = inside[: len(inside) - above] if above and inside else inside
    return ".".join([PACKAGE, *home, *([node.module] if node.module else [])])


def dependencies(name: str) -> set[str]:
    """Our own modules that a module imports."""
    return {owner(full) for full, ours in imports(name) if ours} - {name}


def owner(full: str) -> str:
    """The module that a full name is in, or is."""
    inner = full.removeprefix(PACKAGE).lstrip(".")
    while inner and inner not in sources():
        inner = inner.rpartition(".")[0]
    return inner or PACKAGE


# --- tests -----------------------------------------------------------------------------------


def test_every_module_has_a_rank() -> None:
    assert sorted(sources()) == sorted(RANK)


@pytest.mark.parametrize("name", sorted(sources()))
def test_imports_point_downwards(name: str) -> None:
    """A module knows lower ranks only, whether it imports early or late."""
    mine = RANK.get(name, len(RANKS))
    assert [other for other in sorted(dependencies(name)) if RANK.get(other, mine) >= mine] == []


@pytest.mark.parametrize(("library", "importer"), sorted(ONLY_IMPORTER.items()))
def test_only_importer(library: str, importer: str) -> None:
    importers = {
        name
        for name in sources()
        if any(full.split(".")[0] == library for full, _ in imports(name))
    }
    assert importers == {importer}


@pytest.mark.parametrize("name", [name for name in sorted(sources()) if "estimators" in name])
def test_estimators_know_a_game_and_nothing_of_models(name: str) -> None:
    ours = dependencies(name)
    others = {full.split(".")[0] for full, is_our_own in imports(name) if not is_our_own}
    assert {other for other in ours if not other.startswith("estimators")} <= {"types", "errors"}
    assert others <= ESTIMATORS_MAY_IMPORT


@pytest.mark.parametrize("name", [name for name in sorted(sources()) if "passes" in name])
def test_passes_know_graphs_and_nothing_of_the_tool(name: str) -> None:
    ours = {other for other in dependencies(name) if not other.startswith("passes")}
    assert ours <= {"types", "errors"}


def test_names_say_what_is_in_a_module() -> None:
    vague = {name for name in sources() if name.rpartition(".")[2] in NO_NAMES}
    assert vague <= {"estimators.base"}


@pytest.mark.parametrize("name", sorted(sources()))
def test_everything_public_has_a_docstring(name: str) -> None:
    module = tree(name)
    assert ast.get_docstring(module)
    assert [label for label, node in public(module) if not ast.get_docstring(node)] == []


Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Documented]]:
    """Public classes and functions, and the public methods of public classes."""
    for child in node.body:
        if isinstance(child, Documented) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")


# --- the reader of imports itself ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "statement", "found"),
    [
        ("cli", "from . import options", {"options"}),
        ("cli", "from . import __version__", {PACKAGE}),
        ("cli", "from .passes.graph import Graph", {"passes.graph"}),
        ("cli", "def f():\n    from .bench import Bench", {"bench"}),
        ("cli", "import onnx_shapprune.bench", {"bench"}),
        ("cli", "if TYPE_CHECKING:\n    from .bench import Bench", set()),
        ("passes.rules.site", "from ..graph import Graph", {"passes.graph"}),
        ("passes.rules.site", "from .registry import rule", {"passes.rules.registry"}),
        ("passes.rules", "from . import layout", {"passes.rules.layout"}),
        ("passes.graph", "from onnx_shapprune.types import Shape", {"types"}),
        ("estimators", "from onnx_shapprune.estimators import exact", {"estimators.exact"}),
        ("cli", "import numpy\nfrom os import path", set()),
    ],
)
def test_dependencies(
    name: str, statement: str, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "tree", lambda _: ast.parse(statement))
    assert dependencies(name) == found
