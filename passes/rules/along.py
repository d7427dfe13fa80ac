"""Operators that work along one or several axes: exact where the channels run along another."""

from __future__ import annotations

from collections.abc import Iterable

from .effects import Refused, Track
from .registry import rule
from .site import Site

_SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
_OTHERS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
_COARSE_BEFORE = 13
"""Until this opset a Softmax runs over its axis and all behind it."""


@rule(*_SUMS, *_OTHERS)
def reduce(site: Site) -> None:
    """Channels pass through a reduction over other axes; sums and means of them end here."""
    track = site.only_track()
    rank = len(site.shape(0))
    axes = {axis % rank for axis in site.integers(1, "axes") or _all_axes(site, rank)}
    if track.axis not in axes:
        before = 0 if site.attribute("keepdims", 1) else sum(axis < track.axis for axis in axes)
        site.emit(track.axis - before, track.ids)
    elif site.node.op_type in _SUMS:
        site.read(0)
    elif site.node.op_type == "ReduceMean":
        site.average(0, "it reduces over the channels")
    else:
        raise Refused("it reduces over the channels")


def _all_axes(site: Site, rank: int) -> range:
    return range(0) if site.attribute("noop_with_empty_axes", 0) else range(rank)


@rule("Softmax", "LogSoftmax", "Hardmax", "com.microsoft.QLinearSoftmax")
def softmax(site: Site) -> None:
    """Channels pass through; the shares are along another axis."""
    coarse = int(site.attribute("opset", site.opset)) < _COARSE_BEFORE
    first = _axis(site, 1 if coarse else -1)
    _pass_beside(site, range(first, len(site.shape(0))) if coarse else [first])


@rule("CumSum")
def cumulative_sum(site: Site) -> None:
    """Sums along another axis."""
    if site.value(1) is None:
        raise Refused("its axis is computed at run time")
    axes = site.integers(1, "axes") or []
    _pass_beside(site, [axis % len(site.shape(0)) for axis in axes])


@rule("ArgMax", "ArgMin")
def arg_max(site: Site) -> None:
    """Channels pass through; the choice is along another axis, which then is gone or one long."""
    track, axis = site.only_track(), _axis(site, 0)
    _require_beside(track, [axis])
    gone = not site.attribute("keepdims", 1) and axis < track.axis
    site.emit(track.axis - int(gone), track.ids)


@rule("TopK")
def top_k(site: Site) -> None:
    """Channels pass through to both outputs; the choice is along another axis."""
    track = site.only_track()
    _require_beside(track, [_axis(site, -1)])
    for output in (0, 1):
        site.emit(track.axis, track.ids, output)


@rule("LpNormalization")
def lp_normalization(site: Site) -> None:
    """Channels pass through; the vectors are along another axis."""
    _pass_beside(site, [_axis(site, -1)])


@rule("LRN")
def local_response(site: Site) -> None:
    """They all stay: it normalises by neighbouring channels."""
    raise Refused("each channel is normalised by its neighbours")


@rule("NonMaxSuppression")
def non_max_suppression(site: Site) -> None:
    """They all stay: it chooses boxes by their scores."""
    raise Refused("its channels are boxes or scores to choose from")


def _pass_beside(site: Site, axes: Iterable[int]) -> None:
    track = site.only_track()
    _require_beside(track, axes)
    site.emit(track.axis, track.ids)


def _require_beside(track: Track, axes: Iterable[int]) -> None:
    if track.axis in axes:
        raise Refused("it works along the channels")


def _axis(site: Site, default: int) -> int:
    return int(site.attribute("axis", default)) % len(site.shape(0))
