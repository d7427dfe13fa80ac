"""One rule per operator; importing this package registers them all."""

from . import layout, linear, normalisation, numbers, pointwise, spatial
from .registry import NUMBER_READERS, NUMBER_RULES, PRODUCERS, RULES

__all__ = [
    "NUMBER_READERS",
    "NUMBER_RULES",
    "PRODUCERS",
    "RULES",
    "layout",
    "linear",
    "normalisation",
    "numbers",
    "pointwise",
    "spatial",
]
