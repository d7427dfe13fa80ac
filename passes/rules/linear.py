"""Operators with a kernel: they sum over the channels that arrive and make new ones."""

from __future__ import annotations

import numpy as np

from onnx_shapprune.types import IntArray

from .effects import Refused, Track
from .registry import rule
from .site import Site


@rule("Conv", produces=True)
def conv(site: Site) -> None:
    """Sums over the channels of each group; depthwise kernels pass them on one by one."""
    outputs, per_group = site.weight_shape(1)[:2]
    groups = int(site.attribute("group", 1))
    track = site.only_track(1) if site.tracked() else None
    if groups > 1 and per_group == 1:
        ids = _depthwise(site, track, groups, outputs)
    else:
        _sum_over_groups(site, track, groups)
        ids = np.tile(site.produce(outputs // groups), groups)
    site.slice(1, 0, ids)
    _bias(site, 2, ids)
    site.emit(1, ids)


def _depthwise(site: Site, track: Track | None, groups: int, outputs: int) -> IntArray:
    if track is None:
        raise Refused("depthwise, and its input channels must stay")
    ids = np.repeat(track.ids, outputs // groups)
    site.carry(ids)
    site.follow_attribute("group", track.ids)
    return ids


def _sum_over_groups(site: Site, track: Track | None, groups: int) -> None:
    """All groups must stay equally wide: channel k of one leaves with channel k of all."""
    if track is None:
        return
    first, *others = np.split(track.ids, groups)
    for other in others:
        site.tie(first, other)
    site.slice(1, 1, first)
    site.read(0)


@rule("ConvTranspose", produces=True)
def conv_transpose(site: Site) -> None:
    """Like Conv with the kernel's first two axes exchanged; one group only."""
    outputs = site.weight_shape(1)[1]
    if site.attribute("group", 1) != 1:
        raise Refused("a ConvTranspose with several groups is not supported yet")
    if site.tracked():
        track = site.only_track(1)
        site.slice(1, 0, track.ids)
        site.read(0)
    ids = site.produce(outputs)
    site.slice(1, 1, ids)
    _bias(site, 2, ids)
    site.emit(1, ids)


@rule("Gemm", produces=True)
def gemm(site: Site) -> None:
    """Sums over the columns of A (rows if transA) and makes the columns of the result."""
    inner, outer = (1, 0) if site.attribute("transB", 0) else (0, 1)
    outputs = site.weight_shape(1)[outer]
    if site.tracked():
        track = site.only_track(0 if site.attribute("transA", 0) else 1)
        site.slice(1, inner, track.ids)
        site.read(0)
    ids = site.produce(outputs)
    site.slice(1, outer, ids)
    _bias(site, 2, ids)
    site.emit(1, ids)


@rule("MatMul", produces=True)
def matmul(site: Site) -> None:
    """A product with a stored matrix sums over the last axis; other axes pass through."""
    kernel = site.weight_shape(1)
    if len(kernel) != 2:
        raise Refused(f"its weight has rank {len(kernel)}, only matrices are supported")
    last = len(site.shape(0)) - 1
    track = site.only_track() if site.tracked() else None
    if track is not None and track.axis != last:
        site.emit(track.axis, track.ids)
        return
    if track is not None:
        site.slice(1, 0, track.ids)
        site.read(0)
    ids = site.produce(kernel[1])
    site.slice(1, 1, ids)
    site.emit(last, ids)


def _bias(site: Site, index: int, ids: IntArray) -> None:
    """A bias has one entry per output channel along its last axis, or is broadcast."""
    if not site.has(index):
        return
    shape = site.weight_shape(index, "bias")
    if shape and shape[-1] != 1:
        site.slice(index, len(shape) - 1, ids)
