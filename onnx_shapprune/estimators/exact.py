"""Shapley values from the worth of every coalition: for small games, and as the truth in tests."""

from __future__ import annotations

import math

import numpy as np

from onnx_shapprune.errors import OptionError
from onnx_shapprune.estimators.base import Estimator
from onnx_shapprune.estimators.budget import require
from onnx_shapprune.types import BoolArray, Estimate, FloatArray, Game

NAME = "exact"
MAX_PLAYERS = 16
CHUNK = 4096
"""Coalitions handed to the game at once, so that its memory stays bounded."""


def needed(players: int) -> int:
    """2^n evaluations: one for every coalition.

    Raises:
        OptionError: more than ``MAX_PLAYERS`` players.
    """
    if players > MAX_PLAYERS:
        raise OptionError(
            f"{NAME} is limited to {MAX_PLAYERS} players, the group has {players}",
            "give --estimator permutation, or leave-one-out",
        )
    return int(2**players)


def estimate(game: Game, budget: int, rng: np.random.Generator) -> Estimate:
    """Shapley values by definition (Shapley 1953, "A Value for n-Person Games").

    phi_i = sum over S without i of |S|! (n-|S|-1)! / n! * (v(S+i) - v(S)), with 2^n
    evaluations. ``value`` is float64[n] in units of worth, ``stderr`` is 0; ``rng`` is
    not used.

    Raises:
        OptionError: more than ``MAX_PLAYERS`` players.
        BudgetTooSmall: ``budget`` < 2^n.
    """
    n = game.players
    require(NAME, n, needed(n), budget)
    worth = _all_worths(game)
    weights = _weights(n)
    value = np.array([weights @ _marginals(worth, player) for player in range(n)])
    return Estimate(value, np.zeros(n), len(worth))


def _all_worths(game: Game) -> FloatArray:
    """Worth of every coalition; bit i of the index says whether player i is present."""
    count = 2**game.players
    starts = range(0, count, CHUNK)
    chunks = (_coalitions(at, min(at + CHUNK, count), game.players) for at in starts)
    return np.concatenate([game.worth(chunk) for chunk in chunks])


def _coalitions(start: int, stop: int, players: int) -> BoolArray:
    codes = np.arange(start, stop)[:, None]
    return (codes >> np.arange(players) & 1).astype(np.bool_)


def _marginals(worth: FloatArray, player: int) -> FloatArray:
    """v(S+i) - v(S) for the 2^(n-1) coalitions S of the others.

    The others keep their order when bit i is dropped from the index, so the sizes of S,
    and with them the weights, come in the same order for every player.
    """
    halves = worth.reshape(-1, 2, 2**player)
    return (halves[:, 1] - halves[:, 0]).ravel()


def _weights(players: int) -> FloatArray:
    """|S|! (n-|S|-1)! / n! for the 2^(n-1) coalitions S of the others."""
    others = players - 1
    by_size = np.array([1 / (players * math.comb(others, size)) for size in range(players)])
    weights: FloatArray = by_size[_coalitions(0, 2**others, others).sum(axis=1)]
    return weights


ESTIMATOR = Estimator(NAME, estimate, needed, auto=needed, plays=True)
