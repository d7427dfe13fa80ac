"""docs/operators.md from the rules themselves.

    python tools/operators.py            write it
    python tools/operators.py --check    exit 1 if it is not what the rules say

What becomes of the channels is the docstring of the rule, when it is refused are the
sentences in its source and in that of what it calls, what shrinks or follows is what was
seen on the nets of tests/test_rules.py.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import getdoc, getsource, unwrap
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from onnx_shapprune.passes import rules  # noqa: E402
from onnx_shapprune.passes.couplings import find_groups  # noqa: E402
from onnx_shapprune.passes.rules.registry import Rule, operator  # noqa: E402
from onnx_shapprune.passes.stored import FORMERS  # noqa: E402
from onnx_shapprune.types import ChannelGroup, Slot  # noqa: E402
from test_rules import CASES, REFUSALS, graph_of, net_of  # noqa: E402

TARGET = ROOT / "docs" / "operators.md"
THEMES = (
    *("linear", "normalisation", "pointwise", "along", "spatial"),
    *("layout", "selection", "quantisation", "numbers"),
)
TOOLS = ("site", "constants")
"""Modules whose refusals can come from any rule."""

INPUTS = {  # of operators that onnx has no schema for
    "com.microsoft.BiasGelu": "A B",
    "com.microsoft.FastGelu": "X bias",
    "com.microsoft.FusedConv": "X W B Z",
    "com.microsoft.FusedGemm": "A B C",
    "com.microsoft.QGemm": "A a_scale a_zero_point B b_scale b_zero_point C y_scale y_zero_point",
    "com.microsoft.QLinearMul": "A A_scale A_zero_point B B_scale B_zero_point",
}
INTRO = """# Operators

Written by `python tools/operators.py` from the rules in `passes/rules/`; a test compares.

A row says what a rule makes of a node whose input has channels that may leave. Channels are
followed along whatever axis they are on: NCHW, NHWC and rows of features are the same to a
rule.

- *Shrinks or follows*: the stored inputs that lose the same channels (or whose indices are
  renumbered), the attributes and inputs whose numbers follow, and the inputs where absent
  channels are masked, because the node sums over them.
- *Refused*: the sentences that `inspect` and the report give. The channels that arrive then
  stay, and so do all that they are tied to. *Italics* and "…" stand for names and numbers.

An operator without a row is refused: `no rule for this operator`. None is taken to be
element-wise. Channels that are an output of the model, or that the body of another node reads,
stay too.

A stored input is an initializer or the output of a Constant node, also behind
{formers}.

`tests/test_rules.py` checks each row mechanically. {cases} nets are cut at random and run in ONNX
Runtime: what a node gives for fewer channels must be its full output without them. {refused} more
are refused; each sentence that a valid model can meet has one of them.
"""
COMMON = """## Wherever a rule needs it

Any rule is refused where what it needs is not there:

{sentences}
"""


# --- what is said in the source ---------------------------------------------------------


@cache
def functions(module: str) -> Mapping[str, ast.FunctionDef]:
    """All functions of a module of rules, methods too."""
    tree = ast.parse(getsource(getattr(rules, module)))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _home(module: str, name: str) -> str:
    """The module of rules that a function comes from; empty if it is none of theirs."""
    found = getattr(getattr(rules, module), name, None)
    home = str(getattr(found, "__module__", "")).rpartition(".")[2]
    return home if home in THEMES else ""


def called(module: str, name: str) -> Iterator[tuple[str, str]]:
    """A function and all those of the rules that it calls, each once."""
    pending, seen = [(module, name)], set()
    while pending:
        here = pending.pop(0)
        if here in seen:
            continue
        seen.add(here)
        yield here
        names = [n.id for n in ast.walk(functions(here[0])[here[1]]) if isinstance(n, ast.Name)]
        pending += [(home, n) for n in names if (home := _home(here[0], n))]


def refusals(nodes: Iterable[ast.AST]) -> list[str]:
    """Sentences that nodes of the source refuse with, in order, each once."""
    calls = (call for node in nodes for call in ast.walk(node) if isinstance(call, ast.Call))
    return list(dict.fromkeys(_sentence(call.args[-1]) for call in calls if _refuses(call)))


def _refuses(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name == "Refused" or (name == "lock" and len(call.args) == 2)


def _sentence(text: ast.expr) -> str:
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(_said(part) for part in parts)


def _said(part: ast.expr) -> str:
    """A literal as it is, a variable by its name, anything else as dots."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else part
    return f"*{value.id}*" if isinstance(value, ast.Name) else "…"


# --- what was seen on nets --------------------------------------------------------------

KINDS = ("shrinks", "renumbered", "follows", "masked")
Touched = tuple[str, str, int, str]
"""Operator, way, input and its name; or −1 and the name of an attribute."""


