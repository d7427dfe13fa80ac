"""Operators that move elements without changing them."""

from __future__ import annotations

import numpy as np

from onnx_shapprune.types import Dim, IntArray, Shape

from ..shapes import static_size
from .effects import Entry, Number, Refused, Track
from .numbers import follow_shape_entry, require_free
from .registry import NUMBER_READERS, rule
from .site import Site


@rule("Transpose")
def transpose(site: Site) -> None:
    """The channel axis moves."""
    track = site.only_track()
    rank = len(site.shape(0))
    order = [int(axis) for axis in site.attribute("perm", range(rank)[::-1])]
    site.emit(order.index(track.axis), track.ids)


@rule("Squeeze")
def squeeze(site: Site) -> None:
    """Axes of length one before the channels disappear."""
    track, shape = site.only_track(), site.shape(0)
    axes = site.integers(1, "axes")
    if axes is None:
        raise Refused("it drops whatever axes have length one")
    dropped = {axis % len(shape) for axis in axes}
    if track.axis in dropped:
        raise Refused("it drops the channel axis")
    site.emit(track.axis - sum(axis < track.axis for axis in dropped), track.ids)


@rule("Unsqueeze")
def unsqueeze(site: Site) -> None:
    """Axes of length one appear before or behind the channels."""
    track, axes = site.only_track(), site.integers(1, "axes") or []
    rank = len(site.shape(0)) + len(axes)
    added = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in added]
    site.emit(kept[track.axis], track.ids)


@rule("Concat")
def concat(site: Site) -> None:
    """Along the channels: offsets. Along another axis: the channels are the same ones."""
    tracks = site.tracked()
    axes = {track.axis for _, track in tracks}
    if len(axes) != 1:
        raise Refused("its inputs have their channels along different axes")
    axis = axes.pop()
    if int(site.attribute("axis", 1)) % len(site.shape(tracks[0][0])) == axis:
        site.emit(axis, np.concatenate([_ids_or_fixed(site, i, axis) for i in site.inputs]))
    else:
        _concat_beside(site, axis, len(tracks))


def _ids_or_fixed(site: Site, index: int, axis: int) -> IntArray:
    track = site.track(index)
    if track is not None:
        return track.ids
    width = site.shape(index)[axis]
    if not isinstance(width, int):
        raise Refused(f"the number of channels of '{site.node.input[index]}' is not known")
    return np.zeros(width, np.int64)


def _concat_beside(site: Site, axis: int, tracked: int) -> None:
    if tracked != len(site.node.input):
        raise Refused("some of its inputs have channels that are not known")
    first, *others = (track for _, track in site.tracked())
    for other in others:
        site.tie(first.ids, other.ids)
    site.emit(axis, first.ids)


@rule("Expand")
def expand(site: Site) -> None:
    """Channels pass through where other axes are repeated."""
    track, entries = site.only_track(), site.numbers(1)
    if entries is None:
        raise Refused("its shape is computed at run time")
    shift = max(len(entries) - len(site.shape(0)), 0)
    place = track.axis + shift - max(len(site.shape(0)) - len(entries), 0)
    others = [entry for i, entry in enumerate(entries) if i != place]
    require_free(site, others)
    entry = entries[place] if place >= 0 else None
    if place >= 0 and not (isinstance(entry, Number) and entry.value == 1):
        follow_shape_entry(site, entry, track.ids)
    site.emit(track.axis + shift, track.ids)


NUMBER_READERS.add(("Expand", 1))


@rule("Flatten")
def flatten(site: Site) -> None:
    """A channel becomes all its elements in the flattened row."""
    track, shape = site.only_track(), site.shape(0)
    start = int(site.attribute("axis", 1))
    start += len(shape) if start < 0 else 0
    if track.axis < start:
        raise Refused("it flattens the channels into the batch")
    site.emit(1, _spread(shape[start:], track.axis - start, track.ids))


@rule("Reshape")
def reshape(site: Site) -> None:
    """Channels pass through, or spread over their elements where axes are merged."""
    track, source = site.only_track(), site.shape(0)
    entries = site.numbers(1)
    if entries is None:
        raise Refused("its shape is computed at run time")
    if _copies_up_to(entries, track.axis) and not site.attribute("allowzero", 0):
        axis, ids = track.axis, track.ids
    else:
        axis, ids = _merged(source, _resolved(site, entries), track)
    copied = not site.attribute("allowzero", 0) and _is_zero(entries, track.axis)
    if copied and axis != track.axis:
        raise Refused("another axis takes its size from the number of channels")
    _follow(site, entries, axis, ids, same_axis=axis == track.axis and len(ids) == len(track.ids))
    site.emit(axis, ids)


NUMBER_READERS.add(("Reshape", 1))


def _is_zero(entries: tuple[Entry, ...], axis: int) -> bool:
    """Whether the shape copies an axis of the input."""
    entry = entries[axis] if axis < len(entries) else None
    return isinstance(entry, Number) and entry.value == 0


def _copies_up_to(entries: tuple[Entry, ...], axis: int) -> bool:
    """Whether the shape takes the axes up to the channels over as they are (zeros)."""
    return all(_is_zero(entries, i) for i in range(axis + 1))


def _resolved(site: Site, entries: tuple[Entry, ...]) -> Shape:
    shape = site.output_shape()
    if len(shape) != len(entries):
        raise Refused("its shape does not fit its output")
    return shape


def _merged(source: Shape, target: Shape, track: Track) -> tuple[int, IntArray]:
    """The one output axis that the channel axis is merged into, and its atoms.

    Sizes are compared from the right, so that a free batch size does no harm.
    """
    ends = {static_size(source[i:]): i for i in range(len(source), track.axis, -1)}
    starts = {static_size(source[i:]): i for i in range(track.axis + 1)}
    for axis in reversed(range(len(target))):
        start, end = (
            starts.get(static_size(target[axis:])),
            ends.get(static_size(target[axis + 1 :])),
        )
        if start is not None and end is not None and static_size(target[axis:]) is not None:
            return axis, _spread(source[start:end], track.axis - start, track.ids)
    raise Refused(f"it splits or mixes the channels: {list(source)} to {list(target)}")


def _spread(dims: tuple[Dim, ...], axis: int, ids: IntArray) -> IntArray:
    """Atoms of a row that merges ``dims``, of which ``axis`` are the channels."""
    outer, inner = static_size(dims[:axis]), static_size(dims[axis + 1 :])
    if outer is None or inner is None:
        raise Refused("the size of a channel is not fixed (give it with --dim)")
    return np.tile(np.repeat(ids, inner), outer)


def _follow(
    site: Site, entries: tuple[Entry, ...], axis: int, ids: IntArray, *, same_axis: bool
) -> None:
    entry = entries[axis]
    if not (same_axis and isinstance(entry, Number) and entry.value == 0):
        follow_shape_entry(site, entry, ids)
    require_free(site, [e for i, e in enumerate(entries) if i != axis])
