"""Over what a node takes the mean of its channels.

An absent channel has no weight in it: the mean of the masked model is one over the channels
that are left, like that of the model without the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx_shapprune.types import Approximated, ChannelGroup, Cut, Slot

from .graph import Graph, attribute, label

_SPATIAL = 2
"""First axis that InstanceNormalization takes its statistics over."""


@dataclass(frozen=True)
class Averaging:
    """A mean over ``axes``, among them the channels along ``axis``, ``width`` of them.

    ``rank`` counts the axes. With ``groups`` they are those of the form (batch, groups, channels
    of a group, rest), and there is a mean for each group. ``normalises``: the node also divides
    by the spread, around the mean or (not ``centred``) around zero, and then multiplies by its
    second input.
    """

    rank: int
    axis: int
    axes: tuple[int, ...]
    width: int
    groups: int = 0
    normalises: bool = True
    centred: bool = True

    @property
    def form(self) -> tuple[int, ...]:
        """What the input is reshaped to, where there are groups."""
        return (0, self.groups, self.width // self.groups, -1)

    @property
    def weights(self) -> tuple[int, ...]:
        """Shape of one weight per channel, to be multiplied with the input in that form."""
        if self.groups:
            return (1, self.groups, self.width // self.groups, 1)
        return tuple(self.width if axis == self.axis else 1 for axis in range(self.rank))


def averaging(graph: Graph, slot: Slot, cut: Cut) -> Averaging:
    """What the node input that is listed as an average of a group is averaged over."""
    node, width = graph.nodes[slot.node], len(cut.owner)
    rank = len(graph.shape(cut.tensor) or ())
    if node.op_type == "ReduceMean":
        return Averaging(rank, cut.axis, (cut.axis,), width, normalises=False)
    if node.op_type == "GroupNormalization":
        return Averaging(4, 2, (2, 3), width, int(attribute(node, "num_groups")))
    first = _SPATIAL
    if node.op_type != "InstanceNormalization":
        first = int(attribute(node, "axis", -1)) % rank
    centred = node.op_type != "RMSNormalization"
    return Averaging(rank, cut.axis, tuple(range(first, rank)), width, centred=centred)


def approximated(graph: Graph, groups: Iterable[ChannelGroup]) -> tuple[Approximated, ...]:
    """Nodes that take a mean over channels of these groups, each once per group."""
    found = (
        Approximated(label(graph.nodes[slot.node]), graph.nodes[slot.node].op_type, group.name)
        for group in groups
        for cut in group.averages
        for slot in cut.readers
    )
    return tuple(dict.fromkeys(found))