def effects(group: ChannelGroup) -> Iterator[tuple[Slot, str, str]]:
    """Where a group touches a node, in what way, and the attribute's name if it is one."""
    found = {"shrinks": group.weights, "renumbered": group.indices, "masked": group.reads}
    for kind, cuts in found.items():
        yield from ((slot, kind, "") for cut in cuts for slot in cut.readers)
    yield from ((follow.slot, "follows", follow.attribute) for follow in group.follows)


def observed() -> set[Touched]:
    """All that the groups of the nets touch at the operators that the nets are about."""
    seen = set()
    for case in CASES:
        graph = graph_of(net_of(case))
        for group in find_groups(graph).groups:
            tracked = {cut.tensor for cut in group.shapes}
            for slot, kind, attribute in effects(group):
                node = graph.nodes[slot.node]
                op = operator(node)
                if op in words(case) and tracked & {*node.input, *node.output}:
                    index = -1 if attribute else slot.index
                    seen.add((op, kind, index, attribute or input_name(op, index, graph.opset)))
    return seen


def words(case: str) -> set[str]:
    """The operators that a net is about are words of its name."""
    return set(case.replace(",", "").split())


def input_name(op: str, index: int, opset: int) -> str:
    """What the input of an operator is called in its description."""
    if op in INPUTS:
        return INPUTS[op].split()[index]
    name = op.rpartition(".")[2]
    inputs = onnx.defs.get_schema(name, opset).inputs
    return str(inputs[min(index, len(inputs) - 1)].name)


# --- the document -----------------------------------------------------------------------


def document() -> str:
    """The whole text."""
    seen = observed()
    tables = [section(theme, seen) for theme in THEMES]
    common = [said for tool in TOOLS for said in refusals(functions(tool).values())]
    sentences = "\n".join(f"- {said}" for said in dict.fromkeys(common))
    intro = INTRO.format(cases=len(CASES), refused=len(REFUSALS), formers=_code(sorted(FORMERS)))
    parts = [intro, *tables, COMMON.format(sentences=sentences)]
    return "\n".join(parts)


def section(theme: str, seen: set[Touched]) -> str:
    """One module: its docstring as a heading, a row for each rule."""
    title, _, text = (getdoc(getattr(rules, theme)) or "").rstrip(".").partition(":")
    lines = [f"## {title}", *([f"\n{text.strip().capitalize()}."] if text else []), ""]
    lines += table(
        ["Operator", "The channels", "Shrinks or follows", "Refused"], channels(theme, seen)
    )
    numbers = [*entries(theme)]
    if numbers:
        lines += ["", f"Entries of shape tensors are followed through these, to {readers()}.", ""]
        lines += table(["Operator", "The entries", "Refused"], numbers)
    return "\n".join(lines) + "\n"


def readers() -> str:
    """The inputs where the entries of shape tensors are looked at."""
    names: dict[str, list[str]] = {}
    for op, index in sorted(rules.NUMBER_READERS):
        names.setdefault(op, []).append(input_name(op, index, onnx.defs.onnx_opset_version()))
    return ", ".join(f"{_code(found)} of {op}" for op, found in names.items())


def channels(theme: str, seen: set[Touched]) -> Iterator[list[str]]:
    """The rules on channels of a module."""
    for rule, ops in _rows(theme, rules.RULES):
        touched = {found[1:] for found in seen if found[0] in ops}
        yield [_code(ops), _prose(rule), _touched(touched), _refused(theme, rule)]


def entries(theme: str) -> Iterator[list[str]]:
    """The rules on entries of shape tensors of a module."""
    for rule, ops in _rows(theme, rules.NUMBER_RULES):
        yield [_code(ops), _prose(rule), _refused(theme, rule)]


def _rows(theme: str, registry: Mapping[str, Rule]) -> list[tuple[Rule, list[str]]]:
    """Rules of a module in the order of the source, each with its operators."""
    found: dict[Rule, list[str]] = {}
    for op, rule in sorted(registry.items()):
        if rule.__module__.rpartition(".")[2] == theme:
            found.setdefault(rule, []).append(op)
    return sorted(found.items(), key=lambda row: unwrap(row[0]).__code__.co_firstlineno)


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _prose(rule: Rule) -> str:
    return " ".join((getdoc(rule) or "").split())


def _refused(theme: str, rule: Rule) -> str:
    nodes = [functions(module)[name] for module, name in called(theme, rule.__name__)]
    return "; ".join(refusals(nodes))


def _touched(found: set[tuple[str, int, str]]) -> str:
    by_kind = {k: [name for kind, _, name in sorted(found) if kind == k] for k in KINDS}
    return "; ".join(
        f"{kind}: {_code(dict.fromkeys(names))}" for kind, names in by_kind.items() if names
    )


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    text = document()
    if not parser.parse_args(arguments).check:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.name} is not what the rules say: run python tools/operators.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
