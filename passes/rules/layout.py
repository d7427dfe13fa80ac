"""Operators that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_shapprune.types import Dim, IntArray, Shape

from ..shapes import static_size
from .effects import Entry, Number, Refused, Track
from .numbers import follow_shape_entry, require_free
from .registry import NUMBER_READERS, rule
from .site import Site, require_width


@rule("Transpose")
def transpose(site: Site) -> None:
    """The channel axis moves."""
    track = site.only_track()
    rank = len(site.shape(0))
    order = [int(axis) for axis in site.attribute("perm", range(rank)[::-1])]
    site.emit(order.index(track.axis), track.ids)


@rule("Squeeze")
def squeeze(site: Site) -> None:
    """Channels pass through; axes of length one in front of them and behind are gone."""
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
    """Channels pass through; axes of length one appear in front of them and behind."""
    track, axes = site.only_track(), site.integers(1, "axes") or []
    rank = len(site.shape(0)) + len(axes)
    added = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in added]
    site.emit(kept[track.axis], track.ids)


@rule("Concat")
def concat(site: Site) -> None:
    """Along the channels: offsets. Along another axis: the channels are the same ones."""
    _string(site, site.inputs)


@rule("com.microsoft.QLinearConcat")
def quantised_concat(site: Site) -> None:
    """Like Concat; each input has a scale and a zero point for all its channels."""
    _string(site, site.inputs[2::3])


def _string(site: Site, operands: Sequence[int]) -> None:
    """The operands at these inputs are put behind each other."""
    tracks = site.tracked()
    axes = {track.axis for _, track in tracks}
    if len(axes) != 1:
        raise Refused("its inputs have their channels along different axes")
    axis = axes.pop()
    if int(site.attribute("axis", 1)) % len(site.shape(tracks[0][0])) == axis:
        site.emit(axis, np.concatenate([_ids_or_fixed(site, i, axis) for i in operands]))
    else:
        _concat_beside(site, axis, len(operands))


def _ids_or_fixed(site: Site, index: int, axis: int) -> IntArray:
    track = site.track(index)
    if track is not None:
        return track.ids
    shape = site.shape(index)
    width = shape[axis] if axis < len(shape) else None
    if not isinstance(width, int):
        raise Refused(f"the number of channels of '{site.node.input[index]}' is not known")
    require_width(width)
    return np.zeros(width, np.int64)


def _concat_beside(site: Site, axis: int, operands: int) -> None:
    if len(site.tracked()) != operands:
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
    """Channels pass through, spread over merged axes, or are split into one of several."""
    track, source = site.only_track(), site.shape(0)
    entries = site.numbers(1)
    if entries is None:
        raise Refused("its shape is computed at run time")
    copies = not site.attribute("allowzero", 0)
    if copies and _copies_up_to(entries, track.axis):
        axis, ids = track.axis, track.ids
    else:
        axis, ids = _regrouped(site, source, _resolved(site, entries), track)
    same = axis == track.axis and len(ids) == len(track.ids)
    if copies and _is_zero(entries, track.axis) and not same:
        raise Refused("another axis takes its size from the number of channels")
    if not (same and copies and _is_zero(entries, axis)):
        follow_shape_entry(site, entries[axis], ids)
    require_free(site, [e for i, e in enumerate(entries) if i != axis])
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


def _regrouped(site: Site, source: Shape, target: Shape, track: Track) -> tuple[int, IntArray]:
    """The output axis that carries the channels, and its atoms.

    The channels and their neighbours become a block of atoms in the new form. Along one of
    its axes channels can leave, whole slices at a time: those of a slice are tied.
    """
    (start, end), (first, last) = _segment(source, target, track.axis)
    sizes = [size for size in target[first:last] if isinstance(size, int)]
    require_width(static_size(sizes) or 0)
    block = _spread(source[start:end], track.axis - start, track.ids).reshape(sizes)
    slices = [np.moveaxis(block, k, 0).reshape(size, -1) for k, size in enumerate(sizes)]
    order = _by_ties(slices)
    options = [k for k in order if sizes[k] > 1] or order
    uniform = not _ties(slices[options[0]])
    taken = options[0 if uniform else min(site.choose(len(options)), len(options) - 1)]
    rows = slices[taken]
    for column in rows.T[1:]:
        if not np.array_equal(column, rows[:, 0]):
            site.tie(rows[:, 0], column)
    return first + taken, rows[:, 0]


def _by_ties(slices: list[IntArray]) -> list[int]:
    """Axes by how many ties a cut along them needs, the fewest first."""
    return sorted(range(len(slices)), key=lambda k: _ties(slices[k]))


def _ties(rows: IntArray) -> int:
    """Entries that differ from the first of their row."""
    return int((rows != rows[:, :1]).sum())


def _segment(source: Shape, target: Shape, axis: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The fewest axes around ``axis`` that become whole axes of the target.

    Sizes are compared from the right, so that a free batch size does no harm.
    """
    behind = {static_size(target[i:]): i for i in reversed(range(len(target) + 1))}
    front = {static_size(target[i:]): i for i in range(len(target) + 1)}
    starts = [i for i in range(axis + 1) if static_size(source[i:]) in front]
    ends = [i for i in range(axis + 1, len(source) + 1) if static_size(source[i:]) in behind]
    starts = [i for i in starts if static_size(source[i:]) is not None]
    if not starts or not ends:
        raise Refused(f"it mixes the channels: {list(source)} to {list(target)}")
    start, end = starts[-1], ends[0]
    first, last = front[static_size(source[start:])], behind[static_size(source[end:])]
    if last <= first:  # a single channel, which may stand before or behind other ones
        first = next((i for i in range(last, first + 1) if target[i : i + 1] == (1,)), -1)
        last = first + 1
    if first < 0:
        raise Refused("it drops the only channel")
    return (start, end), (first, last)


