"""Operators that pick some of the channels: parts of them, runs of them, single ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_shapprune.types import Array, IntArray

from .effects import Number, Refused, Track
from .numbers import require_free
from .registry import NUMBER_READERS, rule
from .site import Site

NUMBER_READERS.update(
    {("Split", 1), ("SplitToSequence", 1), *(("Slice", index) for index in (1, 2, 3, 4))}
)


@rule("Split")
def split(site: Site) -> None:
    """Each part has its own channels; parts that must stay equal lose the same ones."""
    track = site.only_track()
    if _axis(site, "axis", 0) != track.axis:
        if site.has(1):
            require_free(site, site.fixed_numbers(1))
        for output in range(len(site.node.output)):
            site.emit(track.axis, track.ids, output)
        return
    for output, ids in enumerate(_parts(site, track.ids)):
        site.emit(track.axis, ids, output)


def _parts(site: Site, ids: IntArray) -> list[IntArray]:
    if site.has(1):
        return _sized_parts(site, ids, site.fixed_numbers(1))
    listed = site.attribute("split")
    if listed is not None:
        parts = _cut(ids, [int(size) for size in listed])
        for entry, part in enumerate(parts):
            site.follow_attribute("split", part, entry)
        return parts
    count = int(site.attribute("num_outputs", len(site.node.output)))
    if count < 1 or len(ids) % count:
        raise Refused(f"it splits {len(ids)} channels into {count} parts that are not equal")
    return _equal_parts(site, ids, count)


def _sized_parts(site: Site, ids: IntArray, sizes: Sequence[Number]) -> list[IntArray]:
    parts = _cut(ids, [int(size.value) for size in sizes])
    for size, part in zip(sizes, parts, strict=True):
        site.follow_entry(size, part)
    return parts


def _equal_parts(site: Site, ids: IntArray, count: int) -> list[IntArray]:
    first, *others = np.split(ids, count)
    for other in others:
        site.tie(first, other)
    return [first, *others]


def _cut(ids: IntArray, sizes: list[int]) -> list[IntArray]:
    if sum(sizes) != len(ids) or min(sizes) < 0:
        raise Refused(f"its parts {sizes} are not all of its {len(ids)} channels")
    return np.split(ids, np.cumsum(sizes)[:-1])


@rule("SplitToSequence")
def split_to_sequence(site: Site) -> None:
    """Like Split: each tensor of the sequence has its own channels."""
    track = site.only_track()
    if not site.has(1):
        raise Refused("it splits off every position by itself")
    sizes = site.fixed_numbers(1)
    if _axis(site, "axis", 0) != track.axis:
        require_free(site, sizes)
        site.emit_sequence(track.axis, [track.ids])
    elif site.shape(1):
        site.emit_sequence(track.axis, _sized_parts(site, track.ids, sizes))
    else:
        site.emit_sequence(track.axis, _parts_of_size(site, track.ids, sizes[0]))


def _parts_of_size(site: Site, ids: IntArray, size: Number) -> list[IntArray]:
    count, rest = divmod(len(ids), int(size.value))
    if rest:
        raise Refused(f"the last part of its {len(ids)} channels is smaller than the others")
    parts = _equal_parts(site, ids, count)
    site.follow_entry(size, parts[0])
    return parts


@rule("SequenceAt")
def sequence_at(site: Site) -> None:
    """One tensor of a sequence with its channels."""
    track, place = site.only_track(), site.value(1)
    if len(track.parts) == 1:
        site.emit(track.axis, track.ids)
    elif place is None:
        raise Refused("it picks a tensor by a computed number")
    else:
        site.emit(track.axis, track.parts[int(place)])


@rule("Slice")
def slice_(site: Site) -> None:
    """A run of channels: its bounds follow those in front of them."""
    track, rank = site.only_track(), len(site.shape(0))
    if site.opset < 10:
        _slice_by_attributes(site, track, rank)
        return
    starts, ends = site.fixed_numbers(1), site.fixed_numbers(2)
    axes = range(len(starts)) if not site.has(3) else site.integers(3, "axes") or []
    steps = [1] * len(starts) if not site.has(4) else site.integers(4, "steps") or []
    places = [axis % rank for axis in axes]
    ids = track.ids
    for place, start, end, step in zip(places, starts, ends, steps, strict=True):
        if place != track.axis:
            require_free(site, [start, end])
        else:
            _require_step(step, len(ids))
            ids = _run(int(start.value), int(end.value), ids)
            for bound in (start, end):
                _follow_bound(site, bound, track.ids)
    site.emit(track.axis, ids)


def _slice_by_attributes(site: Site, track: Track, rank: int) -> None:
    starts, ends = site.attribute("starts"), site.attribute("ends")
    axes = [axis % rank for axis in site.attribute("axes", range(len(starts)))]
    ids = track.ids
    if track.axis in axes:
        entry = axes.index(track.axis)
        ids = _run(starts[entry], ends[entry], ids)
        for name, bound in (("starts", starts[entry]), ("ends", ends[entry])):
            before, sign = _counted(bound, track.ids)
            if len(before):
                site.follow_attribute(name, before, entry, sign)
    site.emit(track.axis, ids)


def _require_step(step: int, width: int) -> None:
    if step != 1 and width > 1:
        raise Refused(f"it takes channels in steps of {step}")


def _run(start: int, end: int, ids: IntArray) -> IntArray:
    run = ids[start:end]
    if not len(run):
        raise Refused("it takes no channels")
    return run


def _follow_bound(site: Site, bound: Number, ids: IntArray) -> None:
    before, sign = _counted(int(bound.value), ids)
    if len(before):
        site.follow_entry(bound, before, sign)
    else:
        site.pin(bound)


def _counted(bound: int, ids: IntArray) -> tuple[IntArray, int]:
    """The channels that a bound counts, from the front or (sign −1) from the end."""
    if abs(bound) > len(ids):
        return ids[:0], 1
    return (ids[:bound], 1) if bound >= 0 else (ids[bound:], -1)


@rule("Gather")
def gather_channels(site: Site) -> None:
    """Stored indices pick channels and are renumbered; along another axis channels pass."""
    if site.track(1) is not None:
        raise Refused("channels choose what it picks")
    track, axis = site.only_track(), _axis(site, "axis", 0)
    rank = len(site.shape(1))
    if axis != track.axis:
        site.emit(track.axis + (rank - 1 if axis < track.axis else 0), track.ids)
        return
    picked = _picked(site, track)
    if rank == 1:
        site.slice(1, 0, picked)
        site.emit(axis, picked)
    else:
        site.lock(np.ravel(picked), "its channels are picked one by one")


def _picked(site: Site, track: Track) -> IntArray:
    """Atoms at the stored indices, which are renumbered."""
    indices = site.constant(1)
    if indices is None:
        raise Refused("it picks channels by computed indices")
    if indices.dtype.kind != "i" or not _within(indices, len(track.ids)):
        raise Refused("it picks channels that there are not")
    site.renumber(1, track.ids)
    return track.ids[indices]


@rule("GatherND")
def gather_nd(site: Site) -> None:
    """Like Gather where its indices run along the channels alone; channels behind them pass."""
    if site.track(1) is not None:
        raise Refused("channels choose what it picks")
    track, front, shape = site.only_track(), int(site.attribute("batch_dims", 0)), site.shape(1)
    depth = shape[-1] if shape else None
    behind = front + depth if isinstance(depth, int) else len(site.shape(0))
    if track.axis >= behind:
        site.emit(track.axis - behind + len(shape) - 1, track.ids)
    elif (track.axis, behind, len(shape)) == (0, 1, 2):
        picked = _picked(site, track)[:, 0]
        site.slice(1, 0, picked)
        site.emit(0, picked)
    else:
        raise Refused("it picks along the channels and another axis at once")


def _within(indices: Array, width: int) -> bool:
    return bool(((indices >= -width) & (indices < width)).all())


def _axis(site: Site, name: str, default: int) -> int:
    return int(site.attribute(name, default)) % len(site.shape(0))
