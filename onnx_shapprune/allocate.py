"""How many players each group keeps, and which: from scores and a target to a choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from .cost import CostModel, Quantity
from .errors import OptionError
from .types import BoolArray, Cost, FloatArray, IntArray


@dataclass(frozen=True)
class Limits:
    """What widths are allowed: at least ``min_channels``, in multiples of ``round_to``."""

    round_to: int = 1
    min_channels: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("round_to", "min_channels"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise OptionError(f"{option} must be at least 1, it is {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Target:
    """The cost to come down to: ``keep`` (0, 1] of the model's ``of``."""

    keep: float
    of: Quantity = "macs"

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.keep <= 1:
            raise OptionError(
                f"--keep must be above 0 and at most 1, it is {self.keep}",
                "--keep 0.5 keeps half of the cost",
            )
        if self.of not in get_args(Quantity):
            raise OptionError(f"unknown quantity '{self.of}'", "macs, parameters or bytes")


@dataclass(frozen=True, eq=False)
class Allocation:
    """Which players stay (``kept[group]``, bool[players]), what that costs, if it's enough."""

    kept: Mapping[str, BoolArray]
    cost: Cost
    reached: bool


def rank(values: FloatArray) -> IntArray:
    """Players from most to least important; ties keep their order, so counts are exact."""
    return np.argsort(-values, kind="stable")


def allocate(
    costs: CostModel, scores: Mapping[str, FloatArray], target: Target, limits: Limits
) -> Allocation:
    """Keep the same share of every group, as large as the target allows.

    What is left below the target goes to the groups that rounding hurt most, channel by
    channel.

    Args:
        costs: Costs of the model.
        scores: Per group one score per player, larger is more important.
        target: The cost to come down to.
        limits: Widths that are allowed.
    """
    search = _Search(costs, scores, target, limits)
    share = search.largest_share()
    return search.fill_up(share)


class _Search:
    def __init__(
        self,
        costs: CostModel,
        scores: Mapping[str, FloatArray],
        target: Target,
        limits: Limits,
    ) -> None:
        self._costs = costs
        self._ranks = {name: rank(values) for name, values in scores.items()}
        self._widths = {name: allowed(len(r), limits) for name, r in self._ranks.items()}
        self._of = target.of
        self._limit = target.keep * getattr(costs.cost(costs.full()), target.of)

    def largest_share(self) -> float:
        """The largest share of every group that stays within the target, by bisection."""
        low, high = 0.0, 1.0
        if self._fits(self._counts(high)):
            return high
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(self._counts(middle)) else (low, middle)
        return low

    def fill_up(self, share: float) -> Allocation:
        """Round the share up instead of down where the target allows it."""
        counts = self._counts(share)
        reached = self._fits(counts)
        shortage = {name: share * len(self._ranks[name]) - counts[name] for name in counts}
        for name in sorted(counts, key=lambda name: -shortage[name]):
            wider = self._next_width(name, counts[name])
            if reached and wider is not None and self._fits({**counts, name: wider}):
                counts[name] = wider
        kept = self._kept(counts)
        return Allocation(kept, self._costs.cost(kept), reached)

    def _counts(self, share: float) -> dict[str, int]:
        """Per group the largest allowed width of at most this share."""
        return {
            name: max((w for w in widths if w <= share * widths[-1] + 1e-9), default=widths[0])
            for name, widths in self._widths.items()
        }

    def _next_width(self, name: str, count: int) -> int | None:
        return next((w for w in self._widths[name] if w > count), None)

    def _fits(self, counts: Mapping[str, int]) -> bool:
        cost: int = getattr(self._costs.cost(self._kept(counts)), self._of)
        return bool(cost <= self._limit + 1e-6)

    def _kept(self, counts: Mapping[str, int]) -> dict[str, BoolArray]:
        kept = self._costs.full()
        for name, count in counts.items():
            kept[name][self._ranks[name][count:]] = False
        return kept


def allowed(players: int, limits: Limits) -> Sequence[int]:
    """Widths a group may have, ascending; its full width is always one of them."""
    least = min(max(limits.min_channels, 1), players)
    first = math.ceil(least / limits.round_to) * limits.round_to
    return [*range(first, players, limits.round_to), players]
