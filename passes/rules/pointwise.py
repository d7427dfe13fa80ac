"""Operators that treat every element by itself, alone or with its partner elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_shapprune.types import IntArray

from .effects import Refused
from .registry import PRODUCERS, rule
from .site import Site

UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "com.microsoft.Gelu",
    "com.microsoft.QuickGelu",
    "com.microsoft.QLinearLeakyRelu",
    "com.microsoft.QLinearSigmoid",
]

BROADCAST = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Min",
    "Max",
    "Sum",
    "Mean",
    "Where",
    "PRelu",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "com.microsoft.BiasGelu",
    "com.microsoft.FastGelu",
]


@rule(*UNARY)
def unary(site: Site) -> None:
    """Channels pass through."""
    track = site.only_track()
    site.emit(track.axis, track.ids)


@rule("Dropout")
def dropout(site: Site) -> None:
    """Channels pass through, its mask has the same ones."""
    track = site.only_track()
    site.emit(track.axis, track.ids)
    site.emit(track.axis, track.ids, output=1)


@rule("CastLike")
def cast_like(site: Site) -> None:
    """Channels of the first input pass through; of the second one it is only the type."""
    track = site.track(0)
    if track is not None:
        site.emit(track.axis, track.ids)


@rule(*BROADCAST)
def broadcast(site: Site) -> None:
    """Channels that meet leave together; per-channel constants shrink with them."""
    if site.opset < 7:
        raise Refused("broadcasting before opset 7 follows other rules")
    if site.tracked():
        _meet(site, site.inputs)
    else:
        _spread_constant(site)


@rule("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def quantised_broadcast(site: Site) -> None:
    """Like Add and Mul; each operand has a scale and a zero point for all its channels."""
    _meet(site, (0, 3))


@rule("com.microsoft.QLinearWhere")
def quantised_where(site: Site) -> None:
    """Like Where; both choices have a scale and a zero point for all their channels."""
    _meet(site, (0, 1, 4))


def _meet(site: Site, operands: Sequence[int]) -> None:
    """The operands at these inputs are broadcast to each other."""
    rank = max(len(site.shape(i)) for i in operands)
    placed = {track.axis + rank - len(site.shape(i)) for i, track in site.tracked()}
    if len(placed) != 1:
        raise Refused("its inputs have their channels along different axes")
    axis = placed.pop()
    ids = max((track.ids for _, track in site.tracked()), key=len)
    for index in operands:
        join(site, index, axis - rank + len(site.shape(index)), ids)
    site.emit(axis, ids)


PRODUCERS.add("Mul")


def _spread_constant(site: Site) -> None:
    """Channels that come from a constant: exporters scale a spread before the values by it.

    That matters where the spread is one over channels, and nowhere else.
    """
    if not site.approximate:
        return
    stored = [index for index in site.inputs if site.is_constant(index)]
    if len(stored) != 1:
        return
    index = stored[0]
    constant, other = site.weight_shape(index), site.shape(1 - index)
    places = range(-len(constant), 0) if len(constant) <= len(other) else ()
    spread = [p for p in places if constant[p] != 1 == other[p]]
    if len(spread) == 1 and not site.is_integer(index):
        ids = site.produce(constant[spread[0]])
        site.slice(index, spread[0] + len(constant), ids)
        site.emit(spread[0] + len(other), ids)


def join(site: Site, index: int, axis: int, ids: IntArray) -> None:
    """One operand of several; ``axis`` is where the channels ``ids`` would stand on it."""
    track = site.track(index)
    if track is not None:
        _join_tracked(site, track.ids, ids)
    elif axis >= 0 and site.shape(index)[axis] != 1:
        _join_untracked(site, index, axis, ids)


def _join_tracked(site: Site, own: IntArray, ids: IntArray) -> None:
    if len(own) == 1 != len(ids):
        site.lock(own, "a single channel is spread over all others")
    else:
        site.tie(own, ids)


def _join_untracked(site: Site, index: int, axis: int, ids: IntArray) -> None:
    if not site.is_constant(index):
        name = site.node.input[index]
        raise Refused(f"channels meet those of '{name}', which must stay or are not known")
    site.slice(index, axis, ids)
