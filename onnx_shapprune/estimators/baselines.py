"""Values that cost no evaluation: what an estimator has to beat."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnx_shapprune.errors import OptionError
from onnx_shapprune.estimators.base import Estimator
from onnx_shapprune.types import Estimate, Game, Salient


def needed(players: int) -> int:
    """No evaluations, however many ``players``."""
    return 0


def random(game: Game, budget: int, rng: np.random.Generator) -> Estimate:
    """Uniform values in [0, 1), float64[n], without unit and without any evaluation.

    ``stderr`` is 0 and ``budget`` is not used: this is not an estimate of anything.
    """
    return Estimate(rng.random(game.players), np.zeros(game.players), 0)


def l1(game: Game, budget: int, rng: np.random.Generator) -> Estimate:
    """The game's own saliency "l1", float64[n] in the unit of its weights; no evaluation.

    ``stderr`` is 0, ``budget`` and ``rng`` are not used: this is not an estimate of
    anything.

    Raises:
        OptionError: the game is not ``Salient``.
    """
    if not hasattr(game, "saliency"):
        raise OptionError("l1 needs a game with saliencies", "give --estimator permutation")
    value = cast("Salient", game).saliency("l1")
    return Estimate(value, np.zeros(game.players), 0)


RANDOM = Estimator("random", random, needed, auto=needed, plays=False)
L1 = Estimator("l1", l1, needed, auto=needed, plays=False)
