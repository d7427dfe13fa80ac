"""Shapley values from random orders of the players, each together with its reverse."""

from __future__ import annotations

import math

import numpy as np

from onnx_shapprune.estimators.base import Estimator
from onnx_shapprune.estimators.budget import require
from onnx_shapprune.types import BoolArray, Estimate, FloatArray, Game, IntArray

NAME = "permutation"
MIN_PAIRS = 2
"""Fewest pairs that have a standard error."""
AUTO_PER_PLAYER = 8
_ENDS = 2  # v(empty) and v(N), shared by all orders


def needed(players: int) -> int:
    """4n - 2 evaluations: v(empty), v(N) and ``MIN_PAIRS`` pairs of 2(n-1)."""
    return _ENDS + MIN_PAIRS * _per_pair(players)


def auto(players: int) -> int:
    """8n evaluations (above ``needed`` for every n): four pairs, more for n < 5."""
    return AUTO_PER_PLAYER * players


def estimate(game: Game, budget: int, rng: np.random.Generator) -> Estimate:
    """Mean marginal worth over random orders (Castro et al. 2009), in antithetic pairs.

    Each pair is an order and its reverse (Mitchell et al. 2022, "Sampling Permutations for
    Shapley Value Estimation"), which is exact where players interact at most two by two.
    As many complete pairs are played as ``budget`` allows, one call of ``game.worth`` each.

    ``value`` is float64[n] in units of worth and sums to v(N) - v(empty). ``stderr`` is
    float64[n], the standard deviation of the pair means over the root of their number k:
    an interval takes Student's t with k - 1 degrees of freedom. Rare marginals may be
    missing from all pairs, so below some 16 pairs such intervals are too narrow (95 %
    ones cover about 90 % with 4), and a ``stderr`` of 0 does not prove a value exact.

    Raises:
        BudgetTooSmall: ``budget`` < 4n - 2.
    """
    n = game.players
    require(NAME, n, needed(n), budget)
    pairs = _pairs(n, budget)
    ends = game.worth(np.repeat([[False], [True]], n, axis=1))
    means = np.stack([_pair_mean(game, ends, rng.permutation(n)) for _ in range(pairs)])
    stderr = means.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Estimate(means.mean(axis=0), stderr, _ENDS + pairs * _per_pair(n))


def _per_pair(players: int) -> int:
    return 2 * (players - 1)


def _pairs(players: int, budget: int) -> int:
    # One player has one order, which is known from the ends alone.
    return MIN_PAIRS if players == 1 else (budget - _ENDS) // _per_pair(players)


def _pair_mean(game: Game, ends: FloatArray, order: IntArray) -> FloatArray:
    """Mean gain of each player, float64[n], along ``order`` and along its reverse."""
    if len(order) == 1:
        return np.diff(ends)
    heads = _heads(order)
    # What a head leaves out is a head of the reverse; turned round, sizes rise again.
    worth = game.worth(np.concatenate([heads, ~heads[::-1]]))
    forward, backward = np.split(worth, 2)
    return (_gains(ends, forward, order) + _gains(ends, backward, order[::-1])) / 2


def _heads(order: IntArray) -> BoolArray:
    """The first 1, 2, ... n-1 players of ``order`` as coalitions, bool[n-1, n]."""
    place = np.argsort(order)
    return place < np.arange(1, len(order))[:, None]


def _gains(ends: FloatArray, inner: FloatArray, order: IntArray) -> FloatArray:
    """What each player adds when it joins, from the worths float64[n-1] between the ends."""
    gains = np.empty(len(order))
    gains[order] = np.diff(inner, prepend=ends[0], append=ends[1])
    return gains


ESTIMATOR = Estimator(NAME, estimate, needed, auto, plays=True)
