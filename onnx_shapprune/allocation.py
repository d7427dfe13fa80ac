"""How many players each group keeps, and which: from scores and a target to a choice."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from .cost import CostModel, Quantity
from .errors import OptionError
from .types import NOBODY, BoolArray, ChannelGroup, Cost, FloatArray, IntArray

_BISECTIONS = 30
_STEPS = 32


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


def ranking(values: FloatArray, group: ChannelGroup) -> IntArray:
    """Players from most to least important, those first that no tensor can do without."""
    first = essential(values, group)
    order = rank(values)
    return np.concatenate([first, order[~np.isin(order, first)]])


def essential(values: FloatArray, group: ChannelGroup) -> IntArray:
    """The best player of every tensor of the group, so that none loses all its channels."""
    order = rank(values)
    found: list[int] = []
    for cut in (*group.shapes, *group.weights):
        owners = np.unique(cut.owner[cut.owner != NOBODY])
        if not np.isin(found, owners).any():
            found.append(int(order[np.isin(order, owners)][0]))
    return order[np.isin(order, found)]


def allocate(
    costs: CostModel,
    scores: Mapping[str, FloatArray],
    target: Target,
    limits: Limits,
    damage: Mapping[str, FloatArray] | None = None,
) -> Allocation:
    """Find the widest choice within the target.

    With damage curves, widths shrink step by step where that costs least worth per unit of
    cost. Without, every group keeps the same share.

    Args:
        costs: Costs of the model.
        scores: Per group one score per player, larger is more important.
        target: The cost to come down to.
        limits: Widths that are allowed.
        damage: Per group the worth lost with only the best k players, float64[players + 1]
            (index 0 is not used), convex.
    """
    widths = _Widths(costs, scores, target, limits)
    counts = _same_share(widths) if damage is None else _by_damage(widths, damage)
    reached = widths.fits(counts)
    kept = widths.kept(counts)
    return Allocation(kept, costs.cost(kept), reached)


class _Widths:
    """The widths each group may have, and what any choice of them costs."""

    def __init__(
        self,
        costs: CostModel,
        scores: Mapping[str, FloatArray],
        target: Target,
        limits: Limits,
    ) -> None:
        self._costs = costs
        groups = costs.groups
        self._ranks = {name: ranking(values, groups[name]) for name, values in scores.items()}
        self.allowed = {
            name: allowed(len(values), limits, len(essential(values, groups[name])))
            for name, values in scores.items()
        }
        self._of = target.of
        self._limit = target.keep * getattr(costs.cost(costs.full()), target.of)

    def cost(self, counts: Mapping[str, int]) -> int:
        """The quantity that the target is about."""
        cost: int = getattr(self._costs.cost(self.kept(counts)), self._of)
        return cost

    def fits(self, counts: Mapping[str, int]) -> bool:
        """Whether a choice is within the target."""
        return bool(self.cost(counts) <= self._limit + 1e-6)

    def kept(self, counts: Mapping[str, int]) -> dict[str, BoolArray]:
        """The best players of each group; groups without scores stay whole."""
        kept = self._costs.full()
        for name, count in counts.items():
            kept[name][self._ranks[name][count:]] = False
        return kept

    def widened(self, counts: Mapping[str, int], order: Sequence[str]) -> dict[str, int]:
        """Each group in turn gets its next width, if the target allows it."""
        result = dict(counts)
        for name in order:
            wider = next((w for w in self.allowed[name] if w > result[name]), None)
            if wider is not None and self.fits({**result, name: wider}):
                result[name] = wider
        return result


def _same_share(widths: _Widths) -> dict[str, int]:
    """The largest share that all groups can keep, by bisection; rounded up where possible."""
    low, high = 0.0, 1.0
    if widths.fits(_share(widths, high)):
        return _share(widths, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if widths.fits(_share(widths, middle)) else (low, middle)
    return _given_back(widths, _share(widths, low))


def _share(widths: _Widths, share: float) -> dict[str, int]:
    """Per group the largest allowed width of at most this share."""
    return {
        name: max((w for w in choice if w <= share * choice[-1] + 1e-9), default=choice[0])
        for name, choice in widths.allowed.items()
    }


def _by_damage(widths: _Widths, damage: Mapping[str, FloatArray]) -> dict[str, int]:
    """Descend from full width; then try what a wider group is worth to the others."""
    full = {name: choice[-1] for name, choice in widths.allowed.items()}
    best = _descend(widths, damage, full)
    if not widths.fits(best):
        return best
    for name in sorted(best):
        wider = next((w for w in widths.allowed[name] if w > best[name]), None)
        if wider is None:
            continue
        tried = _descend(widths, damage, {**best, name: wider}, held=name)
        if widths.fits(tried) and _total(damage, tried) < _total(damage, best):
            best = tried
    return best


def _total(damage: Mapping[str, FloatArray], counts: Mapping[str, int]) -> float:
    return sum(float(damage[name][count]) for name, count in counts.items())


def _descend(
    widths: _Widths, damage: Mapping[str, FloatArray], start: Mapping[str, int], held: str = ""
) -> dict[str, int]:
    """Shrink all but ``held`` where it does least damage per unit of cost, down to the target.

    A step saves less the narrower its neighbours have become, so an old price is never too
    high: a popped step is taken if its new price is still the lowest.
    """
    counts = dict(start)
    queue = [(0.0, name) for name in counts if name != held]
    now = widths.cost(counts)
    while queue and not widths.fits(counts):
        _, name = heapq.heappop(queue)
        narrower = _step_down(widths.allowed[name], counts[name])
        if narrower is None:
            continue
        then = widths.cost({**counts, name: narrower})
        loss = float(damage[name][narrower] - damage[name][counts[name]])
        price = loss / max(now - then, 1e-9)
        if queue and price > queue[0][0]:
            heapq.heappush(queue, (price, name))
            continue
        counts[name], now = narrower, then
        heapq.heappush(queue, (price, name))
    return _given_back(widths, counts)


def _step_down(choice: Sequence[int], count: int) -> int | None:
    """The next narrower width; wide groups take several channels at a time."""
    stride = max(1, len(choice) // _STEPS)
    position = bisect_left(choice, count)
    return choice[max(position - stride, 0)] if position > 0 else None


def _given_back(widths: _Widths, counts: dict[str, int]) -> dict[str, int]:
    """Use up what is left of the target, channel by channel, the most narrowed group first."""
    if not widths.fits(counts):
        return counts
    for _ in range(_STEPS):
        order = sorted(counts, key=lambda name: counts[name] / widths.allowed[name][-1])
        wider = widths.widened(counts, order)
        if wider == counts:
            break
        counts = wider
    return counts


def convex(damage: FloatArray) -> FloatArray:
    """The largest convex curve below ``damage`` (float64[n + 1]; index 0 is left out)."""
    corners: list[int] = []
    for k in range(1, len(damage)):
        while len(corners) > 1 and _is_above(damage, corners[-2], corners[-1], k):
            corners.pop()
        corners.append(k)
    return np.interp(np.arange(len(damage)), corners, damage[corners])


def _is_above(damage: FloatArray, left: int, middle: int, right: int) -> bool:
    """Whether a point lies on or above the line between its neighbours."""
    slope = (damage[right] - damage[left]) / (right - left)
    return bool(damage[middle] >= damage[left] + slope * (middle - left))


def allowed(players: int, limits: Limits, least: int = 1) -> Sequence[int]:
    """Widths a group may have, ascending; its full width is always one of them."""
    least = min(max(limits.min_channels, least), players)
    first = math.ceil(least / limits.round_to) * limits.round_to
    return [*range(first, players, limits.round_to), players]
