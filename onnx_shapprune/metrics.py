"""The worth of a coalition: how well outputs agree with the original's, or with labels.

Every metric is a sum over batches of :meth:`Metric.part`, larger is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from .errors import DataError, OptionError
from .types import Array, FloatArray, IntArray

Outputs = Sequence[Any]
"""One batch's outputs, in the model's order: arrays, but for a sequence or a map."""

ClassKind = Literal["logits", "probabilities", "log-probabilities"]

NAMES = ("auto", "kl", "error", "match", "accuracy", "cross-entropy")

_TINY = 1e-12
_ASSUMED = "the output '{}' is taken for scores of classes; if it is none, use --metric error"


class Metric(Protocol):
    """How good outputs are."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    def part(self, batch: int, outputs: Outputs) -> float:
        """Contribution of one batch to the metric of the whole calibration set."""
        ...


@dataclass(frozen=True)
class Reference:
    """The original model's outputs, per batch, and the labels that go with them, if any."""

    outputs: tuple[tuple[Any, ...], ...]
    labels: tuple[IntArray, ...] | None
    names: tuple[str, ...]

    def rows(self, output: int) -> int:
        """Samples, as the rows of an output."""
        return sum(len(batch[output]) for batch in self.outputs)


@dataclass(frozen=True, eq=False)
class KullbackLeibler:
    """−KL(original ‖ model) of class outputs in nats, mean over samples; at most 0.

    ``assumed`` says what nobody told: that any numbers are scores of classes.
    """

    reference: tuple[FloatArray, ...]
    output: int
    kind: ClassKind
    samples: int
    assumed: str = ""
    name: str = "kl"

    def part(self, batch: int, outputs: Outputs) -> float:
        """See :class:`Metric`."""
        known = self.reference[batch]
        found = log_probabilities(outputs[self.output], self.kind)
        return -float(np.sum(np.exp(known) * (known - found))) / self.samples


@dataclass(frozen=True, eq=False)
class SquaredError:
    """−squared error ÷ variance of the original output, mean over float outputs; at most 0."""

    reference: tuple[tuple[Any, ...], ...]
    scales: tuple[tuple[int, float], ...]
    name: str = "error"

    def part(self, batch: int, outputs: Outputs) -> float:
        """See :class:`Metric`."""
        return -sum(
            float(np.sum(np.square(_difference(outputs[i], self.reference[batch][i])))) / scale
            for i, scale in self.scales
        ) / len(self.scales)


@dataclass(frozen=True, eq=False)
class Match:
    """Share of entries that are the original's, mean over the outputs that are no floats."""

    reference: tuple[tuple[Any, ...], ...]
    sizes: tuple[tuple[int, int], ...]
    name: str = "match"

    def part(self, batch: int, outputs: Outputs) -> float:
        """See :class:`Metric`."""
        return sum(
            float(np.sum(_like(outputs[i], self.reference[batch][i]) == self.reference[batch][i]))
            / size
            for i, size in self.sizes
        ) / len(self.sizes)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Share of samples whose largest class score is the label's."""

    labels: tuple[IntArray, ...]
    output: int
    samples: int
    name: str = "accuracy"

    def part(self, batch: int, outputs: Outputs) -> float:
        """See :class:`Metric`."""
        scores = _rows(outputs[self.output])
        return float(np.sum(scores.argmax(axis=1) == self.labels[batch])) / self.samples


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """−cross-entropy with the labels in nats, each sample's clipped at log(classes).

    Unclipped, the few coalitions that are confidently wrong outweigh all others.
    """

    labels: tuple[IntArray, ...]
    output: int
    kind: ClassKind
    samples: int
    name: str = "cross-entropy"

    def part(self, batch: int, outputs: Outputs) -> float:
        """See :class:`Metric`."""
        logs = log_probabilities(outputs[self.output], self.kind)
        picked = -logs[np.arange(len(logs)), self.labels[batch]]
        return -float(np.sum(np.minimum(picked, np.log(logs.shape[1])))) / self.samples


def build_metric(name: str, reference: Reference) -> Metric:
    """The named metric on this reference.

    ``auto`` is KL for class outputs, the error for other floats, and the match of a model
    that has no float output.

    Raises:
        OptionError: Unknown name, or a metric that this model or these data can't have.
        DataError: Labels outside of the model's classes.
    """
    if name not in NAMES:
        raise OptionError(f"unknown metric '{name}'", f"one of: {', '.join(NAMES)}")
    index = class_output(reference)
    if name == "match" or (name == "auto" and not _indices(reference, is_float)):
        return _match(reference)
    if name == "error" or (name == "auto" and (index is None or not _exclusive(reference, index))):
        return _squared_error(reference)
    if index is None:
        raise OptionError(
            f"metric '{name}' needs one output of class scores, shape [samples, classes]",
            "use --metric error",
        )
    if name in ("accuracy", "cross-entropy"):
        return _labelled(name, reference, index)
    kind = class_kind(reference, index)
    logs = tuple(log_probabilities(batch[index], kind) for batch in reference.outputs)
    assumed = _ASSUMED.format(reference.names[index]) if (name, kind) == ("auto", "logits") else ""
    return KullbackLeibler(logs, index, kind, reference.rows(index), assumed)


