"""Normalisations with statistics and parameters per channel."""

from __future__ import annotations

from .effects import Refused
from .registry import rule
from .site import Site


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
