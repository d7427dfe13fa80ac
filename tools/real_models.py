"""Prunes the real models that tools/fetch_models.py fetches and says how far each came, or why not.

python tools/real_models.py --json real_models.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from fetch_models import NAMES, fetch
from onnx_shapprune.errors import NothingToPrune, TargetUnreachable
from onnx_shapprune.model_io import load_model, save_model
from onnx_shapprune.pipeline import Result, open_bench, prune
from onnx_shapprune.report import versions
from onnx_shapprune.scoring import Scoring

QUICK = ("lenet5", "ppocr-cls", "mtcnn-onet")


@dataclass(frozen=True)
class Outcome:
    """What became of one model: ``macs`` is the share that is left, ``convs`` cut of all."""

    name: str
    reached: bool
    macs: float
    parameters: float
    max_difference: float
    metric: str
    removed: float
    groups: int
    convs: tuple[int, int]
    left_alone: tuple[str, ...]
    seconds: float


def run(name: str, keep: float, estimator: str, budget: str) -> Outcome:
    """Prune one model to ``keep`` of its multiply-accumulates and write it."""
    model, data = fetch(name)
    start = perf_counter()
    bench = open_bench(load_model(model), data)
    reached = True
    try:
        result = prune(bench, keep=keep, scoring=Scoring(estimator, budget))
    except (NothingToPrune, TargetUnreachable) as end:
        result, reached = end.result, False
    with tempfile.TemporaryDirectory() as folder:
        save_model(result.model, Path(folder) / "pruned.onnx")
    return outcome(name, result, reached, perf_counter() - start)


def outcome(name: str, result: Result, reached: bool, seconds: float) -> Outcome:
    """The figures of one result."""
    report = result.report
    members = {member for group in report.groups for member in group.members}
    convs = [n for n in result.model.graph.node if "Conv" in n.op_type]
    cut = [n for n in convs if (n.name or n.output[0]) in members or n.output[0] in members]
    return Outcome(
        name=name,
        reached=reached,
        macs=report.after.macs / report.before.macs,
        parameters=report.after.parameters / report.before.parameters,
        max_difference=report.max_difference,
        metric=report.metric.name,
        removed=report.metric.removed,
        groups=len(report.groups),
        convs=(len(cut), len(convs)),
        left_alone=tuple(
            f"{', '.join(s.members)}: {s.reason} ({s.op_type} '{s.node}')" for s in report.skipped
        ),
        seconds=round(seconds, 1),
    )


def show(found: Outcome) -> None:
    """One line, and one for each thing left alone."""
    print(
        f"{found.name:16} {'reached' if found.reached else 'NOT reached':12} "
        f"MACs ×{found.macs:.4f}  parameters ×{found.parameters:.3f}  "
        f"difference {found.max_difference:.1e}  {found.metric} {found.removed:.3g}  "
        f"convs {found.convs[0]}/{found.convs[1]}  {found.seconds:.1f} s",
        flush=True,
    )
    for line in found.left_alone:
        print(f"    {line}")


def write(path: Path, found: Sequence[Outcome], keep: float, estimator: str) -> None:
    """All figures as JSON."""
    summary = {o.name: {"macs": o.macs, "max_difference": o.max_difference} for o in found}
    data = {
        "keep": keep,
        "estimator": estimator,
        "summary": summary,
        "models": [asdict(o) for o in found],
        "versions": versions(),
    }
    path.write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--keep", type=float, default=0.7)
    parser.add_argument("--estimator", default="l1")
    parser.add_argument("--budget", default="auto")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    names = given.names or (QUICK if given.quick else NAMES)
    found = []
    for name in names:
        found.append(run(name, given.keep, given.estimator, given.budget))
        show(found[-1])
    if given.json:
        write(given.json, found, given.keep, given.estimator)


if __name__ == "__main__":
    main()
