"""Prunes the real models that tools/fetch_models.py fetches and says how far each came, or why not.

    python tools/real_models.py                 all of them
    python tools/real_models.py --quick         a few small ones
    python tools/real_models.py --json FILE     also as data

Exit code 1 if pruning a model raised an error, or a plain ONNX Runtime can't run the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fetch_models import NAMES, family, fetch
from judging import (
    Cause,
    Untouched,
    cause_table,
    causes,
    counted,
    held,
    kernels,
    shrunk,
    skipped_anyhow,
    spread,
    tell_untouched,
    told,
    untouched,
)
from onnx_shapprune.bench import Bench
from onnx_shapprune.errors import NothingToPrune, TargetUnreachable
from onnx_shapprune.model_io import Model, load_model, with_weights
from onnx_shapprune.pipeline import Result, open_bench, prune
from onnx_shapprune.report import GroupReport, versions
from onnx_shapprune.scoring import Scoring
from onnx_shapprune.types import Skipped
from plain_runtime import what_runs
from recipes import Arrays

QUICK = ("lenet5", "ppocr-cls", "mtcnn-onet", "silero-16k-sequence", "light-squeezenet-shipped")


@dataclass(frozen=True)
class Outcome:
    """What became of one model: shares of its cost that are left, convolutions cut of all.

    ``outcome`` is reached, short, nothing or error. ``runs`` is what a plain ONNX Runtime says
    of the pruned model: ok, or what is wrong. ``held`` has all reasons with the convolutions
    whose own channels they hold; such a one is cut all the same where what it reads was cut.
    """

    name: str
    outcome: str
    message: str = ""
    macs: float = 1.0
    parameters: float = 1.0
    max_difference: float = 0.0
    metric: str = ""
    removed: float = 0.0
    groups: int = 0
    convs: tuple[int, int] = (0, 0)
    untouched: tuple[Untouched, ...] = ()
    held: tuple[Skipped, ...] = ()
    runs: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether something happened that must not."""
        return self.outcome == "error" or self.runs != "ok"


@dataclass(frozen=True)
class Request:
    """What is asked of every model; ``samples`` at most."""

    keep: float = 0.6
    estimator: str = "l1"
    budget: str = "auto"
    samples: int | None = None


def run(name: str, request: Request) -> Outcome:
    """Prune one model and measure everything about it."""
    path, data = fetch(name)
    model = load_model(path)
    touched = dict.fromkeys(kernels(model.proto), False)
    start = perf_counter()
    try:
        bench = open_bench(model, samples(data, request.samples), provider="cpu", seed=0)
        result, outcome, message = attempt(bench, request)
    except Exception as error:  # a crash is a result too
        row = Outcome(name, "error", told(error))
        return with_convs(row, touched, skipped_anyhow(model), ())
    row = filled(Outcome(name, outcome, message), result, perf_counter() - start)
    row = replace(row, runs=runs(model, bench, result))
    report = result.report
    return with_convs(row, shrunk(model.proto, result.model), report.skipped, report.groups)


def samples(data: Path, most: int | None) -> Arrays:
    with np.load(data) as stored:
        return {name: array[:most] for name, array in stored.items()}


def attempt(bench: Bench, request: Request) -> tuple[Result, str, str]:
    """The result, what kind it is, and what the error says that brought it."""
    scoring = Scoring(request.estimator, request.budget)
    try:
        return prune(bench, keep=request.keep, scoring=scoring), "reached", ""
    except TargetUnreachable as end:
        return end.result, "short", str(end)
    except NothingToPrune as end:
        return end.result, "nothing", str(end)


def filled(row: Outcome, result: Result, seconds: float) -> Outcome:
    """The figures of a result."""
    report = result.report
    return replace(
        row,
        macs=share(report.after.macs, report.before.macs),
        parameters=share(report.after.parameters, report.before.parameters),
        max_difference=report.max_difference,
        metric=report.metric.name,
        removed=report.metric.removed,
        groups=len(report.groups),
        seconds=round(seconds, 1),
    )


def share(left: int, full: int) -> float:
    """What is left of a cost; all of it where there is none."""
    return left / full if full else 1.0


