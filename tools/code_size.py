"""How long the code of passes/ is: files, lines, lines of code, and lengths of functions.

    python tools/code_size.py               a table
    python tools/code_size.py --json FILE   also as data

A line of code holds more than a comment or a docstring. A function's length is that of its body,
without its docstring.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "rules": ["passes/rules/*.py"],
    "propagation": ["passes/couplings.py", "passes/partition.py", "passes/wishes.py"],
    "all of passes/": ["passes/*.py", "passes/rules/*.py"],
}
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef)

Figures = dict[str, float]


def figures(paths: Sequence[Path]) -> Figures:
    """Counts over some files."""
    sources = [path.read_text(encoding="utf-8") for path in paths]
    lengths = [length for source in sources for length in function_lengths(ast.parse(source))]
    return {
        "files": len(paths),
        "lines": sum(len(source.splitlines()) for source in sources),
        "code_lines": sum(code_lines(source) for source in sources),
        "functions": len(lengths),
        "median_function": median(lengths),
        "p90_function": quantiles(lengths, n=10, method="inclusive")[-1],
        "longest_function": max(lengths),
    }


def code_lines(source: str) -> int:
    """Lines with code on them."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spoken = (token for token in tokens if token.type not in SILENT and token.string)
    lines = {line for token in spoken for line in range(token.start[0], token.end[0] + 1)}
    tree = ast.parse(source)
    documented = (node for node in ast.walk(tree) if isinstance(node, Documented))
    return len(lines - {line for node in documented for line in docstring(node)})


def docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> range:
    """Lines of a docstring."""
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    first = node.body[0]
    return range(first.lineno, (first.end_lineno or first.lineno) + 1)


def function_lengths(tree: ast.Module) -> Iterator[int]:
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        body = node.body[1:] if docstring(node) else node.body
        if body:
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = {
        part: figures([path for pattern in patterns for path in sorted(ROOT.glob(pattern))])
        for part, patterns in PARTS.items()
    }
    print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for name in next(iter(found.values())):
        cells = " | ".join(f"{part[name]:g}" for part in found.values())
        print(f"| {name.replace('_', ' ')} | {cells} |")
    if given.json:
        given.json.write_text(json.dumps({"summary": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
