"""From scores and a target to widths: exact counts, limits, targets reached or not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_shapprune.allocation import (
    Limits,
    Target,
    allocate,
    allowed,
    convex,
    rank,
)
from onnx_shapprune.bench import Bench
from onnx_shapprune.cost import CostModel, Quantity
from onnx_shapprune.errors import OptionError
from onnx_shapprune.pipeline import open_bench
from onnx_shapprune.types import FloatArray
from zoo import ZOO

NETS = ("sequential", "residual", "inception", "concat_depthwise", "grouped", "flatten_gemm")
QUANTITIES: tuple[Quantity, ...] = ("macs", "parameters", "bytes")


@cache
def bench(name: str) -> Bench:
    """A net of the zoo."""
    net = ZOO[name]
    return open_bench(net.build(), net.samples(2), absent="zero", provider="cpu")


def costs(name: str = "sequential") -> CostModel:
    """Its costs."""
    return bench(name).costs


def random_scores(name: str, seed: int) -> dict[str, FloatArray]:
    """Any scores."""
    rng = np.random.default_rng(seed)
    return {group.name: rng.normal(size=group.players) for group in bench(name).groups}


def curves(scores: dict[str, FloatArray], seed: int = 0) -> dict[str, FloatArray]:
    """Convex curves of damage, zero for the whole group."""
    rng = np.random.default_rng(seed)
    steps = {name: np.sort(rng.exponential(size=len(v))) for name, v in scores.items()}
    return {name: np.append(np.cumsum(step)[::-1], 0.0) for name, step in steps.items()}


# --- ranks ------------------------------------------------------------------------------


def test_rank_is_from_best_to_worst() -> None:
    np.testing.assert_array_equal(rank(np.array([0.1, 3.0, -2.0, 1.0])), [1, 3, 0, 2])


def test_ties_keep_their_order() -> None:
    np.testing.assert_array_equal(rank(np.array([0.0, 1.0, 0.0, 1.0, 0.0])), [1, 3, 0, 2, 4])
    np.testing.assert_array_equal(rank(np.zeros(100)), np.arange(100))


def test_counts_are_exact_where_all_scores_tie() -> None:
    """A threshold would keep all or none."""
    ties = {group.name: np.zeros(group.players) for group in bench("sequential").groups}
    found = allocate(costs(), ties, Target(0.4), Limits())
    for kept in found.kept.values():
        np.testing.assert_array_equal(kept, np.arange(len(kept)) < kept.sum())
        assert 0 < kept.sum() < len(kept)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_best_players_stay(damaged: bool) -> None:
    scores = random_scores("sequential", 3)
    found = allocate(costs(), scores, Target(0.5), Limits(), curves(scores) if damaged else None)
    for name, kept in found.kept.items():
        if not kept.all():
            assert scores[name][kept].min() > scores[name][~kept].max()


# --- targets ----------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("of", QUANTITIES)
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", NETS)
def test_target_is_met_within_one_channel(
    name: str, keep: float, of: Quantity, damaged: bool
) -> None:
    scores = random_scores(name, 1)
    damage = curves(scores) if damaged else None
    found = allocate(costs(name), scores, Target(keep, of), Limits(), damage)
    smallest = {group: np.arange(len(v)) < 1 for group, v in scores.items()}
    limit = keep * getattr(costs(name).cost(costs(name).full()), of)
    if not found.reached:
        assert getattr(costs(name).cost(smallest), of) > limit
        return
    assert getattr(found.cost, of) <= limit
    for group in (group for group, kept in found.kept.items() if not kept.all()):
        wider = found.kept[group].copy()
        wider[rank(scores[group])[wider.sum()]] = True
        assert getattr(costs(name).cost({**found.kept, group: wider}), of) > limit


@pytest.mark.parametrize("damaged", [False, True])
def test_everything_stays_where_everything_is_asked_for(damaged: bool) -> None:
    scores = random_scores("residual", 0)
    damage = curves(scores) if damaged else None
    found = allocate(costs("residual"), scores, Target(1.0), Limits(), damage)
    assert found.reached
    assert all(kept.all() for kept in found.kept.values())


@pytest.mark.parametrize("damaged", [False, True])
def test_out_of_reach_says_so_and_goes_as_far_as_it_can(damaged: bool) -> None:
    scores = random_scores("sequential", 0)
    damage = curves(scores) if damaged else None
    found = allocate(costs(), scores, Target(1e-6), Limits(), damage)
    assert not found.reached
    assert [int(kept.sum()) for kept in found.kept.values()] == [1, 1, 1]
    found = allocate(costs(), scores, Target(1e-6), Limits(min_channels=2), damage)
    assert [int(kept.sum()) for kept in found.kept.values()] == [2, 2, 2]


def test_cost_is_that_of_the_choice() -> None:
    scores = random_scores("inception", 2)
    found = allocate(costs("inception"), scores, Target(0.5, "bytes"), Limits())
    assert found.cost == costs("inception").cost(found.kept)


def test_groups_without_scores_stay_whole() -> None:
    scores = random_scores("sequential", 5)
    name = next(iter(scores))
    del scores[name]
    found = allocate(costs(), scores, Target(0.8), Limits())
    assert found.kept[name].all()


def test_curves_decide_between_groups() -> None:
    """A group that does no damage shrinks first."""
    scores = random_scores("sequential", 6)
    names = list(scores)
    damage = {name: np.linspace(100, 0, len(v) + 1) for name, v in scores.items()}
    damage[names[1]] = np.linspace(1e-3, 0, len(scores[names[1]]) + 1)
    found = allocate(costs(), scores, Target(0.8), Limits(), damage)
    assert found.reached
    assert found.kept[names[0]].all()
    assert found.kept[names[2]].all()
    assert not found.kept[names[1]].all()


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("name", ["concat_of_sums", "concat_depthwise", "dense", "depthwise"])
def test_no_tensor_is_emptied(name: str, keep: float) -> None:
    """At least one channel of every producer stays, whatever the scores."""
    for seed in range(3):
        scores = random_scores(name, seed)
        for damage in (None, curves(scores)):
            found = allocate(costs(name), scores, Target(keep), Limits(), damage)
            for group in bench(name).groups:
                for part in group.shapes:
                    assert part.kept_positions(found.kept[group.name]).any()


# --- limits -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "limits", "expected"),
    [
        (5, Limits(), [1, 2, 3, 4, 5]),
        (10, Limits(round_to=4), [4, 8, 10]),
        (8, Limits(round_to=4), [4, 8]),
        (3, Limits(round_to=4), [3]),
        (10, Limits(min_channels=6), [6, 7, 8, 9, 10]),
        (10, Limits(round_to=4, min_channels=5), [8, 10]),
        (10, Limits(min_channels=20), [10]),
        (10, Limits(round_to=3, min_channels=10), [10]),
        (1, Limits(), [1]),
    ],
)
def test_allowed_widths(players: int, limits: Limits, expected: list[int]) -> None:
    assert list(allowed(players, limits)) == expected


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("round_to", [1, 2, 3, 4])
@pytest.mark.parametrize("least", [1, 2, 4])
def test_widths_keep_to_the_limits(least: int, round_to: int, damaged: bool) -> None:
    limits = Limits(round_to, least)
    scores = random_scores("inception", least)
    damage = curves(scores) if damaged else None
    found = allocate(costs("inception"), scores, Target(0.5), limits, damage)
    for name, kept in found.kept.items():
        assert int(kept.sum()) in allowed(len(scores[name]), limits)


@pytest.mark.parametrize("field", ["round_to", "min_channels"])
def test_limits_below_one(field: str) -> None:
    option = "--" + field.replace("_", "-")
    with pytest.raises(OptionError, match=f"{option} must be at least 1, it is 0"):
        Limits(**{field: 0})


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, float("nan")])
def test_targets_that_mean_nothing(keep: float) -> None:
    with pytest.raises(OptionError, match="--keep must be above 0 and at most 1"):
        Target(keep)


def test_unknown_quantity() -> None:
    with pytest.raises(OptionError, match="unknown quantity 'flops'"):
        Target(0.5, "flops")  # type: ignore[arg-type]


# --- convex curves ----------------------------------------------------------------------


def test_convex_worked_out_by_hand() -> None:
    found = convex(np.array([9.0, 8.0, 7.0, 2.0, 3.0, 0.0]))
    np.testing.assert_allclose(found[1:], [8, 5, 2, 1, 0])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20))
def test_convex_is_convex_and_below(values: list[float]) -> None:
    damage = np.array(values)
    found = convex(damage)
    assert (found[1:] <= damage[1:] + 1e-9).all()
    assert (np.diff(found[1:], 2) >= -1e-9).all()
    np.testing.assert_allclose(found[[1, -1]], damage[[1, -1]])
