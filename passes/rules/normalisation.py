"""Normalisations: exact where no statistics run over channels that leave one by one.

Where they do, the statistics can run over the channels that are left, if that is allowed.
"""

from __future__ import annotations

from onnx_shapprune.types import IntArray

from .effects import Refused
from .registry import rule
from .site import Site

_PER_CHANNEL_SINCE = 21
"""Since this opset GroupNormalization has a scale per channel, before one per group."""


@rule("BatchNormalization")
def batch_normalization(site: Site) -> None:
    """Channels pass through; the four vectors shrink with them."""
    if site.attribute("training_mode", 0) or site.used(1):
        raise Refused("it is in training mode: its statistics change with every batch")
    if site.attribute("spatial", 1) != 1:
        raise Refused("its statistics are per element, not per channel")
    _per_channel(site, range(1, 5))


@rule("InstanceNormalization")
def instance_normalization(site: Site) -> None:
    """Scale and bias shrink; the statistics are each channel's own, or that of their group."""
    track = site.only_track()
    if track.axis <= 1:
        _per_channel(site, range(1, 3))
        return
    site.average(0, "its statistics run over the channels")
    site.emit(track.axis, track.ids)


def _per_channel(site: Site, vectors: range) -> None:
    track = site.only_track(1)
    for index in vectors:
        site.slice(index, 0, track.ids)
    site.emit(1, track.ids)


@rule("GroupNormalization")
def group_normalization(site: Site) -> None:
    """The channels of a group share statistics: they leave together, and the group with them.

    Or every group loses as many, and the statistics run over those that are left.
    """
    track = site.only_track(1)
    count, width = int(site.attribute("num_groups")), len(track.ids)
    if count < 1 or width % count:
        raise Refused(f"its {width} channels are not {count} groups")
    groups = track.ids.reshape(count, -1)
    thinner = _thins_groups(site, *groups.shape)
    if thinner:
        _tie_columns(site, groups.T)
        site.average(0, "its statistics run over the channels")
    else:
        _tie_columns(site, groups)
        site.follow_attribute("num_groups", groups[:, 0])
    for index in (1, 2):
        if site.opset >= _PER_CHANNEL_SINCE:
            site.slice(index, 0, track.ids)
        elif not thinner:
            site.slice(index, 0, groups[:, 0])
    site.emit(1, track.ids)


def _thins_groups(site: Site, groups: int, width: int) -> bool:
    """Whether all groups lose channels, instead of some of them all: what gives more players."""
    if not site.approximate:
        return False
    return (width > groups) != bool(site.choose(2))


def _tie_columns(site: Site, rows: IntArray) -> None:
    for column in rows.T[1:]:
        site.tie(rows[:, 0], column)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(site: Site) -> None:
    """Channels pass through; the statistics run over other axes."""
    track, rank = site.only_track(), len(site.shape(0))
    if track.axis in [axis % rank for axis in site.attribute("axes", [0, 2, 3])]:
        raise Refused("its statistics run over the channels")
    site.emit(track.axis, track.ids)


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(site: Site) -> None:
    """Statistics over its axis and all behind it, which have a scale and a bias each."""
    track, rank = site.only_track(), len(site.shape(0))
    if track.axis >= int(site.attribute("axis", -1)) % rank:
        site.average(0, "its statistics run over the channels")
        if site.used(1) or site.used(2):
            raise Refused("the statistics that it returns run over the channels")
        for index in (1, 2):
            _slice_broadcast(site, index, track.axis - rank, track.ids)
    site.emit(track.axis, track.ids)


def _slice_broadcast(site: Site, index: int, place: int, ids: IntArray) -> None:
    """A constant shrinks at ``place``, counted from the end, if it is not repeated there."""
    shape = site.weight_shape(index) if site.has(index) else ()
    if len(shape) >= -place and shape[place] != 1:
        site.slice(index, place + len(shape), ids)
