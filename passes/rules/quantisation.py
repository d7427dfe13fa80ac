"""Operators between floats and integers."""

from __future__ import annotations

from .effects import Refused
from .registry import rule
from .site import Site


@rule("QuantizeLinear", "DequantizeLinear")
@rule("com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear")
def quantise(site: Site) -> None:
    """Channels pass through; a scale and a zero point per channel shrink with them."""
    track = site.only_track()
    axis = int(site.attribute("axis", 1)) % max(len(site.shape(0)), 1)
    for index in (1, 2):
        if not site.has(index):
            continue
        shape = site.weight_shape(index, "parameter")
        if len(shape) > 1:
            raise Refused("it quantises in blocks")
        if shape not in ((), (1,)) and axis == track.axis:
            site.slice(index, 0, track.ids)
    site.emit(track.axis, track.ids)


@rule("DynamicQuantizeLinear")
def quantise_by_range(site: Site) -> None:
    """They all stay: it takes its scale from the values."""
    raise Refused("its scale is taken from the range of all channels")
