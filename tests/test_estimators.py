"""Estimators against games whose values are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import (
    SMALL,
    KnownGame,
    SalientGame,
    additive,
    airport,
    pairwise,
    random_unanimity,
    sum_of_unanimity,
    table,
    unanimity,
)
from onnx_shapprune.errors import BudgetTooSmall, OptionError
from onnx_shapprune.estimators import (
    ESTIMATORS,
    NAMES,
    Budget,
    allowance,
    estimate,
    estimator,
    exact,
    permutation,
)
from onnx_shapprune.types import BoolArray, Estimate, FloatArray

AUTO = Budget()
FREE = ("random", "l1")
PLAYING = ("permutation", "exact", "leave-one-out")

every_small = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())
every_name = pytest.mark.parametrize("name", NAMES)


def run(name: str, game: KnownGame, evaluations: int | None = None, seed: int = 0) -> Estimate:
    return estimate(name, game, Budget(evaluations), np.random.default_rng(seed))


def run_pairs(game: KnownGame, pairs: int, seed: int = 0) -> Estimate:
    return run("permutation", game, 2 + pairs * 2 * (game.players - 1), seed)


def salient(players: int) -> SalientGame:
    known = airport([*range(1, players + 1)])
    return SalientGame(known.rule, known.shapley)


# --- the registry ----------------------------------------------------------------


def test_names() -> None:
    assert NAMES == ("permutation", "exact", "leave-one-out", "random", "l1")
    assert [estimator(name) for name in NAMES] == list(ESTIMATORS)
    assert {each.name for each in ESTIMATORS if each.plays} == set(PLAYING)


def test_unknown_estimator_lists_the_known() -> None:
    with pytest.raises(OptionError, match=r"^there is no estimator 'shapely'$") as caught:
        run("shapely", additive([1.0]))
    assert caught.value.hint == "give one of permutation, exact, leave-one-out, random, l1"


@every_name
@pytest.mark.parametrize("players", [1, 2, 3, 7])
def test_one_finite_float_per_player(name: str, players: int) -> None:
    result = run(name, salient(players))
    for numbers in (result.value, result.stderr):
        assert numbers.shape == (players,)
        assert numbers.dtype == np.float64
        assert np.isfinite(numbers).all()


@pytest.mark.parametrize("name", PLAYING)
def test_one_player_gets_everything(name: str) -> None:
    game = additive([2.5], empty=-1.0)
    result = run(name, game)
    assert result.value == pytest.approx([2.5], abs=1e-15)
    assert result.stderr == pytest.approx([0.0], abs=0)
    assert result.evaluations == game.asked == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("permutation", "random")])
def test_unsampled_values_have_no_error_and_no_seed(name: str) -> None:
    first, second = (run(name, salient(6), seed=seed) for seed in (1, 2))
    assert np.array_equal(first.value, second.value)
    assert not first.stderr.any()


@pytest.mark.parametrize("name", ["permutation", "random"])
def test_seed_decides(name: str) -> None:
    first, again, other = (run(name, random_unanimity(12, 3), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.value, again.value)
    assert np.array_equal(first.stderr, again.stderr)
    assert not np.array_equal(first.value, other.value)


def test_draws_for_one_game_do_not_shift_the_next() -> None:
    def second_of_two(pairs: int) -> FloatArray:
        rng, game = np.random.default_rng(4), random_unanimity(9, 3)
        estimate("permutation", game, Budget(2 + pairs * 16), rng)
        return estimate("permutation", game, AUTO, rng).value

    assert np.array_equal(second_of_two(2), second_of_two(7))


def test_two_estimates_of_one_generator_differ() -> None:
    rng, game = np.random.default_rng(4), random_unanimity(9, 3)
    first, second = (estimate("permutation", game, AUTO, rng) for _ in range(2))
    assert not np.array_equal(first.value, second.value)


# --- budgets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "evaluations"), [("auto", 77), ("1000", 1000), ("8n", 80), ("1", 1), ("1n", 10)]
)
def test_budget_is_read(text: str, evaluations: int) -> None:
    assert Budget.parse(text).evaluations(players=10, auto=77) == evaluations


BUDGET_HINT = (
    "give auto, a number of evaluations such as 1000, "
    "or a multiple of the number of players such as 8n"
)
NO_NUMBER = ["", "n", "8m", "8 n", "n8", "8nn", "1e3", "1.5", "AUTO", "+8", "8n\n", "٣", "9" * 5000]


@pytest.mark.parametrize("text", NO_NUMBER)
def test_budget_that_means_nothing(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        Budget.parse(text)
    assert str(caught.value) == f"the budget {text!r} is no number of evaluations"
    assert caught.value.hint == BUDGET_HINT


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("0n", 0), ("-5", -5), ("-8n", -8), ("-0", 0)]
)
def test_budget_that_buys_nothing(text: str, count: int) -> None:
    with pytest.raises(OptionError) as caught:
        Budget.parse(text)
    assert str(caught.value) == f"the budget is {count}, it must be at least 1"
    assert caught.value.hint == BUDGET_HINT


@pytest.mark.parametrize(
    ("name", "players", "needed"),
    [
        ("permutation", 1, 2),
        ("permutation", 2, 6),
        ("permutation", 64, 254),
        ("exact", 1, 2),
        ("exact", 10, 1024),
        ("leave-one-out", 1, 2),
        ("leave-one-out", 64, 65),
    ],
)
def test_smallest_budget(name: str, players: int, needed: int) -> None:
    game = airport([*range(players)])
    with pytest.raises(BudgetTooSmall) as caught:
        run(name, game, needed - 1)
    assert str(caught.value) == (
        f"{name} needs {needed} evaluations for {players} players, the budget is {needed - 1}"
    )
    assert caught.value.hint == f"give --budget {needed} or more, or --budget auto"
    assert game.asked == 0
    assert run(name, game, needed).evaluations == game.asked == needed


@pytest.mark.parametrize("name", PLAYING)
def test_too_small_a_budget_is_refused_without_the_registry(name: str) -> None:
    game = airport([1.0, 2.0, 3.0])
    with pytest.raises(BudgetTooSmall):
        estimator(name).run(game, estimator(name).needed(3) - 1, np.random.default_rng(0))
    assert game.asked == 0


def test_allowance_refuses_before_any_game_is_played() -> None:
    assert allowance("permutation", 10, Budget.parse("5n")) == 50
    assert allowance("permutation", 10, AUTO) == 80
    with pytest.raises(BudgetTooSmall, match=r"^permutation needs 38 evaluations for 10 players"):
        allowance("permutation", 10, Budget.parse("3n"))


@pytest.mark.parametrize("players", [1, 2, 3, 4, 5, 16, 512])
def test_auto_is_enough(players: int) -> None:
    for name in NAMES if players <= exact.MAX_PLAYERS else ("permutation", "leave-one-out"):
        assert estimator(name).auto(players) >= estimator(name).needed(players)
    assert permutation.auto(players) == 8 * players


@pytest.mark.parametrize("players", [1, 2, 3, 9])
def test_permutation_spends_all_complete_pairs_and_no_more(players: int) -> None:
    per_pair = 2 * (players - 1)
    least = permutation.needed(players)
    for budget in range(least, least + 3 * per_pair + 5):
        game = random_unanimity(players, 8)
        result = run("permutation", game, budget)
        assert result.evaluations == game.asked <= budget
        assert players == 1 or budget - game.asked < per_pair


@pytest.mark.parametrize("name", PLAYING)
def test_auto_budget_is_kept(name: str) -> None:
    game = random_unanimity(11, 8)
    result = run(name, game)
    assert result.evaluations == game.asked <= allowance(name, 11, AUTO)


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("budget", [None, 1, 10_000])
def test_baselines_cost_nothing(name: str, budget: int | None) -> None:
    game = salient(40)
    result = run(name, game, budget)
    assert result.evaluations == game.asked == 0
    assert not result.stderr.any()


# --- exact -----------------------------------------------------------------------


@every_small
def test_exact_is_the_closed_form(make: Callable[[], KnownGame]) -> None:
    game = make()
    result = run("exact", game)
    np.testing.assert_allclose(result.value, game.shapley, rtol=0, atol=1e-12)
    assert result.evaluations == game.asked == 2**game.players


def test_exact_at_its_limit_asks_for_each_coalition_once_in_chunks() -> None:
    game = random_unanimity(16, 4)
    result = run("exact", game)
    np.testing.assert_allclose(result.value, game.shapley, rtol=0, atol=1e-12)
    assert max(len(call) for call in game.calls) == exact.CHUNK < 2**16
    codes = np.concatenate(game.calls) @ (2 ** np.arange(16))
    assert np.array_equal(np.sort(codes), np.arange(2**16))


@pytest.mark.parametrize("budget", [AUTO, Budget(10**12)])
def test_exact_beyond_its_limit(budget: Budget) -> None:
    game = airport([*range(17)])
    with pytest.raises(OptionError) as caught:
        estimate("exact", game, budget, np.random.default_rng(0))
    assert str(caught.value) == "exact is limited to 16 players, the group has 17"
    assert caught.value.hint == "give --estimator permutation, or leave-one-out"
    assert game.asked == 0


small_worths = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.floats(-10, 10), min_size=2**n, max_size=2**n)
)
axiom = settings(max_examples=60, deadline=None, derandomize=True)


def exact_values(worths: FloatArray) -> FloatArray:
    return run("exact", table(worths)).value


@axiom
@given(small_worths)
def test_axiom_efficiency(worths: list[float]) -> None:
    game = table(worths)
    assert run("exact", game).value.sum() == pytest.approx(worths[-1] - worths[0], abs=1e-9)


@axiom
@given(small_worths, st.randoms(use_true_random=False))
def test_axiom_symmetry(worths: list[float], chance: object) -> None:
    """Players who change places change values; so equal players have equal values."""
    cube = np.reshape(worths, (2,) * (len(worths).bit_length() - 1))
    order = [*range(cube.ndim)]
    chance.shuffle(order)  # type: ignore[attr-defined]
    # Axis a of the cube is bit n-1-a of the index.
    before = exact_values(cube.ravel())[::-1]
    after = exact_values(cube.transpose(order).ravel())[::-1]
    np.testing.assert_allclose(after, before[order], rtol=0, atol=1e-9)


@axiom
@given(small_worths, st.integers(0, 5))
def test_axiom_null_player(worths: list[float], player: int) -> None:
    player %= len(worths).bit_length() - 1
    halves = np.reshape(worths, (-1, 2, 2**player)).copy()
    halves[:, 1] = halves[:, 0]
    assert exact_values(halves.ravel())[player] == 0.0


@axiom
@given(small_worths, st.integers(0, 2**32), st.floats(-3, 3))
def test_axiom_linearity(worths: list[float], seed: int, factor: float) -> None:
    one, other = np.array(worths), np.random.default_rng(seed).normal(size=len(worths))
    both = exact_values(one + factor * other)
    parts = exact_values(one) + factor * exact_values(other)
    np.testing.assert_allclose(both, parts, rtol=0, atol=1e-9)


# --- permutation -----------------------------------------------------------------


@pytest.mark.parametrize("players", [1, 2, 3, 10, 65])
def test_two_pairs_are_exact_for_interactions_of_two(players: int) -> None:
    for game in (pairwise(players, seed=6), additive([*range(players)], empty=3.0)):
        result = run_pairs(game, 2)
        np.testing.assert_allclose(result.value, game.shapley, rtol=0, atol=1e-10)
        np.testing.assert_allclose(result.stderr, 0, rtol=0, atol=1e-10)


def test_two_pairs_are_not_exact_for_interactions_of_three() -> None:
    game = sum_of_unanimity(9, [[0, 1, 2], [3, 4, 5], [6, 7, 8]], [1.0, 1.0, 1.0])
    result = run_pairs(game, 2)
    assert np.abs(result.value - game.shapley).max() > 0.1
    assert result.stderr.max() > 0.1


@every_small
def test_permutation_is_efficient(make: Callable[[], KnownGame]) -> None:
    game = make()
    assert run("permutation", game).value.sum() == pytest.approx(game.total(), abs=1e-9)


def test_permutation_is_efficient_for_many_players() -> None:
    game = random_unanimity(512, 7, carriers=300)
    assert run_pairs(game, 2).value.sum() == pytest.approx(game.total(), abs=1e-9)


def test_null_players_are_worth_nothing() -> None:
    game = unanimity(8, [1, 3, 4, 6])
    nobody = [0, 2, 5, 7]
    for name in PLAYING:
        result = run(name, game)
        assert not result.value[nobody].any()
        assert not result.stderr[nobody].any()
        assert result.value[[1, 3, 4, 6]].any()


def test_equal_players_are_equal_within_the_error() -> None:
    game = airport([3.0, 7.0, 3.0, 1.0, 7.0, 3.0])
    result = run_pairs(game, 300)
    for equal in ([0, 2, 5], [1, 4]):
        value, error = result.value[equal], result.stderr[equal]
        assert (error > 0).all()
        assert np.ptp(value) < 5 * np.hypot.reduce(error)
        assert np.ptp(value) > 0


def test_each_pair_is_one_call_and_the_ends_are_asked_for_once() -> None:
    game = random_unanimity(20, 3)
    run_pairs(game, 6)
    assert [len(call) for call in game.calls] == [2] + [38] * 6
    sizes = np.concatenate(game.calls).sum(axis=1)
    assert np.count_nonzero((sizes == 0) | (sizes == 20)) == 2
    for call in game.calls:
        assert len(np.unique(call, axis=0)) == len(call)


def test_pair_is_a_chain_and_the_chain_of_its_complements() -> None:
    game = random_unanimity(12, 3)
    run_pairs(game, 2)
    for call in game.calls[1:]:
        chain, reverse = np.split(call, 2)
        for rising in (chain, reverse):
            assert rising.sum(axis=1).tolist() == [*range(1, 12)]
            assert (rising[1:] >= rising[:-1]).all()
        assert np.array_equal(reverse, ~chain[::-1])


def test_error_shrinks_with_the_root_of_the_pairs() -> None:
    game = random_unanimity(128, 9, carriers=250)
    pairs = np.array([4, 16, 64, 256])
    runs = [run_pairs(game, int(count), seed=1) for count in pairs]
    for error in (
        [np.sqrt(np.mean((each.value - game.shapley) ** 2)) for each in runs],
        [np.sqrt(np.mean(each.stderr**2)) for each in runs],
    ):
        scaled = np.array(error) * np.sqrt(pairs)
        assert scaled.max() / scaled.min() < 1.3


@pytest.mark.parametrize("players", [24, 512])
def test_truth_lies_within_a_few_standard_errors(players: int) -> None:
    game = random_unanimity(players, 5, carriers=600)
    result = run_pairs(game, 100)
    sampled = result.stderr > 1e-12
    score = np.abs(result.value - game.shapley)[sampled] / result.stderr[sampled]
    assert sampled.mean() > 0.9
    assert 2 < score.max() < 5
    np.testing.assert_allclose(result.value[~sampled], game.shapley[~sampled], atol=1e-12)


# Student's t at 97.5 % for pairs - 1 degrees of freedom. Four pairs, which is what "auto"
# buys, are too few for the nominal 95 %: their standard error misses rare marginals.
@pytest.mark.parametrize(
    ("pairs", "quantile", "least"), [(4, 3.182, 0.89), (16, 2.131, 0.93), (40, 2.023, 0.93)]
)
def test_intervals_of_95_percent_cover_the_truth(pairs: int, quantile: float, least: float) -> None:
    """Share of 300 seeds times 8 players whose interval holds the value."""
    game = random_unanimity(8, 11, carriers=60, most=5)
    runs = [run_pairs(game, pairs, seed) for seed in range(300)]
    inside = [np.abs(each.value - game.shapley) <= quantile * each.stderr for each in runs]
    assert least < np.mean(inside) < 0.97


def test_standard_error_is_that_of_the_pair_means() -> None:
    game = random_unanimity(6, 3)
    result = run_pairs(game, 3)
    means = []
    for call in game.calls[1:]:
        both = [marginals(game, half) for half in np.split(call, 2)]
        means.append(np.mean(both, axis=0))
    np.testing.assert_allclose(result.value, np.mean(means, axis=0), rtol=0, atol=1e-12)
    spread = np.std(means, axis=0, ddof=1) / math.sqrt(3)
    np.testing.assert_allclose(result.stderr, spread, rtol=0, atol=1e-12)
    assert (result.stderr > 1e-3).any()


def marginals(game: KnownGame, chain: BoolArray) -> FloatArray:
    """What each player adds as the chain of coalitions grows from nobody to all."""
    n = game.players
    steps = np.vstack([np.zeros((1, n), bool), chain, np.ones((1, n), bool)])
    gains = np.empty(n)
    for before, after in itertools.pairwise(steps):
        (joined,) = np.flatnonzero(after & ~before)
        gains[joined] = game.rule(after[None])[0] - game.rule(before[None])[0]
    return gains


# --- leave-one-out and the baselines ---------------------------------------------


@every_small
def test_leave_one_out_is_the_loss_of_one_player(make: Callable[[], KnownGame]) -> None:
    game = make()
    result = run("leave-one-out", game)
    assert result.evaluations == game.asked == game.players + 1
    assert len(game.calls) == 1
    everyone = np.ones((1, game.players), bool)
    for player in range(game.players):
        without = everyone.copy()
        without[0, player] = False
        loss = game.rule(everyone)[0] - game.rule(without)[0]
        assert result.value[player] == pytest.approx(loss, abs=1e-12)


def test_leave_one_out_is_no_shapley_value() -> None:
    assert run("leave-one-out", unanimity(3, [0, 1])).value.tolist() == [1.0, 1.0, 0.0]


def test_random_is_uniform() -> None:
    value = np.sort(run("random", additive([0.0] * 20_000)).value)
    assert 0 <= value[0] < value[-1] < 1
    # Kolmogorov's distance, at a level of about 1e-6.
    assert np.abs(value - np.linspace(0, 1, len(value))).max() < 2.7 / math.sqrt(len(value))


def test_l1_is_the_saliency_of_the_game() -> None:
    assert run("l1", salient(4)).value.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_l1_of_a_game_without_saliencies() -> None:
    game = additive([1.0, 2.0])
    with pytest.raises(OptionError, match=r"^l1 needs a game with saliencies$") as caught:
        run("l1", game)
    assert caught.value.hint == "give --estimator permutation"
    assert game.asked == 0
