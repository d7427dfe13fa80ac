"""Games with known Shapley values, which count and check what they are asked.

Values follow from formulas of the literature or from sums of unanimity games, never from
the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx_shapprune.types import BoolArray, FloatArray

Rule = Callable[[BoolArray], FloatArray]
Carriers = Sequence[Sequence[int]]


@dataclass(eq=False)
class KnownGame:
    """A game of ``rule`` whose ``shapley`` values, float64[n], are known.

    ``calls`` keeps the coalitions of every call of ``worth``.
    """

    rule: Rule
    shapley: FloatArray
    calls: list[BoolArray] = field(default_factory=list)

    @property
    def players(self) -> int:
        """Number of players."""
        return len(self.shapley)

    @property
    def asked(self) -> int:
        """Coalitions asked for so far."""
        return sum(len(call) for call in self.calls)

    def worth(self, coalitions: BoolArray) -> FloatArray:
        """Worth of each coalition, bool[m, n] to float64[m]; m is at least 1."""
        assert coalitions.dtype == np.bool_
        assert coalitions.shape == (len(coalitions), self.players)
        assert len(coalitions) >= 1
        self.calls.append(coalitions.copy())
        return self.rule(coalitions)

    def total(self) -> float:
        """v(N) - v(empty), without counting."""
        ends = self.rule(np.repeat([[False], [True]], self.players, axis=1))
        return float(ends[1] - ends[0])


@dataclass(eq=False)
class SalientGame(KnownGame):
    """A game that also has saliencies, each criterion with other numbers."""

    def saliency(self, name: str) -> FloatArray:
        """1, 2, ... n for "l1", zeros for anything else."""
        return np.arange(1.0, self.players + 1) * (name == "l1")


def additive(weights: Sequence[float], empty: float = 0.0) -> KnownGame:
    """Worth ``empty`` plus the weights of those present; each is worth its weight."""
    weight = np.array(weights, np.float64)
    return KnownGame(lambda present: empty + present @ weight, weight)


def pairwise(players: int, seed: int, empty: float = 0.25) -> KnownGame:
    """Random weights and random weights of pairs; each pair shares its weight equally."""
    rng = np.random.default_rng(seed)
    alone = rng.normal(size=players)
    pairs = np.triu(rng.normal(size=(players, players)), 1)

    def rule(present: BoolArray) -> FloatArray:
        inside = present.astype(np.float64)
        result: FloatArray = empty + inside @ alone + ((inside @ pairs) * inside).sum(axis=1)
        return result

    return KnownGame(rule, alone + (pairs.sum(axis=0) + pairs.sum(axis=1)) / 2)


def airport(costs: Sequence[float]) -> KnownGame:
    """Worth is the largest cost present (Littlechild and Owen 1973).

    Each stretch of the runway is paid in equal parts by all who need it.
    """
    cost = np.array(costs, np.float64)
    order = np.argsort(cost)
    stretch = np.diff(cost[order], prepend=0.0)
    share = np.cumsum(stretch / np.arange(len(cost), 0, -1))
    return KnownGame(lambda present: (present * cost).max(axis=1), share[np.argsort(order)])


def unanimity(players: int, carrier: Sequence[int]) -> KnownGame:
    """Worth 1 once all of ``carrier`` are present (Shapley 1953); they share it equally."""
    return sum_of_unanimity(players, [carrier], [1.0])


def sum_of_unanimity(players: int, carriers: Carriers, weights: Sequence[float]) -> KnownGame:
    """Weighted sum of unanimity games: every game is one; values add up."""
    # float32 counts players exactly, and is fast.
    members = np.zeros((len(carriers), players), np.float32)
    for row, carrier in zip(members, carriers, strict=True):
        row[list(carrier)] = 1
    weight = np.array(weights, np.float64)

    def rule(present: BoolArray) -> FloatArray:
        missing = (~present).astype(np.float32) @ members.T
        result: FloatArray = (missing == 0) @ weight
        return result

    return KnownGame(rule, (weight / members.sum(axis=1, dtype=np.float64)) @ members)


def random_unanimity(players: int, seed: int, carriers: int = 64, most: int = 8) -> KnownGame:
    """Sum of random unanimity games with carriers of 1 to ``most`` players."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, min(most, players) + 1, carriers)
    chosen = [rng.choice(players, size, replace=False).tolist() for size in sizes]
    return sum_of_unanimity(players, chosen, rng.normal(size=carriers).tolist())


def glove(left: int, right: int) -> KnownGame:
    """Worth is the number of pairs of gloves; ``left`` <= ``right`` (Shapley and Shubik 1969)."""
    assert 1 <= left <= right
    ways = math.factorial(left) * math.factorial(right)
    scarce = sum(
        ways / (math.factorial(left - k) * math.factorial(right + k)) for k in range(1, left + 1)
    )
    of_left = 0.5 + (right - left) / (2 * left) * scarce
    of_right = left * (1 - of_left) / right
    values = np.repeat([of_left, of_right], [left, right])

    def rule(present: BoolArray) -> FloatArray:
        hands = present[:, :left].sum(axis=1), present[:, left:].sum(axis=1)
        return np.asarray(np.minimum(*hands), np.float64)

    return KnownGame(rule, values)


def voting() -> KnownGame:
    """Quota 4, weights 3 1 2 1: the first decides in the 2nd or 3rd of 4 places; rest equal."""
    votes, quota = np.array([3, 1, 2, 1]), 4
    values = np.array([1 / 2, 1 / 6, 1 / 6, 1 / 6])

    def rule(present: BoolArray) -> FloatArray:
        return np.asarray(present @ votes >= quota, np.float64)

    return KnownGame(rule, values)


def table(worths: Sequence[float] | FloatArray) -> KnownGame:
    """Any game, from the worths of all coalitions (bit i: player i); values unknown (nan)."""
    worth = np.array(worths, np.float64)
    players = len(worth).bit_length() - 1
    codes = 2 ** np.arange(players)
    return KnownGame(lambda present: worth[present @ codes], np.full(players, np.nan))


SMALL: dict[str, Callable[[], KnownGame]] = {
    "one player": lambda: additive([2.5], empty=-1.0),
    "two players": lambda: pairwise(2, seed=5),
    "additive": lambda: additive([1.0, -2.0, 0.0, 0.5, 3.0], empty=0.7),
    "pairwise": lambda: pairwise(7, seed=1),
    "airport": lambda: airport([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]),
    "unanimity": lambda: unanimity(6, [1, 3, 4]),
    "sum of unanimity": lambda: random_unanimity(10, seed=2),
    "glove 1 2": lambda: glove(1, 2),
    "glove 2 5": lambda: glove(2, 5),
    "glove 3 3": lambda: glove(3, 3),
    "voting": voting,
}
"""Fresh small games by name, of 1 to 10 players."""
