"""Prunes random graphs over the whole operator table; masked ≡ removed must hold for all of them.

    python tools/fuzz.py                       10,000 graphs, some 10 minutes
    python tools/fuzz.py --quick               300 of them, those of the tests
    python tools/fuzz.py --keep DIR            failing graphs, shrunk, as .onnx
    python tools/fuzz.py --graph 17            one graph, with the traceback
    python tools/fuzz.py --model FILE.onnx     a graph that was kept
    python tools/fuzz.py --json FILE           also as data

The graphs are those of tests/random_graphs.py with the numbers SEED, SEED + 1, … Exit 1 if one
fails.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SECONDS = 60
"""A graph that takes longer has failed; shrinking ends after this long."""

Model = onnx.ModelProto


@dataclass
class Outcome:
    """What became of one graph; ``failure`` is empty if everything held.

    ``kind`` is the failure without its names and numbers. ``locks`` are the operators, with
    their reasons, that hold the convolutions that can't be cut.
    """

    graph: int
    runs: bool = True
    nodes: int = 0
    convolutions: int = 0
    cut: int = 0
    seconds: float = 0.0
    failure: str = ""
    kind: str = ""
    locks: list[tuple[str, str]] = field(default_factory=list)


# --- one graph --------------------------------------------------------------------------


def attempt(number: int, choices: int = 2) -> Outcome:
    """Grow a graph, prune it, compare."""
    from random_graphs import check, convolutions, reasons, runs, seeded

    found, start = Outcome(number), perf_counter()
    model = seeded(number)
    found.nodes, found.runs = len(model.graph.node), runs(model)
    if found.runs:
        try:
            with _limited(SECONDS):
                bench = check(model, number, absent(number), choices)
        except Exception as error:
            found.failure, found.kind = _described(error), kind_of(error)
        else:
            for node, cut in convolutions(bench):
                found.convolutions += 1
                found.cut += cut
                found.locks += [] if cut else reasons(bench, node) or [("?", "no reason given")]
    found.seconds = perf_counter() - start
    return found


def absent(number: int) -> Any:
    """What an absent channel counts as."""
    return "zero" if number % 2 else "mean"


def _described(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name}: {str(error).strip()[:300]}"


def kind_of(error: Exception) -> str:
    """A failure without names and numbers: what shrinking has to preserve."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = re.sub(r"'[^']*'|\[[^]]*\]|\w+_\d+|[\d.]+(e[-+]?\d+)?", "*", str(error).strip())
    return f"{type(error).__name__} in {place.name}: {text.splitlines()[0][:80] if text else ''}"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in whatever takes longer."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# --- shrinking --------------------------------------------------------------------------


def shrunk(model: Model, number: int, kind: str) -> Model:
    """The smallest graph found that fails in the same way; greedy, while there is time."""
    end = perf_counter() + SECONDS
    smaller: Model | None = model
    while smaller is not None:
        model = smaller
        fitting = (c for c in smaller_ones(model) if perf_counter() < end)
        smaller = next((c for c in fitting if _fails(c, number, kind)), None)
    return model


def _fails(model: Model, number: int, kind: str) -> bool:
    from random_graphs import check, runs

    if not runs(model):
        return False
    try:
        with _limited(SECONDS):
            check(model, number, absent(number), 2)
    except Exception as error:
        return kind_of(error) == kind
    return False


def smaller_ones(model: Model) -> Iterator[Model]:
    """The graph that ends earlier, begins later, has an output less, or a node less."""
    infos = _infos(model)
    made = [node.output[0] for node in model.graph.node if node.output[0] in infos]
    ends = {output.name for output in model.graph.output}
    for name in (name for name in made if name not in ends):
        yield _with_ends(model, [infos[name]])
    for output in model.graph.output if len(ends) > 1 else ():
        yield _with_ends(model, [o for o in model.graph.output if o.name != output.name])
    for name in (name for name in reversed(made) if name not in ends and _is_picture(infos[name])):
        yield _with_input(model, infos[name])
    for place, node in enumerate(model.graph.node):
        for name in node.input:
            if _alike(infos.get(name), infos.get(node.output[0])):
                yield _without(model, place, name)


