"""The whole path, one stage after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import onnx

from .allocation import Allocation, Limits, Target, allocate
from .bench import Absent, Bench
from .calibration import load_calibration
from .cost import Quantity
from .curves import damage_curves
from .errors import NothingToPrune, OptionError, TargetUnreachable
from .metrics import Metric, assumption
from .model_io import Model, load_model, with_weights
from .passes.removal import remove
from .progress import SILENT, stage
from .report import MetricReport, Report, build_report
from .runtime import Session, Wanted, choose_provider
from .scoring import Scoring, doubts, played, score, values_by_group
from .types import (
    NO_WISHES,
    Array,
    BoolArray,
    Cost,
    FloatArray,
    GroupPlan,
    Plan,
    Progress,
    Scores,
    Wishes,
)
from .verification import verify

_TIGHTENINGS = 24
_LEAST_TIGHTENING = 0.5
_MARGIN = 0.999
_NEXT_TO_NOTHING = 1e-9

Source = str | Path | onnx.ModelProto | Model
Data = str | Path | Mapping[str, Array] | Array


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model and the report on it.

    ``proto`` is the model as :func:`onnx_shapprune.save_model` takes it: large weights that
    were not cut are left in the files of the source, which must stay as they are till then.
    """

    proto: onnx.ModelProto
    report: Report
    plan: Plan

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The pruned model with all its weights in memory."""
        return with_weights(self.proto)


@dataclass(eq=False)
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = perf_counter()
        yield
        self.seconds[name] = round(perf_counter() - start, 3)


def open_bench(
    model: Source,
    data: Data,
    *,
    preprocess: str | Path | None = None,
    dims: Mapping[str, int] | None = None,
    wishes: Wishes = NO_WISHES,
    absent: Absent = "mean",
    provider: Wanted = "auto",
    seed: int = 0,
) -> Bench:
    """Load a model and samples for it.

    Args:
        model: Path of an .onnx file, or a model in memory.
        data: See :func:`onnx_shapprune.calibration.load_calibration`.
        preprocess: How images become arrays: a preset or a TOML file.
        dims: Values of symbolic dimensions.
        wishes: What is asked of the groups; see :func:`onnx_shapprune.load_wishes`.
        absent: What stands in for an absent channel, ``zero`` or its ``mean``.
        provider: ``auto``, ``cpu`` or ``cuda``.
        seed: For ``random:N`` data.

    Raises:
        ModelError, DataError, OptionError, ProviderError: See there.
    """
    start = perf_counter()
    loaded = load_model(model)
    samples = load_calibration(
        data, loaded.inputs, preprocess=preprocess, dims=dims or {}, seed=seed
    )
    runs_on = choose_provider(provider)
    return Bench(loaded, samples, wishes, absent, runs_on, perf_counter() - start)


def prune(
    model: Source | Bench,
    data: Data | None = None,
    *,
    keep: float,
    of: Quantity = "macs",
    scoring: Scoring | None = None,
    scores: Scores | None = None,
    limits: Limits | None = None,
    progress: Progress = SILENT,
) -> Result:
    """Prune a model down to a share of its cost.

    Args:
        model: Path of an .onnx file, a model in memory, or an open bench (for control over
            preprocessing, wishes, the meaning of absent and the provider).
        data: Samples, see :func:`onnx_shapprune.calibration.load_calibration`; not with a bench.
        keep: Share of the cost to keep, above 0 and at most 1.
        of: ``macs``, ``parameters`` or ``bytes``.
        scoring: How channels are scored.
        scores: Scores made earlier; then nothing is played.
        limits: Widths that are allowed.
        progress: Where long work tells how far it is.

    Returns:
        The pruned model, verified against the masked original, and the report.

    Raises:
        NothingToPrune: No channel can be removed; ``result`` holds the unchanged model.
        TargetUnreachable: The target is too low; ``result`` holds the smallest model.
        VerificationError: The pruned model computes something else; this is a defect.
        ShapPruneError: Anything else that is wrong with model, data or options.
    """
    clock = Clock()
    target, limits, scoring = Target(keep, of), limits or Limits(), scoring or Scoring()
    bench = _as_bench(model, data, scoring.seed)
    clock.seconds["load"] = round(bench.load_seconds, 3)
    with clock.stage("analyse"):
        metric, before = bench.metric(scoring.metric), bench.costs.cost(bench.costs.full())
        notes = _notes(bench, metric, scores)
    if not bench.groups:
        raise _nothing_to_prune(bench, metric, before, clock)
    with clock.stage("score"):
        scores = scores or score(bench, scoring, progress)
    with clock.stage("widths"):
        damage = _damage(bench, scores, metric, progress)
    with clock.stage("remove"):
        allocation, plan, pruned = _cut(bench, scores, damage, target, limits)
    with clock.stage("verify"):
        difference = _verified(bench, pruned, plan, progress)
    with clock.stage("judge"):
        judged = _judge(bench, metric, plan, pruned)
    after = measured(pruned, bench, allocation.cost)
    report = build_report(bench, scores, plan, before, after, judged, difference, clock.seconds)
    report = replace(report, notes=(*report.notes, *notes))
    result = Result(pruned, report, plan)
    if not allocation.reached:
        raise _unreachable(target, before, after, result)
    return result


def _notes(bench: Bench, metric: Metric, scores: Scores | None) -> tuple[str, ...]:
    """What was decided on the user's behalf, beyond what the bench says."""
    found = [assumption(metric)]
    if scores is not None:
        found += doubts(scores, bench, metric)
    return tuple(filter(None, found))


