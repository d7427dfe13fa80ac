"""One rule per operator; importing this package registers them all."""

from . import (
    along,
    layout,
    linear,
    normalisation,
    numbers,
    pointwise,
    quantisation,
    selection,
    spatial,
)
from .registry import NUMBER_READERS, NUMBER_RULES, PRODUCERS, RULES

__all__ = [
    "NUMBER_READERS",
    "NUMBER_RULES",
    "PRODUCERS",
    "RULES",
    "along",
    "layout",
    "linear",
    "normalisation",
    "numbers",
    "pointwise",
    "quantisation",
    "selection",
    "spatial",
]
