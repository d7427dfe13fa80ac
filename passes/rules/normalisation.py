"""Normalisations: exact where no statistics run over channels that leave one by one."""

from __future__ import annotations

from .effects import Refused
from .registry import rule
from .site import Site

_PER_CHANNEL_SINCE = 21
"""Since this opset GroupNormalization has a scale per channel, before one per group."""


@rule("BatchNormalization")
def batch_normalization(site: Site) -> None:
    """Four vectors shrink with the channels."""
    if site.attribute("training_mode", 0) or site.used(1):
        raise Refused("it is in training mode: its statistics change with every batch")
    if site.attribute("spatial", 1) != 1:
        raise Refused("its statistics are per element, not per channel")
    _per_channel(site, range(1, 5))


@rule("InstanceNormalization")
def instance_normalization(site: Site) -> None:
    """Scale and bias shrink; the statistics are each channel's own."""
    _per_channel(site, range(1, 3))


def _per_channel(site: Site, vectors: range) -> None:
    track = site.only_track(1)
    for index in vectors:
        site.slice(index, 0, track.ids)
    site.emit(1, track.ids)


@rule("GroupNormalization")
def group_normalization(site: Site) -> None:
    """The channels of a group share statistics: they leave together, and the group with them."""
    track = site.only_track(1)
    count, width = int(site.attribute("num_groups")), len(track.ids)
    if count < 1 or width % count:
        raise Refused(f"its {width} channels are not {count} groups")
    groups = track.ids.reshape(count, -1)
    for column in groups.T[1:]:
        site.tie(groups[:, 0], column)
    site.follow_attribute("num_groups", groups[:, 0])
    per_channel = site.opset >= _PER_CHANNEL_SINCE
    for index in (1, 2):
        site.slice(index, 0, track.ids if per_channel else groups[:, 0])
    site.emit(1, track.ids)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(site: Site) -> None:
    """Statistics over other axes."""
    track, rank = site.only_track(), len(site.shape(0))
    if track.axis in [axis % rank for axis in site.attribute("axes", [0, 2, 3])]:
        raise Refused("its statistics run over the channels")
    site.emit(track.axis, track.ids)


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(site: Site) -> None:
    """Statistics over its axis and all behind it, where the channels are not."""
    track, rank = site.only_track(), len(site.shape(0))
    if track.axis >= int(site.attribute("axis", -1)) % rank:
        raise Refused("its statistics run over the channels")
    site.emit(track.axis, track.ids)
