"""Estimators of what each player of a game is worth, by name.

They know a ``Game`` and nothing of models. Every game has at least one player.
"""

from __future__ import annotations

import numpy as np

from onnx_shapprune.errors import OptionError
from onnx_shapprune.estimators import baselines, exact, leave_one_out, permutation
from onnx_shapprune.estimators.base import Estimator
from onnx_shapprune.estimators.budget import Budget, require
from onnx_shapprune.types import Estimate, Game

__all__ = ["ESTIMATORS", "NAMES", "Budget", "Estimator", "allowance", "estimate", "estimator"]

ESTIMATORS: tuple[Estimator, ...] = (
    permutation.ESTIMATOR,
    exact.ESTIMATOR,
    leave_one_out.ESTIMATOR,
    baselines.RANDOM,
    baselines.L1,
)
NAMES: tuple[str, ...] = tuple(each.name for each in ESTIMATORS)
_BY_NAME = {each.name: each for each in ESTIMATORS}


def estimator(name: str) -> Estimator:
    """The estimator of this name.

    Raises:
        OptionError: no estimator has it.
    """
    if name not in _BY_NAME:
        raise OptionError(f"there is no estimator {name!r}", f"give one of {', '.join(NAMES)}")
    return _BY_NAME[name]


def allowance(name: str, players: int, budget: Budget) -> int:
    """Evaluations that ``estimate`` may spend on a game of ``players`` (at least 1).

    Evaluates nothing, so that all games can be checked before the first is played.

    Raises:
        OptionError: unknown ``name``, or more players than the estimator can take.
        BudgetTooSmall: the estimator needs more than ``budget`` allows.
    """
    chosen = estimator(name)
    allowed = budget.evaluations(players, chosen.auto(players))
    require(name, players, chosen.needed(players), allowed)
    return allowed


def estimate(name: str, game: Game, budget: Budget, rng: np.random.Generator) -> Estimate:
    """Value every player of ``game`` with the estimator ``name``.

    Draws come from a child of ``rng``: with one ``rng`` for several games, what one of
    them draws does not shift the others. ``value`` and ``stderr`` are float64[n] in units
    of worth (for "l1" of weights, for "random" of nothing); ``evaluations`` is never
    more than ``allowance(name, game.players, budget)``.

    Raises:
        OptionError: as in ``allowance``, or "l1" for a game that is not ``Salient``.
        BudgetTooSmall: raised before the first evaluation.
    """
    allowed = allowance(name, game.players, budget)
    return estimator(name).run(game, allowed, rng.spawn(1)[0])