def runs(model: Model, bench: Bench, result: Result) -> str:
    original = with_weights(model.proto).SerializeToString()
    pruned = result.model.SerializeToString()
    return what_runs(original, pruned, bench.batches[:1])


def with_convs(
    row: Outcome,
    touched: Mapping[str, bool],
    skipped: Sequence[Skipped],
    groups: Sequence[GroupReport],
) -> Outcome:
    """What became of the convolutions."""
    free = {member for group in groups for member in group.members}
    return replace(
        row,
        convs=counted(touched),
        untouched=tuple(untouched(touched, skipped, free)),
        held=tuple(held(touched, skipped)),
    )


# --- telling ----------------------------------------------------------------------------------


def tell(row: Outcome) -> None:
    """Progress, beside the result: one line, and one for each convolution that stayed."""
    print(
        f"{row.name:28} {row.outcome:8} MACs ×{row.macs:.4f}  parameters ×{row.parameters:.3f}  "
        f"difference {row.max_difference:.1e}  {row.metric} {row.removed:.3g}  "
        f"convs {row.convs[0]}/{row.convs[1]}  {row.seconds:.1f} s  runs: {row.runs} {row.message}",
        file=sys.stderr,
        flush=True,
    )
    for conv in row.untouched:
        print(f"    {tell_untouched(conv)}", file=sys.stderr, flush=True)


def table(rows: Sequence[Outcome], keep: float) -> Iterator[str]:
    """One line per family."""
    yield (
        f"| model | × {keep} of the MACs | convs cut | MACs | parameters "
        "| largest difference | seconds |"
    )
    yield "|---|---|---|---|---|---|---|"
    for title, members in by_family(rows).items():
        found = Counter(row.outcome for row in members)
        cut, convs = (sum(row.convs[i] for row in members) for i in (0, 1))
        cells = (
            title,
            ", ".join(
                f"{name} {count}" if len(members) > 1 else name for name, count in found.items()
            ),
            f"{cut} of {convs}",
            "× " + spread([row.macs for row in members], "{:.3f}"),
            "× " + spread([row.parameters for row in members], "{:.3f}"),
            f"{max(row.max_difference for row in members):.1e}",
            spread([row.seconds for row in members], "{:.1f}"),
        )
        yield f"| {' | '.join(cells)} |"


def by_family(rows: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for row in rows:
        found.setdefault(family(row.name), []).append(row)
    return found


def causes_of(rows: Sequence[Outcome]) -> list[Cause]:
    return causes((row.name, row.held, row.untouched) for row in rows)


def summary(rows: Sequence[Outcome]) -> dict[str, Any]:
    """The few numbers that matter."""
    kinds = ("reached", "short", "nothing", "error")
    return {
        "models": len(rows),
        **{kind: sum(row.outcome == kind for row in rows) for kind in kinds},
        "run": sum(row.runs == "ok" for row in rows),
        "convs": [sum(row.convs[i] for row in rows) for i in (0, 1)],
        "max_difference": max(row.max_difference for row in rows),
        "macs": {row.name: row.macs for row in rows},
        "causes": [{**asdict(c), "names": list(c.names)} for c in causes_of(rows)],
    }


def write(path: Path, rows: Sequence[Outcome], request: Request) -> None:
    """All figures as JSON."""
    data = {
        **asdict(request),
        "summary": summary(rows),
        "models": [asdict(row) for row in rows],
        "versions": versions(),
    }
    path.write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--keep", type=float, default=Request.keep)
    parser.add_argument("--estimator", default=Request.estimator)
    parser.add_argument("--budget", default=Request.budget)
    parser.add_argument("--samples", type=int, metavar="N", help="at most; all by default")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    unknown = sorted({*given.names} - {*NAMES})
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}; there are {', '.join(NAMES)}")
    request = Request(given.keep, given.estimator, given.budget, given.samples)
    rows = []
    for name in given.names or (QUICK if given.quick else NAMES):
        rows.append(run(name, request))
        tell(rows[-1])
    print("\n".join([*table(rows, request.keep), "", *cause_table(causes_of(rows), "models")]))
    if given.json:
        write(given.json, rows, request)
    sys.exit(any(row.failed for row in rows))


if __name__ == "__main__":
    main()
