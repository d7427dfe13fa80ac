"""Operators that work on the axes beside the channels."""

from __future__ import annotations

import numpy as np

from .effects import Refused, Track
from .numbers import follow_shape_entry, require_free
from .registry import NUMBER_READERS, rule
from .site import Site

REDUCTIONS = [
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceSum",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
]


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(site: Site) -> None:
    """Every channel is pooled by itself."""
    track = site.only_track(1)
    if site.used(1):
        raise Refused("the indices it returns count over all channels")
    site.emit(1, track.ids)


@rule(*REDUCTIONS)
def reduce(site: Site) -> None:
    """Channels pass through a reduction over other axes."""
    track = site.only_track()
    rank = len(site.shape(0))
    axes = {axis % rank for axis in site.integers(1, "axes") or _all_axes(site, rank)}
    if track.axis in axes:
        raise Refused("it reduces over the channels")
    before = 0 if site.attribute("keepdims", 1) else sum(axis < track.axis for axis in axes)
    site.emit(track.axis - before, track.ids)


def _all_axes(site: Site, rank: int) -> range:
    return range(0) if site.attribute("noop_with_empty_axes", 0) else range(rank)


@rule("Pad")
def pad(site: Site) -> None:
    """Padding beside the channels changes none of them."""
    track = site.only_track()
    pads = site.integers(1, "pads")
    rank = len(site.shape(0))
    if pads is None or site.has(3) or len(pads) != 2 * rank:
        raise Refused("only padding of all axes by stored numbers is supported")
    if pads[track.axis] or pads[track.axis + rank]:
        raise Refused("it pads the channels")
    site.emit(track.axis, track.ids)


@rule("Resize", "Upsample")
def resize(site: Site) -> None:
    """Channels pass through where their own scale is 1; a stored size follows them."""
    track = site.only_track()
    if site.attribute("axes") is not None:
        raise Refused("a Resize of chosen axes is not supported yet")
    if site.has(3):
        _resize_to(site, track)
    elif _scale(site, track.axis) != 1:
        raise Refused("it does not keep the number of channels")
    site.emit(track.axis, track.ids)


NUMBER_READERS.add(("Resize", 3))


def _resize_to(site: Site, track: Track) -> None:
    entries = site.numbers(3)
    if entries is None or len(entries) != len(site.shape(0)):
        raise Refused("its sizes are computed at run time")
    follow_shape_entry(site, entries[track.axis], track.ids)
    require_free(site, [e for i, e in enumerate(entries) if i != track.axis])


def _scale(site: Site, axis: int) -> float:
    index = 2 if len(site.node.input) > 2 else 1
    scales = site.value(index)
    if scales is None:
        scales = site.attribute("scales")
    return float("nan") if scales is None else float(np.ravel(scales)[axis])
