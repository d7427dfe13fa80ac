"""What passes from stage to stage: frozen data, no behaviour beyond reading it.

Words: a *player* is a set of channels that only leave together; a *channel
group* is the players that one game is played over; a *coalition* is the players
that stay; *kept* is the one polarity for all of it (True: stays).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Dim = int | str | None
Shape = tuple[Dim, ...]

NOBODY = -1
"""Owner of a position that belongs to no player of the group."""


# --- what is asked of the groups ---------------------------------------------------


@dataclass(frozen=True)
class GroupWish:
    """Channels that a user wants to leave together, under a name.

    ``members`` are shell patterns of nodes or tensors; channel k of all that they name is
    one player. Without a ``name`` the group is called as if nothing had been asked.
    """

    members: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of the groups.

    ``exclude`` and ``forbid`` are shell patterns of nodes or tensors whose channels stay: by
    the command line, and by the file ``source``, from which ``groups`` are, too.
    ``approximate``: means and normalisations over channels may run over those that are left.
    """

    exclude: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    groups: tuple[GroupWish, ...] = ()
    source: str = ""
    approximate: bool = False


NO_WISHES = Wishes()
"""Nothing is asked: every group is as the graph has it."""


# --- what can be cut -------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """One input of one node; nodes are named by their first output, which is unique."""

    node: str
    index: int


@dataclass(frozen=True, eq=False)
class Cut:
    """Who owns which position of one axis of one tensor.

    ``owner[p]`` is the player that position ``p`` belongs to, or ``NOBODY``. Concat
    offsets, flatten strides and depthwise multipliers are numbers in this array.
    ``readers`` are the node inputs through which the cut takes effect.
    """

    tensor: str
    axis: int
    owner: IntArray
    readers: tuple[Slot, ...] = ()

    def kept_positions(self, kept: BoolArray) -> BoolArray:
        """Which positions stay, bool[len(owner)], for ``kept`` bool[players]."""
        return np.append(kept, True)[self.owner]


@dataclass(frozen=True, eq=False)
class Follow:
    """A number in the file that names a width: one attribute, or one entry of a constant.

    Its value shrinks by the positions of ``owner`` that leave (grows, with sign −1: it is
    negative then, and counts from the end). ``attribute`` names a node attribute (``entry``
    is then the index in a list, or -1 for a single number); otherwise ``slot`` is the
    constant input and ``entry`` the index in it. Where that input is computed in the source,
    ``computed`` is its value there: a constant takes its place.
    """

    slot: Slot
    attribute: str
    entry: int
    owner: IntArray
    sign: int = 1
    computed: Array | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must leave together, and all that leaves with them.

    ``members`` are the names of the nodes that produce the channels; ``weights`` the
    constants to slice; ``reads`` the activations that some node sums over (where an
    absent player is masked); ``shapes`` all activations that become narrower; ``indices``
    the constants whose values are positions along a cut axis; ``averages`` the activations
    that some node takes a mean over (where an absent player has no weight).
    """

    name: str
    players: int
    members: tuple[str, ...]
    weights: tuple[Cut, ...]
    reads: tuple[Cut, ...]
    shapes: tuple[Cut, ...]
    follows: tuple[Follow, ...]
    indices: tuple[Cut, ...] = ()
    averages: tuple[Cut, ...] = ()


@dataclass(frozen=True, eq=False)
class Shift:
    """What the output of a linear node gains when players are replaced by constants.

    ``response`` is float64[outputs, players]: the constant that each absent player
    adds to each output channel of ``node``.
    """

    node: str
    response: FloatArray


@dataclass(frozen=True)
class Skipped:
    """Why some channels stay: ``node`` of ``op_type`` stands in the way of ``members``.

    ``approximable``: it would not, if means over the channels that are left were allowed.
    """

    node: str
    op_type: str
    reason: str
    members: tuple[str, ...] = ()
    approximable: bool = False


@dataclass(frozen=True)
class Approximated:
    """A node whose mean over channels of ``group`` is one over those that are left."""

    node: str
    op_type: str
    group: str


@dataclass(frozen=True)
class Coupling:
    """Result of the dependency analysis of one model."""

    groups: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...]


# --- data ------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """A model input or output: name, numpy dtype name and shape (str: symbolic, None: unknown)."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples for all inputs of a model.

    ``inputs[name]`` has the samples along its first axis, all inputs the same number.
    ``batched``: the model's own first axis is the sample axis, so samples are joined
    up to its batch size; otherwise every sample is one whole feed of the model and
    ``inputs[name]`` has one axis more than the model's input. ``labels`` is int64[n] or None.
    """

    inputs: Mapping[str, Array]
    labels: IntArray | None
    batched: bool
    source: str
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))


# --- games and estimates -----------------------------------------------------------


class Game(Protocol):
    """A cooperative game: all that an estimator knows."""

    @property
    def players(self) -> int:
        """Number of players n."""
        ...

    def worth(self, coalitions: BoolArray) -> FloatArray:
        """Worth of each coalition: bool[m, n] (True: present) to float64[m]."""
        ...


class Salient(Protocol):
    """A game that can also rank its players without playing, e.g. by weight norms."""

    def saliency(self, name: str) -> FloatArray:
        """float64[n] of the named criterion; larger is more important."""
        ...


@dataclass(frozen=True, eq=False)
class Estimate:
    """One value per player: float64[n] each, in units of the game's worth.

    ``stderr`` is the standard error of ``value`` (0 where the value is exact);
    ``evaluations`` counts the coalitions whose worth was asked for.
    """

    value: FloatArray
    stderr: FloatArray
    evaluations: int


class Progress(Protocol):
    """Where long work tells how far it is."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` steps begins."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Some steps of the current stage are done."""
        ...

    def finish(self, *, completed: bool = True) -> None:
        """The current stage has ended, as it should or by an error."""
        ...


# --- plans and results ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The players of one group that stay: ``kept`` bool[players].

    ``shifts`` say what replaces the others (nothing: they count as zero).
    """

    group: ChannelGroup
    kept: BoolArray
    shifts: tuple[Shift, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to remove from the model with this sha256: the only input of removal."""

    model_sha256: str
    groups: tuple[GroupPlan, ...]


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one run at batch 1, stored parameters and bytes, channels."""

    macs: int
    parameters: int
    bytes: int
    channels: int


@dataclass(frozen=True)
class GroupScore:
    """Scores of one group: lists of length ``players``, larger is more important."""

    name: str
    players: int
    members: tuple[str, ...]
    values: tuple[float, ...]
    stderr: tuple[float, ...]
    evaluations: int


@dataclass(frozen=True)
class Scores:
    """Scores of all groups of one model, and how they were made."""

    model_sha256: str
    estimator: str
    metric: str
    absent: str
    seed: int
    samples: int
    groups: tuple[GroupScore, ...] = field(default=())
