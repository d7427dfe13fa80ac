"""What was done, as data that survive JSON; docs/report.schema.json describes it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from . import __version__
from .bench import Bench
from .passes.averages import approximated
from .types import Approximated, ChannelGroup, Cost, GroupPlan, GroupScore, Plan, Scores, Skipped

SCHEMA_VERSION = 1

_PACKAGES = ("onnx", "onnx-graphsurgeon", "numpy")
_RUNTIMES = ("onnxruntime-gpu", "onnxruntime")


@dataclass(frozen=True)
class MetricReport:
    """The metric on the samples; larger is better."""

    name: str
    original: float
    masked: float
    removed: float


@dataclass(frozen=True)
class GroupReport:
    """One group: ``kept`` are the indices of the players that stay, of ``players``."""

    name: str
    players: int
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    stderr: tuple[float, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The report on one pruning."""

    model_sha256: str
    before: Cost
    after: Cost
    groups: tuple[GroupReport, ...]
    metric: MetricReport
    max_difference: float
    skipped: tuple[Skipped, ...]
    approximated: tuple[Approximated, ...]
    evaluations: int
    seconds: Mapping[str, float]
    provider: str
    estimator: str
    absent: str
    samples: int
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    command: str = ""
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


def build_report(
    bench: Bench,
    scores: Scores | None,
    plan: Plan,
    before: Cost,
    after: Cost,
    metric: MetricReport,
    difference: float,
    seconds: Mapping[str, float],
) -> Report:
    """Put a report together; without scores there was nothing to prune."""
    return Report(
        model_sha256=bench.model.sha256,
        before=before,
        after=after,
        groups=tuple(_groups(plan, scores)),
        metric=metric,
        max_difference=difference,
        skipped=bench.coupling.skipped,
        approximated=approximated(bench.graph, _cut(plan)),
        evaluations=sum(group.evaluations for group in scores.groups) if scores else 0,
        seconds=dict(seconds),
        provider=bench.provider,
        estimator=scores.estimator if scores else "none",
        absent=bench.absent,
        samples=bench.calibration.samples,
        notes=bench.notes,
        versions=versions(),
    )


def _cut(plan: Plan) -> list[ChannelGroup]:
    """Groups that something leaves."""
    return [part.group for part in plan.groups if not part.kept.all()]


def _groups(plan: Plan, scores: Scores | None) -> Iterator[GroupReport]:
    known = {group.name: group for group in scores.groups} if scores else {}
    for part in plan.groups:
        yield _group(part, known.get(part.group.name))


def _group(part: GroupPlan, scored: GroupScore | None) -> GroupReport:
    return GroupReport(
        name=part.group.name,
        players=part.group.players,
        kept=tuple(part.kept.nonzero()[0].tolist()),
        scores=scored.values if scored else (),
        stderr=scored.stderr if scored else (),
        members=part.group.members,
    )


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    found = {"onnx-shapprune": __version__, "python": platform.python_version()}
    for name in (*_PACKAGES, *_RUNTIMES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def scores_to_json(scores: Scores) -> dict[str, Any]:
    """Scores as plain data."""
    return {"schema_version": SCHEMA_VERSION, **asdict(scores), "versions": versions()}