def _infos(model: Model) -> dict[str, onnx.ValueInfoProto]:
    """What is known of all activations."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}


def _is_picture(info: onnx.ValueInfoProto) -> bool:
    """Whether it can be an input: floats, behind a batch."""
    kind = info.type.tensor_type
    dims = list(kind.shape.dim)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return kind.elem_type in floats and len(dims) > 1 and all(d.dim_value > 0 for d in dims[1:])


def _alike(one: onnx.ValueInfoProto | None, other: onnx.ValueInfoProto | None) -> bool:
    return one is not None and other is not None and one.type == other.type


def _with_ends(model: Model, ends: Sequence[onnx.ValueInfoProto]) -> Model:
    copy = _copy(model)
    del copy.graph.output[:]
    copy.graph.output.extend(ends)
    return _without_dead(copy)


def _with_input(model: Model, info: onnx.ValueInfoProto) -> Model:
    """The graph whose tensor is fed instead of made."""
    copy = _copy(model)
    for node in [node for node in copy.graph.node if node.output[0] == info.name]:
        copy.graph.node.remove(node)
    copy.graph.input.append(info)
    return _without_dead(copy)


def _without(model: Model, place: int, name: str) -> Model:
    """The graph in which a node's input stands for its output."""
    copy = _copy(model)
    gone = copy.graph.node.pop(place).output[0]
    for node in copy.graph.node:
        node.input[:] = [name if n == gone else n for n in node.input]
    for output in copy.graph.output:
        output.name = name if output.name == gone else output.name
    return _without_dead(copy)


