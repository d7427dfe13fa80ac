"""What the registry knows of an estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_shapprune.types import Estimate, Game

Run = Callable[[Game, int, np.random.Generator], Estimate]
Evaluations = Callable[[int], int]


@dataclass(frozen=True)
class Estimator:
    """One way to value the players of a game of n >= 1 players.

    ``run(game, budget, rng)`` asks for the worth of at most ``budget`` coalitions;
    ``needed(n)`` is the smallest budget that it accepts and ``auto(n)`` the one it
    chooses itself. ``plays`` is False where no coalition is evaluated at all.
    """

    name: str
    run: Run
    needed: Evaluations
    auto: Evaluations
    plays: bool
