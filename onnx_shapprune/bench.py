"""One model on one set of samples: what all later stages work on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import onnx

from .calibration import batches, fixed_batch
from .cost import CostModel
from .errors import ModelError, OptionError
from .game import MaskedModel
from .inner import run_body, unverifiable
from .metrics import Metric, Reference, build_metric, is_array, is_float
from .model_io import Model
from .passes.couplings import find_groups
from .passes.graph import TOP, Graph, label, node_id
from .passes.masking import mask_name, masked_model
from .passes.outputs import declare_inputs
from .passes.shifts import shifted_axes, shifts, unshifted_readers
from .passes.suffix import suffix
from .runtime import Provider, Session
from .types import (
    NO_WISHES,
    Array,
    Calibration,
    ChannelGroup,
    Coupling,
    FloatArray,
    Shape,
    Shift,
    Wishes,
)

Absent = Literal["zero", "mean"]
ABSENT: tuple[Absent, ...] = ("zero", "mean")

_BATCH = 32
_CACHE_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, the samples to judge it by, and the dependency analysis.

    ``wishes`` are what the user asks of the groups. ``absent`` says what stands in for an
    absent channel: ``zero``, or its ``mean`` over the samples (folded into the reader's bias
    on removal). ``load_seconds`` is what it took to read them.
    """

    model: Model
    calibration: Calibration
    wishes: Wishes = NO_WISHES
    absent: Absent = "mean"
    provider: Provider = "cpu"
    load_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the meaning of absent."""
        if self.absent not in ABSENT:
            raise OptionError(f"unknown meaning of absent '{self.absent}'", "zero or mean")

    # --- structure

    @cached_property
    def graph(self) -> Graph:
        """Index of the model; sizes beside the batch are those of the samples.

        Where inference can't tell a size, the model is run on one and on two samples: what
        stays the same is the size.
        """
        shapes = self._input_shapes(batch=None)
        graph = Graph(self.model.proto, shapes, {})
        unknown = graph.open_tensors()
        observed = self._common_sizes(graph.model, unknown) if unknown else {}
        if unknown:
            graph = Graph(self.model.proto, shapes, observed)
        closed = unverifiable(graph, self._few, self.provider)
        return Graph(self.model.proto, shapes, observed, closed) if closed else graph

    @cached_property
    def coupling(self) -> Coupling:
        """Groups that can be removed exactly, and why the others can't."""
        return find_groups(self.graph, self.wishes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the user's behalf."""
        return (*self.calibration.notes, *self._zeroed())

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Shorthand for the coupling's groups."""
        return self.coupling.groups

    @cached_property
    def shifts(self) -> dict[str, tuple[Shift, ...]]:
        """Per group, what absent players add to the nodes that read them; none for zero."""
        if self.absent == "zero":
            return {}
        return {group.name: shifts(self.graph, group, self._means) for group in self.groups}

    @cached_property
    def costs(self) -> CostModel:
        """Costs of one run on one sample (on one full batch where the batch is fixed)."""
        graph = Graph(self.model.proto, self._input_shapes(batch=1))
        costs = CostModel(graph, self.groups)
        if not costs.unmeasured:
            return costs
        return CostModel(graph, self.groups, self._observe(costs.unmeasured))

    # --- samples

    @property
    def batch_size(self) -> int:
        """Samples per run."""
        return fixed_batch(self.model.inputs) or _BATCH

    @cached_property
    def batches(self) -> list[dict[str, Array]]:
        """All feeds."""
        return list(batches(self.calibration, self.batch_size))

    @cached_property
    def reference(self) -> Reference:
        """The original model's outputs."""
        session = Session(self.model.proto, self.provider)
        outputs = tuple(tuple(session.run(feeds)) for feeds in self.batches)
        if all(is_array(output) and not output.size for batch in outputs for output in batch):
            raise ModelError("the model's outputs are empty on these samples")
        for number, batch in enumerate(outputs):
            for name, output in zip(session.outputs, batch, strict=True):
                self._require_finite(name, output, number)
        return Reference(outputs, self._label_batches(), tuple(session.outputs))

    def _require_finite(self, name: str, output: object, batch: int) -> None:
        """An output without NaN and infinity; else names the first sample that is to blame."""
        if not is_float(output) or np.isfinite(array := np.asarray(output)).all():
            return
        where = ""
        if self.calibration.batched and array.ndim:
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            where = f", the first is number {batch * self.batch_size + int(bad.argmax())}"
        raise ModelError(
            f"the model's output '{name}' is not finite on these samples{where}",
            "check the samples' range and preprocessing, or leave them out",
        )

    def metric(self, name: str) -> Metric:
        """The named metric on these samples."""
        return build_metric(name, self.reference)

    @contextmanager
    def player(self, group: ChannelGroup | None = None) -> Iterator[tuple[MaskedModel, Executor]]:
        """A masked model in a session, and the threads that play on it.

        Args:
            group: The one group to mask; None masks all of them. Only the part of the
                model that its masks can change is run, on stored inputs.
        """
        groups = self.groups if group is None else (group,)
        workers = 1 if self.provider == "cuda" else available_cores()
        masked = self._masked_model(groups, threads=0 if self.provider == "cuda" else 1)
        with ThreadPoolExecutor(workers) as executor:
            try:
                yield masked, executor
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise

    def _masked_model(self, groups: Sequence[ChannelGroup], threads: int) -> MaskedModel:
        whole = masked_model(self.graph, groups, self.shifts)
        part = suffix(whole, [mask_name(group.name) for group in groups])
        feeds = self._frontier(part.frontier) if part.outputs else None
        if feeds is None:
            every = tuple(range(len(self.model.proto.graph.output)))
            session = Session(whole, self.provider, threads=threads)
            return MaskedModel(session, self.batches, every, self.reference.outputs)
        declare_inputs(part.model, feeds[0])
        session = Session(part.model, self.provider, threads=threads)
        return MaskedModel(session, feeds, part.outputs, self.reference.outputs)

    def _frontier(self, names: Sequence[str]) -> list[dict[str, Array]] | None:
        """The frontier's tensors for every batch; None if they take too much memory."""
        made = [name for name in names if name in self.graph.producers]
        session = Session(self.graph.model, self.provider, inner=made) if made else None
        limit = available_memory() * _CACHE_SHARE
        kept: list[dict[str, Array]] = []
        for feeds in self.batches:
            found = session.run(feeds, made) if session else []
            if not all(isinstance(array, np.ndarray) for array in found):
                return None  # a sequence, say, is not to be fed
            given = {name: feeds[name] for name in names if name in feeds}
            kept.append({**given, **dict(zip(made, found, strict=True))})
            if sum(array.nbytes for array in found) * len(self.batches) > limit:
                return None
        return kept

    # --- private

    @property
    def _few(self) -> dict[str, Array]:
        """A feed of some samples."""
        return next(batches(self.calibration, fixed_batch(self.model.inputs) or 2))

    def _input_shapes(self, batch: int | None) -> dict[str, Shape]:
        return {
            spec.name: self._input_shape(spec.shape, self.calibration.inputs[spec.name], batch)
            for spec in self.model.inputs
        }

    def _input_shape(self, shape: Shape, array: Array, batch: int | None) -> Shape:
        """Sizes of the samples; the batch stays as the model has it, or is ``batch``."""
        if not self.calibration.batched:
            return array.shape[1:]
        first = shape[0] if isinstance(shape[0], int) or batch is None else batch
        return (first, *array.shape[1:])

    def _zeroed(self) -> Iterator[str]:
        """Readers for which absent channels can't count as their mean."""
        for group in self.groups if self.absent == "mean" else ():
            for node in unshifted_readers(self.graph, group):
                inner = self.graph.scope(node_id(node)) != TOP
                reason = (
                    "is in a body" if inner else "has no bias that could stand in for their mean"
                )
                yield (
                    f"absent channels of '{group.name}' count as zero for {node.op_type} "
                    f"'{label(node)}': it {reason}"
                )

    @cached_property
    def _means(self) -> Mapping[str, FloatArray]:
        """Mean of every position of every read tensor, over samples and the other axes."""
        axes = shifted_axes(self.graph, self.groups)
        if not axes:
            return {}
        session = Session(self.graph.model, self.provider, inner=list(axes))
        totals: dict[str, FloatArray] = {}
        counts: dict[str, int] = {}
        for feeds in self.batches:
            for name, array in zip(axes, session.run(feeds, list(axes)), strict=True):
                others = tuple(a for a in range(array.ndim) if a != axes[name])
                added = array.sum(axis=others, dtype=np.float64)
                totals[name] = totals.get(name, 0.0) + added
                counts[name] = counts.get(name, 0) + array.size // max(array.shape[axes[name]], 1)
        return {name: total / counts[name] for name, total in totals.items()}

    def _observe(self, names: Sequence[str]) -> dict[str, Shape]:
        """Shapes of tensors as one run on one sample (or one full batch) shows them."""
        made = [name for name in dict.fromkeys(names) if name in self.graph.producers]
        found: dict[str, Shape] = {}
        for scope in dict.fromkeys(map(self.graph.scope, made)):
            inside = [name for name in made if self.graph.scope(name) == scope]
            found |= (
                self._observe_top(inside) if scope == TOP else self._observe_body(scope, inside)
            )
        return found

    def _observe_top(self, names: Sequence[str]) -> dict[str, Shape]:
        session = Session(self.graph.model, self.provider, inner=names, optimised=False)
        return self._shapes(session, names, 1)

    def _observe_body(self, scope: str, names: Sequence[str]) -> dict[str, Shape]:
        feeds = next(batches(self.calibration, fixed_batch(self.model.inputs) or 1))
        arrays = run_body(self.graph, self.graph.model, scope, feeds, self.provider, more=names)
        return {n: a.shape for n, a in zip(names, arrays[-len(names) :], strict=True)}

    def _common_sizes(self, model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Shape]:
        """Sizes that do not depend on the number of samples; None where they do."""
        try:
            session = Session(model, self.provider, inner=names, optimised=False)
            one = self._shapes(session, names, 1)
            if fixed_batch(self.model.inputs) or not self.calibration.batched:
                return one
            two = self._shapes(session, names, 2)
        except ModelError:  # the reference run will say what is wrong with the model itself
            return {}
        return {name: _common(one[name], two[name]) for name in one if name in two}

    def _shapes(self, session: Session, names: Sequence[str], samples: int) -> dict[str, Shape]:
        """Shapes of tensors in a run on the first sample, repeated (or on one fixed batch)."""
        fixed = fixed_batch(self.model.inputs)
        feeds = next(batches(self.calibration, fixed or 1))
        if self.calibration.batched and not fixed:
            feeds = {name: np.repeat(array, samples, axis=0) for name, array in feeds.items()}
        arrays = session.run(feeds, names)
        found = zip(names, arrays, strict=True)
        return {name: array.shape for name, array in found if isinstance(array, np.ndarray)}

    def _label_batches(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...] | None:
        labels = self.calibration.labels
        if labels is None:
            return None
        size = self.batch_size if self.calibration.batched else 1
        return tuple(labels[at : at + size] for at in range(0, len(labels), size))


def _common(one: Shape, two: Shape) -> Shape:
    """What two shapes share; None where they differ."""
    return tuple(a if a == b else None for a, b in itertools.zip_longest(one, two))


def available_memory() -> int:
    """Bytes of memory that are free, or 2 GiB where the system doesn't say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**31


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