def assumption(metric: Metric) -> str:
    """What was assumed to choose this metric; empty if nothing was."""
    return metric.assumed if isinstance(metric, KullbackLeibler) else ""


def is_float(output: object) -> bool:
    """Whether an output is an array of floats."""
    return isinstance(output, np.ndarray) and output.dtype.kind == "f"


def is_array(output: object) -> bool:
    """Whether an output is an array, not a sequence or a map."""
    return isinstance(output, np.ndarray)


def _is_other_array(output: object) -> bool:
    return is_array(output) and not is_float(output)


def _indices(reference: Reference, wanted: Callable[[object], bool]) -> list[int]:
    return [i for i, output in enumerate(reference.outputs[0]) if wanted(output)]


def class_output(reference: Reference) -> int | None:
    """The one float output with at least two class scores per sample, if that is what it is."""
    floats = _indices(reference, is_float)
    if len(floats) != 1:
        return None
    array = reference.outputs[0][floats[0]]
    scores = array.ndim > 1 and array.shape[1] > 1 and array.size == array.shape[0] * array.shape[1]
    return floats[0] if scores and array.size else None


def _exclusive(reference: Reference, index: int) -> bool:
    """Whether the classes exclude each other; independent shares, as of a Sigmoid, don't."""
    if class_kind(reference, index) != "logits":
        return True
    rows = np.concatenate([_rows(batch[index]) for batch in reference.outputs])
    return not bool(((rows >= 0) & (rows <= 1)).all())


def class_kind(reference: Reference, index: int) -> ClassKind:
    """What the class scores are, by their values."""
    rows = np.concatenate([_rows(batch[index]) for batch in reference.outputs])
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-2):
        return "probabilities"
    if (rows <= 0).all() and np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-2):
        return "log-probabilities"
    return "logits"


def log_probabilities(scores: Array, kind: ClassKind) -> FloatArray:
    """Logarithms of the class probabilities, float64[samples, classes]."""
    rows = _rows(scores)
    if kind == "probabilities":
        return np.log(np.maximum(rows, _TINY))
    if kind == "log-probabilities":
        return rows
    shifted = rows - rows.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _rows(scores: Array) -> FloatArray:
    return scores.reshape(len(scores), -1).astype(np.float64)


def _squared_error(reference: Reference) -> SquaredError:
    floats = _indices(reference, is_float)
    if not floats:
        raise OptionError(
            "metric 'error' needs a float output, the model has none", "use --metric match"
        )
    scales = tuple((i, _scale([batch[i] for batch in reference.outputs])) for i in floats)
    return SquaredError(reference.outputs, scales)


def _match(reference: Reference) -> Match:
    others = _indices(reference, _is_other_array)
    if not others:
        raise OptionError(
            "metric 'match' needs an output of integers, booleans or words, the model has none",
            "use --metric error",
        )
    sizes = ((i, sum(batch[i].size for batch in reference.outputs)) for i in others)
    return Match(reference.outputs, tuple((i, max(size, 1)) for i, size in sizes))


def _scale(batches: Sequence[Array]) -> float:
    """Squared distance from the mean, summed; of a constant output its squared size."""
    values = np.concatenate([np.ravel(batch) for batch in batches]).astype(np.float64)
    if not values.size:
        return 1.0
    return float(np.sum(np.square(values - values.mean()))) or float(np.sum(values**2)) or 1.0


def _labelled(name: str, reference: Reference, index: int) -> Metric:
    if reference.labels is None:
        raise OptionError(
            f"metric '{name}' needs labels, the data have none",
            "add an array 'labels' to the .npz, sort images into one folder per class, "
            "or use --metric auto",
        )
    classes = _rows(reference.outputs[0][index]).shape[1]
    largest = max(int(batch.max()) for batch in reference.labels)
    if largest >= classes:
        raise DataError(
            f"label {largest} is out of range: the model has the classes 0 to {classes - 1}",
            "check that the labels belong to this model",
        )
    if name == "accuracy":
        return Accuracy(reference.labels, index, reference.rows(index))
    kind = class_kind(reference, index)
    return CrossEntropy(reference.labels, index, kind, reference.rows(index))


def _difference(found: Array, known: Array) -> FloatArray:
    return _like(found, known).astype(np.float64) - known.astype(np.float64)


def _like(found: Array, known: Array) -> Array:
    """``found``, if it has the shape of ``known``."""
    if found.shape != known.shape:
        raise DataError(
            f"an output has shape {list(found.shape)} where the original has {list(known.shape)}: "
            "its size depends on the values",
            "cut the model off before the operators that make it so (e.g. NonMaxSuppression)",
        )
    return found
