"""The game: its worths are those of models that are really cut, and nothing is paid twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.errors import ModelError
from onnx_shapprune.estimators import Budget, estimate
from onnx_shapprune.game import ChannelGame, MaskedModel, UnplayedGame, l1_norms
from onnx_shapprune.metrics import Metric, build_metric
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.progress import SILENT
from onnx_shapprune.scoring import Scoring, score
from onnx_shapprune.types import BoolArray, ChannelGroup, FloatArray
from zoo import ZOO, Array, Builder, Model, choice, run, samples

each_absent = pytest.mark.parametrize("absent", ["zero", "mean"])


@cache
def bench(name: str, absent: Absent) -> Bench:
    """A net of the zoo."""
    net = ZOO[name]
    return open_bench(net.build(), net.samples(6), absent=absent, provider="cpu")


def worths(of: Bench, group: ChannelGroup, metric: Metric, coalitions: BoolArray) -> FloatArray:
    """Worths as the game tells them."""
    with of.player(group) as (model, executor):
        return ChannelGame(group, model, metric, executor, SILENT).worth(coalitions)


def cut_worth(of: Bench, kept: Mapping[str, BoolArray], metric: Metric) -> float:
    """Metric of the model that really has these players only."""
    plan = make_plan(of, {**of.costs.full(), **kept})
    pruned = remove(of.model.proto, of.model.sha256, plan)
    return sum(metric.part(number, run(pruned, feeds)) for number, feeds in enumerate(of.batches))


def coalitions(group: ChannelGroup, count: int) -> BoolArray:
    """Random coalitions that empty no tensor, and the grand one."""
    rows = [choice([group], seed)[group.name] for seed in range(count - 1)]
    return np.stack([*rows, np.ones(group.players, bool)])


# --- the worth of a coalition is that of the cut model -----------------------------------


@each_absent
@pytest.mark.parametrize("name", sorted(ZOO))
def test_worth_is_that_of_the_cut_model(name: str, absent: Absent) -> None:
    of = bench(name, absent)
    metric = of.metric("error")
    for group in of.groups:
        chosen = coalitions(group, 4)
        found = worths(of, group, metric, chosen)
        expected = [cut_worth(of, {group.name: row}, metric) for row in chosen]
        rtol = 0.05 if name == "half_precision" else 1e-3
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)


@each_absent
@pytest.mark.parametrize("name", ["sequential", "inception", "squeeze_excitation", "captured"])
def test_all_groups_at_once(name: str, absent: Absent) -> None:
    of = bench(name, absent)
    metric = of.metric("auto")
    for seed in range(3):
        kept = choice(of.groups, seed)
        with of.player() as (model, _):
            found = model.worth(kept, metric)
        assert found == pytest.approx(cut_worth(of, kept, metric), rel=1e-3, abs=1e-6)


@each_absent
@pytest.mark.parametrize("name", sorted(ZOO))
def test_grand_coalition_is_the_original(name: str, absent: Absent) -> None:
    of = bench(name, absent)
    metric = of.metric("auto")
    original = sum(metric.part(i, outputs) for i, outputs in enumerate(of.reference.outputs))
    for group in of.groups:
        found = worths(of, group, metric, np.ones((1, group.players), bool))
        np.testing.assert_allclose(found, original, atol=1e-4)


def test_several_batches() -> None:
    """40 samples are two batches; the worth is that of all."""
    net = ZOO["sequential"]
    of = open_bench(net.build(), net.samples(40), absent="mean", provider="cpu")
    assert [len(batch["x"]) for batch in of.batches] == [32, 8]
    metric = of.metric("auto")
    group = of.groups[1]
    chosen = coalitions(group, 3)
    expected = [cut_worth(of, {group.name: row}, metric) for row in chosen]
    np.testing.assert_allclose(worths(of, group, metric, chosen), expected, rtol=1e-3, atol=1e-6)


def test_labels_go_with_their_batches() -> None:
    net = ZOO["sequential"]
    labels = np.arange(40) % 3
    data = {**net.samples(40), "labels": labels}
    of = open_bench(net.build(), data, absent="zero", provider="cpu")
    metric = of.metric("accuracy")
    found = worths(of, of.groups[0], metric, np.ones((1, 6), bool))
    scores = np.concatenate([outputs[0] for outputs in of.reference.outputs])
    assert found[0] == pytest.approx((scores.argmax(axis=1) == labels).mean())


def test_unread_channels_are_worth_nothing() -> None:
    b = Builder()
    source = b.input("N", 3, 4, 4)
    b.conv(source, (3, 5))
    model = b.build(b.head(b.relu(b.conv(source, (3, 6))), (6, 3)))
    of = open_bench(model, samples(model, 4), absent="zero", provider="cpu")
    for group in (group for group in of.groups if group.players == 5):
        found = worths(of, group, of.metric("error"), coalitions(group, 3))
        np.testing.assert_allclose(found, 0, atol=1e-9)


# --- brute force in numpy ---------------------------------------------------------------


def perceptron() -> tuple[Model, dict[str, Array]]:
    """4 → 5 → 3, no bias in the end."""
    b = Builder()
    hidden = b.add("Sigmoid", b.gemm(b.input("N", 4), (4, 5)))
    model = b.build(b.add("Gemm", hidden, b.normal(5, 3, scale=2.0), alpha=1.5))
    return model, samples(model, 16)


def by_hand(model: Model, feeds: Mapping[str, Array], kept: BoolArray, absent: str) -> Array:
    """Outputs with channels replaced in numpy."""
    weights = [numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer]
    hidden = 1 / (1 + np.exp(-(feeds["x"] @ weights[0].T + weights[1])))
    stand_in = hidden.mean(axis=0) if absent == "mean" else np.zeros(5)
    return 1.5 * np.where(kept, hidden, stand_in) @ weights[2]


def all_coalitions(players: int) -> BoolArray:
    """All 2ⁿ."""
    return np.array(list(itertools.product([False, True], repeat=players)))


@each_absent
def test_game_is_that_of_numpy(absent: Absent) -> None:
    model, feeds = perceptron()
    of = open_bench(model, feeds, absent=absent, provider="cpu")
    metric = build_metric("kl", of.reference)
    chosen = all_coalitions(5)
    expected = [metric.part(0, [by_hand(model, feeds, row, absent)]) for row in chosen]
    found = worths(of, of.groups[0], metric, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert np.ptp(found) > 0.01


@each_absent
def test_scores_are_the_shapley_values_of_that_game(absent: Absent) -> None:
    model, feeds = perceptron()
    of = open_bench(model, feeds, absent=absent, provider="cpu")
    metric = of.metric("kl")
    worth = {
        tuple(row): metric.part(0, [by_hand(model, feeds, row, absent)])
        for row in all_coalitions(5)
    }
    expected = [_shapley(worth, player, 5) for player in range(5)]
    scores = score(of, Scoring(estimator="exact", metric="kl"), SILENT)
    np.testing.assert_allclose(scores.groups[0].values, expected, rtol=1e-2, atol=1e-5)
    assert scores.groups[0].evaluations == 32
    assert (scores.metric, scores.absent, scores.samples) == ("kl", absent, 16)


def _shapley(worth: Mapping[tuple[bool, ...], float], player: int, players: int) -> float:
    """By the definition: the mean gain over all orders."""
    gains = []
    for order in itertools.permutations(range(players)):
        before = [p in order[: order.index(player)] for p in range(players)]
        after = [present or p == player for p, present in enumerate(before)]
        gains.append(worth[tuple(after)] - worth[tuple(before)])
    assert len(gains) == math.factorial(players)
    return float(np.mean(gains))


# --- nothing is paid twice --------------------------------------------------------------


class Counted:
    """Stands in for a masked model: worth is the number of those present."""

    def __init__(self, worth: float | None = None) -> None:
        self.asked: list[tuple[bool, ...]] = []
        self._worth = worth

    def worth(self, masks: Mapping[str, BoolArray], metric: Metric) -> float:
        """How many are present."""
        (row,) = masks.values()
        self.asked.append(tuple(row.tolist()))
        return float(row.sum()) if self._worth is None else self._worth


class Steps:
    """Counts progress."""

    done = 0

    def start(self, stage: str, total: int) -> None:
        """Not counted."""

    def advance(self, steps: int = 1) -> None:
        """Counted."""
        self.done += steps

    def finish(self) -> None:
        """Not counted."""


def counted(model: Counted, steps: Steps) -> ChannelGame:
    """A game of five players."""
    group = ChannelGroup("g", 5, ("g",), (), (), (), ())
    metric = build_metric("error", bench("sequential", "zero").reference)
    executor = ThreadPoolExecutor(2)
    return ChannelGame(group, model, metric, executor, steps)  # type: ignore[arg-type]


def test_worths_are_remembered() -> None:
    model, steps = Counted(), Steps()
    game = counted(model, steps)
    rows = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(game.worth(rows), [1, 2, 1])
    np.testing.assert_array_equal(game.worth(rows[::-1]), [1, 2, 1])
    assert len(model.asked) == game.evaluations == 2
    assert steps.done == 6  # what is remembered is progress too
    np.testing.assert_array_equal(game.worth(np.ones((1, 5), bool)), [5])
    assert game.evaluations == 3


def test_estimators_pay_for_each_coalition_once() -> None:
    model, steps = Counted(), Steps()
    game = counted(model, steps)
    found = estimate("exact", game, Budget.parse("auto"), np.random.default_rng(0))
    np.testing.assert_allclose(found.value, np.ones(5))
    assert len(model.asked) == len(set(model.asked)) == 32
    estimate("leave-one-out", game, Budget.parse("auto"), np.random.default_rng(0))
    assert len(model.asked) == 32


@pytest.mark.parametrize("worth", [float("nan"), float("-inf")])
def test_a_worth_must_be_finite(worth: float) -> None:
    with pytest.raises(ModelError, match="outputs are not finite when channels of 'g' are absent"):
        counted(Counted(worth), Steps()).worth(np.ones((1, 5), bool))


def test_an_absence_that_is_not_finite() -> None:
    """The logarithm of nothing."""
    b = Builder()
    x = b.add("Sigmoid", b.gemm(b.input("N", 4), (4, 5)))
    x = b.add("Log", b.add("Abs", b.add("Gemm", x, b.uniform(5, 3))))
    model = b.build(x)
    of = open_bench(model, samples(model, 4), absent="zero", provider="cpu")
    with pytest.raises(ModelError, match="not finite when channels of 'Gemm_0' are absent"):
        worths(of, of.groups[0], of.metric("error"), np.zeros((1, 5), bool))


def test_outputs_that_no_mask_can_change_are_those_of_the_original() -> None:
    """Only a part of the model is run; the other outputs are known."""
    b = Builder()
    x = b.input("N", 4)
    one = b.gemm(b.relu(b.gemm(x, (4, 5))), (5, 3))
    two = b.gemm(b.relu(b.gemm(x, (4, 6))), (6, 3))
    model = b.build(one, two)
    of = open_bench(model, samples(model, 8), absent="zero", provider="cpu")
    metric = of.metric("error")
    for group, index in zip(of.groups, (0, 1), strict=True):
        with of.player(group) as (masked, _):
            assert isinstance(masked, MaskedModel)
            assert masked.outputs == (index,)
            found = masked.worth({group.name: np.zeros(group.players, bool)}, metric)
        alone = cut_outputs(of, group)
        assert found == pytest.approx(metric.part(0, alone), rel=1e-4)


def cut_outputs(of: Bench, group: ChannelGroup) -> Sequence[Array]:
    """Outputs with all channels of a group zeroed in its consumer's kernel."""
    model = of.model.proto.__class__()
    model.CopyFrom(of.model.proto)
    kernel = of.graph.nodes[group.reads[0].readers[0].node].input[1]
    stored = next(t for t in model.graph.initializer if t.name == kernel)
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * 0, kernel))
    return run(model, of.batches[0])