def _copy(model: Model) -> Model:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _without_dead(model: Model) -> Model:
    """The graph without what nothing reads; changes it."""
    graph, read = model.graph, {output.name for output in model.graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(_reads(node))
    fed = {info.name for info in (*graph.input, *graph.output)}
    for holder in (graph.initializer, graph.input, graph.value_info):
        recorded = holder is graph.value_info
        for entry in [e for e in holder if e.name not in read or (recorded and e.name in fed)]:
            holder.remove(entry)
    return model


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node and its bodies read."""
    inner = (n for a in node.attribute for n in a.g.node)
    return {*node.input, *(name for other in inner for name in _reads(other))} - {""}


# --- many graphs ------------------------------------------------------------------------


def outcomes(numbers: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """What becomes of graphs, as they end; one that crashes its process does so alone."""
    survived: set[int] = set()
    try:
        for outcome in _pooled(numbers, jobs):
            survived.add(outcome.graph)
            yield outcome
    except BrokenProcessPool:
        for number in (n for n in numbers if n not in survived):
            try:
                yield from _pooled([number], 1)
            except BrokenProcessPool:
                yield Outcome(number, failure="the process crashed", kind="crash")


def _pooled(numbers: Sequence[int], jobs: int) -> Iterator[Outcome]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: list[Future[Outcome]] = [pool.submit(attempt, number) for number in numbers]
        for future in as_completed(futures):
            yield future.result()


def keep(found: Sequence[Outcome], folder: Path) -> None:
    """Shrink the first failures of each kind and write them with what was said."""
    from random_graphs import seeded

    folder.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(outcome.kind for outcome in found):
        for outcome in [each for each in found if each.kind == kind][:2]:
            model = seeded(outcome.graph)
            if kind != "crash":
                model = shrunk(model, outcome.graph, kind)
            operators = " ".join(node.op_type for node in model.graph.node)
            print(f"{outcome.graph}: {kind}\n    shrunk to {operators}", flush=True)
            path = folder / f"{outcome.graph}.onnx"
            path.write_bytes(model.SerializeToString())
            path.with_suffix(".txt").write_text(f"{outcome.failure}\n{operators}\n")


def summary(found: Sequence[Outcome]) -> str:
    """Counts, what holds the convolutions that can't be cut, and the kinds of failures."""
    ran = [outcome for outcome in found if outcome.runs]
    failed = [outcome for outcome in ran if outcome.failure]
    lines = [
        "{graphs} graphs, {discarded} discarded, {failed} failed, {nodes:.0f} nodes on average\n"
        "{cut} of {convolutions} convolutions cut: {share_cut:.1%}".format(**figures(found))
    ]
    holds = Counter((op, _plain(reason)) for outcome in ran for op, reason in outcome.locks)
    lines += [f"{count:6} × {op}: {reason}" for (op, reason), count in holds.most_common(20)]
    for kind, count in Counter(outcome.kind for outcome in failed).most_common():
        numbers = [outcome.graph for outcome in failed if outcome.kind == kind]
        lines.append(f"FAILED {count} × {kind}: {sorted(numbers)[:8]}")
    return "\n".join(lines)


def figures(found: Sequence[Outcome]) -> dict[str, Any]:
    """The few numbers that matter."""
    ran = [outcome for outcome in found if outcome.runs]
    every = sum(outcome.convolutions for outcome in ran)
    cut = sum(outcome.cut for outcome in ran)
    return {
        "graphs": len(found),
        "discarded": len(found) - len(ran),
        "failed": sum(bool(outcome.failure) for outcome in ran),
        "convolutions": every,
        "cut": cut,
        "share_cut": round(cut / max(every, 1), 4),
        "nodes": round(sum(outcome.nodes for outcome in ran) / max(len(ran), 1), 1),
    }


def write(path: Path, numbers: range, found: Sequence[Outcome]) -> None:
    """Everything as JSON."""
    from onnx_shapprune.report import versions

    data = {
        "seed": numbers.start,
        "summary": figures(found),
        "graphs": [asdict(outcome) for outcome in found],
        "versions": versions(),
    }
    path.write_text(json.dumps(data, indent=1) + "\n")


def _plain(reason: str) -> str:
    return re.sub(r"'[^']*'|\[[^]]*\]|\d+", "*", reason)


# --- the command ------------------------------------------------------------------------


def show(model: Model, number: int) -> int:
    """Check one graph; an error has its traceback."""
    from random_graphs import check, convolutions, runs

    print(*(node.op_type for node in model.graph.node))
    if not runs(model):
        print("ONNX Runtime does not run it")
        return 0
    bench = check(model, number, absent(number), 2)
    for node, cut in convolutions(bench):
        print(f"{node.name}: {'cut' if cut else 'stays'}")
    return 0


def _progress(done: int, count: int) -> None:
    if sys.stderr.isatty() or done % max(count // 20, 1) == 0:
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{done} of {count}", end=end, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first graph")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="300 graphs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where failing graphs go")
    parser.add_argument("--graph", type=int, metavar="N", help="only this graph")
    parser.add_argument("--model", type=Path, metavar="FILE", help="only this model")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    if given.model is not None:
        stem = given.model.stem
        return show(onnx.load(given.model), int(stem) if stem.isdecimal() else 0)
    if given.graph is not None:
        from random_graphs import seeded

        return show(seeded(given.graph), given.graph)
    count = 300 if given.quick else given.count
    numbers = range(given.seed, given.seed + count)
    print(f"graphs {numbers.start} to {numbers.stop - 1}", flush=True)
    found = []
    for outcome in outcomes(numbers, given.jobs):
        found.append(outcome)
        _progress(len(found), count)
    found.sort(key=lambda outcome: outcome.graph)
    print(summary(found), flush=True)
    if given.json:
        write(given.json, numbers, found)
    failed = [outcome for outcome in found if outcome.failure]
    if given.keep is not None:
        keep(failed, given.keep)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
