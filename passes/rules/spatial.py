"""Operators that work on the axes beside the channels."""

from __future__ import annotations

import numpy as np

from .effects import FIXED, Refused, Track
from .numbers import follow_shape_entry, require_free
from .registry import NUMBER_READERS, rule
from .site import Site, require_width


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
@rule("com.microsoft.QLinearAveragePool", "com.microsoft.QLinearGlobalAveragePool")
def pool(site: Site) -> None:
    """Every channel is pooled by itself."""
    axis = len(site.shape(0)) - 1 if site.attribute("channels_last", 0) else 1
    track = site.only_track(axis)
    if site.used(1):
        raise Refused("the indices it returns count over all channels")
    site.emit(axis, track.ids)


@rule("Pad")
def pad(site: Site) -> None:
    """Channels pass through; constant ones that are put beside them stay."""
    track = site.only_track()
    pads = site.integers(1, "pads")
    rank = len(site.shape(0))
    if pads is None or site.has(3) or len(pads) != 2 * rank:
        raise Refused("only padding of all axes by stored numbers is supported")
    before, behind = pads[track.axis], pads[track.axis + rank]
    if (before or behind) and site.attribute("mode", "constant") != "constant":
        raise Refused("it pads the channels with each other")
    if min(before, behind) < 0:
        raise Refused("it cuts channels off")
    require_width(before + len(track.ids) + behind)
    site.emit(track.axis, np.pad(track.ids, (before, behind), constant_values=FIXED))


@rule("Resize", "Upsample")
def resize(site: Site) -> None:
    """Channels pass through where their own scale is 1; a stored size follows them."""
    track, rank = site.only_track(), len(site.shape(0))
    axes = [axis % rank for axis in site.attribute("axes", range(rank))]
    if track.axis in axes:
        place = axes.index(track.axis)
        if site.has(3):
            _resize_to(site, track, place, len(axes))
        elif _scale(site, place) != 1:
            raise Refused("it does not keep the number of channels")
    site.emit(track.axis, track.ids)


NUMBER_READERS.add(("Resize", 3))


def _resize_to(site: Site, track: Track, place: int, count: int) -> None:
    entries = site.numbers(3)
    if entries is None or len(entries) != count:
        raise Refused("its sizes are computed at run time")
    follow_shape_entry(site, entries[place], track.ids)
    require_free(site, [e for i, e in enumerate(entries) if i != place])


def _scale(site: Site, axis: int) -> float:
    index = 2 if len(site.node.input) > 2 else 1
    scales = site.value(index)
    if scales is None:
        scales = site.attribute("scales", ())
    return float("nan") if np.size(scales) <= axis else float(np.ravel(scales)[axis])


@rule("GridSample", "RoiAlign", "MaxRoiPool")
def sample(site: Site) -> None:
    """Every channel is sampled at the same places."""
    track = site.only_track(1)
    if len(site.tracked()) > 1:
        raise Refused("channels choose the places where it samples")
    site.emit(1, track.ids)
