"""Two models on the same samples: cost, quality, agreement and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from .bench import Bench
from .calibration import batches, fixed_batch
from .errors import DataError
from .metrics import Metric, build_metric, is_array, is_float
from .model_io import Model
from .report import SCHEMA_VERSION, versions
from .runtime import Session
from .types import Array, Calibration, Cost, TensorSpec

_TIMING_SECONDS = 3.0
_MIN_REPEATS = 5
_MAX_REPEATS = 200


@dataclass(frozen=True)
class Side:
    """One model: its cost, its metric on the samples and the median time of a run.

    ``milliseconds`` is of one sample, or of one full batch where the batch is fixed.
    """

    model_sha256: str
    cost: Cost
    metric: float
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """Model b beside model a; ``metric`` is of b against labels or against a's outputs.

    ``max_difference`` is the largest difference of a float output, relative to a's scale.
    """

    a: Side
    b: Side
    metric: str
    max_difference: float
    samples: int
    provider: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "versions": versions()}


def compare(a: Bench, model: Model, metric: str = "auto") -> Comparison:
    """Compare another model with the one on the bench, on the bench's samples.

    Args:
        a: The first model and the samples.
        model: The second model; same inputs and outputs.
        metric: One of :data:`onnx_shapprune.metrics.NAMES`.

    Raises:
        DataError: The models differ in the names of their inputs or outputs.
    """
    _require_same_signature(a.model, model)
    b = Bench(model, a.calibration, provider=a.provider)
    _require_same_shapes(a, b)
    judge = build_metric(metric, a.reference)
    times = _milliseconds([Session(m, a.provider) for m in (a.model.proto, model.proto)], a)
    return Comparison(
        a=Side(a.model.sha256, a.costs.cost(a.costs.full()), _total(judge, a), times[0]),
        b=Side(model.sha256, b.costs.cost(b.costs.full()), _total(judge, b), times[1]),
        metric=judge.name,
        max_difference=_max_difference(a, b),
        samples=a.calibration.samples,
        provider=a.provider,
    )


def _require_same_signature(a: Model, b: Model) -> None:
    for what in ("inputs", "outputs"):
        ours: tuple[TensorSpec, ...] = getattr(a, what)
        theirs: tuple[TensorSpec, ...] = getattr(b, what)
        if len(ours) != len(theirs) or not all(map(_compatible, ours, theirs)):
            raise DataError(
                f"the models have different {what}: {_listed(ours)} and {_listed(theirs)}",
                "compare a model with its own pruned version",
            )


def _require_same_shapes(a: Bench, b: Bench) -> None:
    """Sizes that the models leave open may differ all the same."""
    for ours, theirs in zip(a.reference.outputs, b.reference.outputs, strict=True):
        shapes = [[np.shape(o) for o in batch if is_array(o)] for batch in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"the models have different outputs: {shapes[0]} and {shapes[1]}",
                "compare a model with its own pruned version",
            )


def _compatible(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether two tensors have the same name and type, and no size that differs."""
    sizes = zip(a.shape, b.shape, strict=False)
    differ = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes)
    return (a.name, a.dtype, len(a.shape)) == (b.name, b.dtype, len(b.shape)) and not differ


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)


def _total(metric: Metric, bench: Bench) -> float:
    return float(sum(metric.part(i, out) for i, out in enumerate(bench.reference.outputs)))


def _max_difference(a: Bench, b: Bench) -> float:
    pairs = zip(_by_output(a), _by_output(b), strict=True)
    return max((_difference(x, y) for x, y in pairs if is_float(x[0])), default=0.0)


def _by_output(bench: Bench) -> list[tuple[Any, ...]]:
    return list(zip(*bench.reference.outputs, strict=True))


def _difference(a: Sequence[Array], b: Sequence[Array]) -> float:
    scale = max(float(np.abs(x).max(initial=0.0)) for x in a) or 1.0
    apart = (np.abs(x.astype(np.float64) - y).max(initial=0.0) for x, y in zip(a, b, strict=True))
    return max(float(d) for d in apart) / scale


def _milliseconds(sessions: Sequence[Session], bench: Bench) -> list[float]:
    """Median time per run, the sessions taking turns so that the machine is the same for all."""
    feeds = _one_run(bench.calibration, fixed_batch(bench.model.inputs) or 1)
    for session in sessions:
        session.run(feeds)
    taken: list[list[float]] = [[] for _ in sessions]
    start = perf_counter()
    while not _enough(len(taken[0]), perf_counter() - start):
        for times, session in zip(taken, sessions, strict=True):
            began = perf_counter()
            session.run(feeds)
            times.append(1e3 * (perf_counter() - began))
    return [median(times) for times in taken]


def _enough(repeats: int, seconds: float) -> bool:
    return repeats >= _MAX_REPEATS or (repeats >= _MIN_REPEATS and seconds > _TIMING_SECONDS)


def _one_run(calibration: Calibration, size: int) -> dict[str, Array]:
    return next(batches(calibration, size))