def _as_bench(model: Source | Bench, data: Data | None, seed: int) -> Bench:
    if isinstance(model, Bench):
        if data is not None:
            raise OptionError("a bench has its samples already", "give no data with a bench")
        return model
    if data is None:
        raise OptionError("no data were given", "give samples: an .npz, a folder, or random:N")
    return open_bench(model, data, seed=seed)


def _damage(
    bench: Bench, scores: Scores, metric: Metric, progress: Progress
) -> dict[str, FloatArray] | None:
    """Damage curves; none for scores that were made without a run, and shall stay so."""
    if not played(scores):
        return None
    return damage_curves(bench, values_by_group(scores, bench), metric, progress)


def _cut(
    bench: Bench,
    scores: Scores,
    damage: Mapping[str, FloatArray] | None,
    target: Target,
    limits: Limits,
) -> tuple[Allocation, Plan, onnx.ModelProto]:
    """Allocate and remove; tighter where the file as written is above the prediction."""
    values = values_by_group(scores, bench)
    goal = target.keep * getattr(bench.costs.cost(bench.costs.full()), target.of)
    aim = target
    for left in reversed(range(_TIGHTENINGS)):
        pruned = onnx.ModelProto()  # the last attempt goes before the next one comes
        allocation = allocate(bench.costs, values, aim, limits, damage)
        plan = make_plan(bench, allocation.kept)
        pruned = remove(bench.model.proto, bench.model.sha256, plan)
        found = getattr(measured(pruned, bench, allocation.cost), target.of)
        if found <= goal or not allocation.reached:
            break
        tighter = aim.keep * max(goal / found, _LEAST_TIGHTENING) * _MARGIN
        aim = replace(aim, keep=tighter if left > 1 else _NEXT_TO_NOTHING)
    return replace(allocation, reached=found <= goal), plan, pruned


def make_plan(bench: Bench, kept: Mapping[str, BoolArray]) -> Plan:
    """The plan that keeps these players: bool[players] per group name."""
    parts = tuple(
        GroupPlan(group, kept[group.name], bench.shifts.get(group.name, ()))
        for group in bench.groups
    )
    return Plan(bench.model.sha256, parts)


def measured(pruned: onnx.ModelProto, bench: Bench, predicted: Cost) -> Cost:
    """Cost of the pruned file as it is; ``channels`` are those of the prediction."""
    smaller = Bench(Model(pruned, "", None), bench.calibration, provider=bench.provider)
    costs = smaller.costs
    return replace(costs.cost(costs.full()), channels=predicted.channels)


def _verified(bench: Bench, pruned: onnx.ModelProto, plan: Plan, progress: Progress) -> float:
    with stage(progress, "verify", 1):
        difference = verify(
            bench.graph, bench.model, pruned, plan, bench.calibration, provider=bench.provider
        )
        progress.advance()
    return difference


def _judge(bench: Bench, metric: Metric, plan: Plan, pruned: onnx.ModelProto) -> MetricReport:
    """The metric of the original, the masked and the pruned model on the samples."""
    original = sum(metric.part(i, out) for i, out in enumerate(bench.reference.outputs))
    kept = _masked_worth(bench, metric, plan)  # its session is gone before the next one comes
    session = Session(pruned, bench.provider)
    removed = sum(metric.part(i, session.run(feeds)) for i, feeds in enumerate(bench.batches))
    return MetricReport(metric.name, float(original), kept, float(removed))


def _masked_worth(bench: Bench, metric: Metric, plan: Plan) -> float:
    with bench.player() as (masked, _):
        return masked.worth({part.group.name: part.kept for part in plan.groups}, metric)


def _nothing_to_prune(bench: Bench, metric: Metric, cost: Cost, clock: Clock) -> NothingToPrune:
    value = sum(metric.part(i, out) for i, out in enumerate(bench.reference.outputs))
    judged = MetricReport(metric.name, float(value), float(value), float(value))
    plan = Plan(bench.model.sha256, ())
    report = build_report(bench, None, plan, cost, cost, judged, 0.0, clock.seconds)
    return NothingToPrune(
        "no channel of this model can be removed exactly",
        "see what stands in the way with: onnx-shapprune inspect MODEL",
        Result(bench.model.proto, report, plan),
    )


def _unreachable(target: Target, before: Cost, after: Cost, result: Result) -> TargetUnreachable:
    share = getattr(after, target.of) / getattr(before, target.of)
    return TargetUnreachable(
        f"the target of {target.keep:.3g} × {target.of} can't be reached: "
        f"the smallest model has {share:.3g} ×",
        "use a larger --keep, a smaller --min-channels or --round-to, fewer --exclude, "
        "or take what there is with --best-effort",
        result,
    )