def _spread(dims: tuple[Dim, ...], axis: int, ids: IntArray) -> IntArray:
    """Atoms of a row that merges ``dims``, of which ``axis`` are the channels."""
    outer, inner = static_size(dims[:axis]), static_size(dims[axis + 1 :])
    if outer is None or inner is None:
        raise Refused("the size of a channel is not fixed (give it with --dim)")
    require_width(outer * len(ids) * inner)
    return np.tile(np.repeat(ids, inner), outer)


@rule("DepthToSpace")
def depth_to_space(site: Site) -> None:
    """Blocks of channels become pixels: the channels of a block leave together."""
    track, size = site.only_track(1), int(site.attribute("blocksize"))
    if size < 1 or len(track.ids) % size**2:
        raise Refused(f"its {len(track.ids)} channels are not blocks of {size} × {size}")
    rows = track.ids.reshape(size * size, -1)
    if site.attribute("mode", "DCR") == "CRD":
        rows = track.ids.reshape(-1, size * size).T
    for other in rows[1:]:
        site.tie(rows[0], other)
    site.emit(1, rows[0])


@rule("SpaceToDepth")
def space_to_depth(site: Site) -> None:
    """Pixels become channels: every channel has a copy per pixel of a block."""
    track, size = site.only_track(1), int(site.attribute("blocksize"))
    require_width(len(track.ids) * size**2)
    site.emit(1, np.tile(track.ids, size * size))


@rule("Col2Im")
def columns_to_image(site: Site) -> None:
    """The elements of a block are channels in its input: they leave together."""
    track, block = site.only_track(1), site.value(2)
    if block is None:
        raise Refused("the size of its blocks is computed at run time")
    rows = track.ids.reshape(-1, int(block.prod()))
    for column in rows.T[1:]:
        site.tie(rows[:, 0], column)
    site.emit(1, rows[:, 0])


@rule("Tile")
def tile(site: Site) -> None:
    """Channels pass through where other axes are repeated; along their own they repeat."""
    track, repeats = site.only_track(), site.integers(1, "repeats")
    if repeats is None or len(repeats) != len(site.shape(0)):
        raise Refused("its repeats are computed at run time")
    require_width(len(track.ids) * repeats[track.axis])
    site.emit(track.axis, np.tile(track.ids, repeats[track.axis]))