# --- rankings without a game ------------------------------------------------------------


def kernel(model: Model, output: str) -> FloatArray:
    """Absolute values of a node's kernel."""
    node = next(n for n in model.graph.node if output in (n.name, n.output[0]))
    stored = next(t for t in model.graph.initializer if t.name == node.input[1])
    return np.abs(numpy_helper.to_array(stored).astype(np.float64))


def norms(name: str, number: int) -> FloatArray:
    """L1 norms of one group."""
    graph = Graph(ZOO[name].build())
    return l1_norms(graph, find_groups(graph).groups[number])


def test_norms_of_a_convolution() -> None:
    model = ZOO["sequential"].build()
    np.testing.assert_allclose(norms("sequential", 0), kernel(model, "Conv_0").sum(axis=(1, 2, 3)))


def test_norms_are_summed_over_members() -> None:
    model = ZOO["residual"].build()
    expected = sum(kernel(model, n).sum(axis=(1, 2, 3)) for n in ("Conv_0", "Conv_6"))
    np.testing.assert_allclose(norms("residual", 0), expected)


def test_norms_of_a_depthwise_convolution() -> None:
    model = ZOO["depthwise_multiplier"].build()
    second = kernel(model, "Conv_3").sum(axis=(1, 2, 3)).reshape(4, 2).sum(axis=1)
    expected = kernel(model, "Conv_0").sum(axis=(1, 2, 3)) + second
    np.testing.assert_allclose(norms("depthwise_multiplier", 0), expected)


