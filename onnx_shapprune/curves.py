"""Damage curves: the worth a group loses when only its best players stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .allocation import convex, ranking
from .bench import Bench
from .game import ChannelGame
from .metrics import Metric
from .progress import stage
from .types import BoolArray, FloatArray, IntArray, Progress

_POINTS = 10


def damage_curves(
    bench: Bench, scores: Mapping[str, FloatArray], metric: Metric, progress: Progress
) -> dict[str, FloatArray]:
    """Worth lost by keeping the best k players of one group, all other groups complete.

    Measured at about ten counts, linear in between, and made convex.

    Args:
        bench: Model and samples.
        scores: Per group one score per player, float64[players].
        metric: What worth is.
        progress: Told of every measured count.

    Returns:
        Per group float64[players + 1], indexed by the number of players kept.
    """
    counts = {name: _counts(len(values)) for name, values in scores.items()}
    curves = {}
    with stage(progress, "widths", sum(len(c) for c in counts.values())):
        for group in (group for group in bench.groups if group.name in scores):
            best = _best(ranking(scores[group.name], group), counts[group.name])
            with bench.player(group) as (model, executor):
                game = ChannelGame(group, model, metric, executor, progress)
                curves[group.name] = _curve(counts[group.name], -game.worth(np.stack(best)))
    return curves


def _counts(players: int) -> IntArray:
    return np.unique(np.linspace(1, players, _POINTS + 1).round().astype(np.int64))


def _best(order: IntArray, counts: IntArray) -> list[BoolArray]:
    """Masks of the first k players for each count."""
    places = np.argsort(order)
    return [places < count for count in counts]


def _curve(counts: IntArray, damages: FloatArray) -> FloatArray:
    return convex(np.interp(np.arange(counts[-1] + 1), counts, damages))
