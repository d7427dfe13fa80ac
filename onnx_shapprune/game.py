"""The game of one channel group: the worth of a coalition, played on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from .errors import ModelError
from .metrics import Metric
from .passes.graph import Graph, attribute
from .passes.masking import mask_name
from .passes.stored import stored_value
from .runtime import Session
from .types import Array, BoolArray, ChannelGroup, Cut, FloatArray, Progress

_AT_AXIS_ONE = {  # operator: input that holds the kernel
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "DeformConv": 1,
    "FusedConv": 1,
    "FusedGemm": 1,
    "Gemm": 1,
    "QGemm": 3,
    "QLinearConv": 3,
}
_KERNELS = {**_AT_AXIS_ONE, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """A masked model (or the part of it behind the masks) in a session, with its feeds.

    ``outputs`` are the indices of the model's outputs that the session gives; the others
    are the same for every coalition: ``fixed`` has all outputs of the original, per batch.
    """

    session: Session
    feeds: Sequence[Mapping[str, Array]]
    outputs: tuple[int, ...]
    fixed: Sequence[Sequence[Array]]

    def worth(self, masks: Mapping[str, BoolArray], metric: Metric) -> float:
        """The metric with only the players ``masks[group]`` (bool[players]) present."""
        masking = {mask_name(name): kept.astype(np.float32) for name, kept in masks.items()}
        parts = (
            metric.part(number, self._outputs(number, {**feeds, **masking}))
            for number, feeds in enumerate(self.feeds)
        )
        return float(sum(parts))

    def _outputs(self, batch: int, feeds: Mapping[str, Array]) -> list[Array]:
        found = list(self.fixed[batch])
        for index, array in zip(self.outputs, self.session.run(feeds), strict=True):
            found[index] = array
        return found


class ChannelGame:
    """The players of one group; all other groups are complete.

    Worths are remembered, so that no coalition is paid for twice.
    """

    def __init__(
        self,
        group: ChannelGroup,
        model: MaskedModel,
        metric: Metric,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self._group = group
        self._model = model
        self._metric = metric
        self._executor = executor
        self._progress = progress
        self._known: dict[bytes, float] = {}

    @property
    def players(self) -> int:
        """Number of players n."""
        return self._group.players

    @property
    def evaluations(self) -> int:
        """Coalitions that were really run."""
        return len(self._known)

    def worth(self, coalitions: BoolArray) -> FloatArray:
        """Worth of each coalition, bool[m, n] to float64[m].

        Raises:
            ModelError: The worth is not a finite number.
        """
        keys = [row.tobytes() for row in coalitions]
        new = {
            key: row for key, row in zip(keys, coalitions, strict=True) if key not in self._known
        }
        self._progress.advance(len(keys) - len(new))
        for key, worth in zip(new, self._executor.map(self._play, new.values()), strict=True):
            self._known[key] = worth
        return np.asarray([self._known[key] for key in keys])

    def _play(self, coalition: BoolArray) -> float:
        worth = self._model.worth({self._group.name: coalition}, self._metric)
        self._progress.advance()
        if not np.isfinite(worth):
            raise ModelError(
                f"the outputs are not finite when channels of '{self._group.name}' are absent",
                "try --absent mean, or leave the group out with --exclude",
            )
        return worth


class UnplayedGame:
    """The players of one group for estimators that rank without playing."""

    def __init__(self, group: ChannelGroup, graph: Graph) -> None:
        self._group = group
        self._graph = graph

    @property
    def players(self) -> int:
        """Number of players n."""
        return self._group.players

    def worth(self, coalitions: BoolArray) -> FloatArray:
        """Not to be had: there is no session behind this game."""
        raise NotImplementedError(f"{len(coalitions)} coalitions of a game that is not played")

    def saliency(self, name: str) -> FloatArray:
        """A ranking of the players by their weights alone, float64[n].

        ``l1``: sum of the absolute kernel values that produce the channel (Li et al. 2017,
        arXiv 1608.08710), over all members of the group.
        """
        if name != "l1":
            raise KeyError(name)
        return l1_norms(self._graph, self._group)


def l1_norms(graph: Graph, group: ChannelGroup) -> FloatArray:
    """Per player the L1 norm of the kernels that produce it, float64[players]."""
    total = np.zeros(group.players + 1)
    for cut in group.shapes:
        norms = _output_norms(graph, cut)
        if norms is not None:
            np.add.at(total, cut.owner, norms)
    return total[:-1]


def _output_norms(graph: Graph, cut: Cut) -> FloatArray | None:
    """Per position of a tensor the norm of the kernel that makes it; None for other tensors."""
    node = graph.producers[cut.tensor]
    index = _KERNELS.get(node.op_type)
    if index is None or cut.axis != (1 if node.op_type in _AT_AXIS_ONE else _last(graph, cut)):
        return None
    kernel = stored_value(graph, node.input[index])
    if kernel is None:
        return None
    is_plain = kernel.dtype.kind == "f"  # the least integer has no absolute value of its type
    sizes = np.abs(kernel if is_plain else kernel.astype(np.float64))
    if node.op_type == "ConvTranspose":
        grouped = sizes.reshape(int(attribute(node, "group", 1)), -1, *sizes.shape[1:])
        sizes = np.moveaxis(grouped, 1, -1)
    elif "Conv" not in node.op_type and not attribute(node, "transB", 0):
        sizes = sizes.T
    norms: FloatArray = sizes.reshape(len(cut.owner), -1).sum(axis=1, dtype=np.float64)
    return norms


def _last(graph: Graph, cut: Cut) -> int:
    return len(graph.shape(cut.tensor) or ()) - 1
