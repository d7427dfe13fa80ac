"""What is lost when one player leaves the full coalition."""

from __future__ import annotations

import numpy as np

from onnx_shapprune.estimators.base import Estimator
from onnx_shapprune.estimators.budget import require
from onnx_shapprune.types import Estimate, Game

NAME = "leave-one-out"


def needed(players: int) -> int:
    """The full coalition, and each without one player: n + 1 evaluations."""
    return players + 1


def estimate(game: Game, budget: int, rng: np.random.Generator) -> Estimate:
    """Leave-one-out values v(N) - v(N without i), in one call of n + 1 coalitions.

    ``value`` is float64[n] in units of worth. They are no Shapley values and don't sum to
    v(N) - v(empty); ``stderr`` is 0 because nothing is sampled, and ``rng`` is not used.

    Raises:
        BudgetTooSmall: ``budget`` < n + 1.
    """
    n = game.players
    require(NAME, n, needed(n), budget)
    worth = game.worth(np.vstack([np.ones(n, np.bool_), ~np.eye(n, dtype=np.bool_)]))
    return Estimate(worth[0] - worth[1:], np.zeros(n), len(worth))


ESTIMATOR = Estimator(NAME, estimate, needed, auto=needed, plays=True)