def test_norms_of_groups() -> None:
    model = ZOO["grouped"].build()
    expected = kernel(model, "Conv_3").sum(axis=(1, 2, 3)).reshape(2, 3).sum(axis=0)
    np.testing.assert_allclose(norms("grouped", 1), expected)


def test_norms_of_other_kernels() -> None:
    model = ZOO["transposed"].build()
    expected = kernel(model, "ConvTranspose_3").sum(axis=(0, 2, 3))
    np.testing.assert_allclose(norms("transposed", 1), expected)
    model = ZOO["perceptron"].build()
    np.testing.assert_allclose(norms("perceptron", 0), kernel(model, "Gemm_0").sum(axis=1))
    np.testing.assert_allclose(norms("perceptron", 1), kernel(model, "Gemm_2").sum(axis=0))
    model = ZOO["feed_forward"].build()
    np.testing.assert_allclose(norms("feed_forward", 0), kernel(model, "MatMul_0").sum(axis=0))


def test_unplayed_game_ranks_by_norms_alone() -> None:
    graph = Graph(ZOO["sequential"].build())
    group = find_groups(graph).groups[0]
    game = UnplayedGame(group, graph)
    assert game.players == 6
    np.testing.assert_array_equal(game.saliency("l1"), l1_norms(graph, group))
    with pytest.raises(KeyError):
        game.saliency("l7")
    with pytest.raises(NotImplementedError):
        game.worth(np.ones((1, 6), bool))
