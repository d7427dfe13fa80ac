"""Means over the channels that are left: masked ≡ removed also where cutting changes the rest.

A slice of the original's tensors can't be what the pruned net has there: a normalisation gives
something else for the channels that stay. Only the masked net says what it must be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.calibration import load_calibration
from onnx_shapprune.model_io import Model
from onnx_shapprune.passes.averages import approximated
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.masking import mask_name, masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan
from onnx_shapprune.types import BoolArray, Wishes
from onnx_shapprune.verification import verify
from zoo import Array, Builder, assert_close, choice, run, samples

SIZE, WIDE = 4, 12
SPATIAL = [2, 3]

Step = Callable[[Builder, str], str]
"""Puts a normalisation behind a tensor [batch, WIDE, SIZE, SIZE]; what has the same shape."""


@dataclass(frozen=True)
class Form:
    """One way to write a mean over channels; ``players`` of the net with a single Conv."""

    step: Step
    players: int
    opset: int
    dtype: type


FORMS: dict[str, Form] = {}


def form(
    name: str, players: int = WIDE, opset: int = 17, dtype: type = np.float32
) -> Callable[[Step], Step]:
    """Register a form."""

    def register(step: Step) -> Step:
        FORMS[name] = Form(step, players, opset, dtype)
        return step

    return register


def last(b: Builder, x: str, step: Step) -> str:
    """A step on the tensor with its channels last."""
    y = step(b, b.add("Transpose", x, perm=[0, 2, 3, 1]))
    return b.add("Transpose", y, perm=[0, 3, 1, 2])


def reduce_mean(b: Builder, x: str, axes: list[int], **kw: int) -> str:
    """Its axes are an input since opset 18."""
    if b.opset < 18:
        return b.add("ReduceMean", x, axes=axes, **kw)
    return b.add("ReduceMean", x, b.store(axes), **kw)


def affine(b: Builder, x: str, *shape: int) -> str:
    return b.add("Add", b.add("Mul", x, b.uniform(*shape)), b.normal(*shape))


# --- forms -------------------------------------------------------------------------------


def layer_norm(b: Builder, x: str) -> str:
    return b.add("LayerNormalization", x, b.uniform(WIDE), b.normal(WIDE), epsilon=1e-6)


FORMS["LayerNormalization"] = Form(lambda b, x: last(b, x, layer_norm), WIDE, 17, np.float32)
FORMS["LayerNormalization in half"] = Form(
    lambda b, x: last(b, x, layer_norm), WIDE, 17, np.float16
)


@form("LayerNormalization of everything")
def _(b: Builder, x: str) -> str:
    shape = (WIDE, SIZE, SIZE)
    return b.add("LayerNormalization", x, b.uniform(*shape), b.normal(*shape), axis=1)


@form("LayerNormalization without a bias, its scale computed", opset=18)
def _(b: Builder, x: str) -> str:
    def step(b: Builder, x: str) -> str:
        return b.add("LayerNormalization", x, b.add("Exp", b.normal(WIDE)))

    return last(b, x, step)


@form("RMSNormalization", opset=23)
def _(b: Builder, x: str) -> str:
    return last(b, x, lambda b, x: b.add("RMSNormalization", x, b.uniform(WIDE)))


@form("RMSNormalization of everything", opset=23)
def _(b: Builder, x: str) -> str:
    return b.add("RMSNormalization", x, b.uniform(WIDE, SIZE, SIZE), axis=1)


@form("GroupNormalization with a scale per group", players=4, opset=18)
def _(b: Builder, x: str) -> str:
    return b.add("GroupNormalization", x, b.uniform(3), b.normal(3), num_groups=3)


@form("GroupNormalization", players=6, opset=21)
def _(b: Builder, x: str) -> str:
    return b.add("GroupNormalization", x, b.uniform(WIDE), b.normal(WIDE), num_groups=2)


@form("GroupNormalization of one group", opset=21)
def _(b: Builder, x: str) -> str:
    return b.add("GroupNormalization", x, b.uniform(WIDE), b.normal(WIDE), num_groups=1)


def group_norm(b: Builder, x: str, groups: int, back: str) -> str:
    """As exporters write it."""
    y = b.add("Reshape", x, b.store([0, groups, -1]))
    y = b.add("InstanceNormalization", y, b.uniform(groups), b.normal(groups), epsilon=1e-5)
    return affine(b, b.add("Reshape", y, back), WIDE, 1, 1)


@form("InstanceNormalization of groups", players=6)
def _(b: Builder, x: str) -> str:
    return group_norm(b, x, 2, b.add("Shape", x))


@form("InstanceNormalization of groups, back by numbers", players=4)
def _(b: Builder, x: str) -> str:
    return group_norm(b, x, 3, b.store([0, WIDE, SIZE, SIZE]))


def decomposed(b: Builder, x: str, axes: list[int], square: Step) -> str:
    """What opsets without LayerNormalization make of it."""
    centred = b.add("Sub", x, reduce_mean(b, x, axes))
    variance = reduce_mean(b, square(b, centred), axes)
    spread = b.add("Sqrt", b.add("Add", variance, b.store(np.float32(1e-5))))
    return b.add("Div", centred, spread)


def power(b: Builder, x: str) -> str:
    return b.add("Pow", x, b.store(np.float32(2)))


def product(b: Builder, x: str) -> str:
    return b.add("Mul", x, x)


@form("ReduceMean twice", opset=13)
def _(b: Builder, x: str) -> str:
    return last(b, x, lambda b, x: affine(b, decomposed(b, x, [-1], power), WIDE))


@form("ReduceMean twice, channels first", opset=18)
def _(b: Builder, x: str) -> str:
    return affine(b, decomposed(b, x, [1], product), WIDE, 1, 1)


@form("ReduceMean of everything", opset=12)
def _(b: Builder, x: str) -> str:
    return affine(b, decomposed(b, x, [1, 2, 3], product), WIDE, 1, 1)


@form("ReduceMean twice, its spread scaled first", opset=13)
def _(b: Builder, x: str) -> str:
    def step(b: Builder, x: str) -> str:
        mean = reduce_mean(b, x, [-1])
        variance = reduce_mean(b, power(b, b.add("Sub", x, mean)), [-1])
        spread = b.add("Sqrt", b.add("Add", variance, b.store(np.float32(1e-3))))
        scale = b.add("Mul", b.add("Reciprocal", spread), b.uniform(WIDE))
        shift = b.add("Sub", b.normal(WIDE), b.add("Mul", mean, scale))
        return b.add("Add", b.add("Mul", x, scale), shift)

    return last(b, x, step)


@form("ReduceMean of groups with the channels last", players=6, opset=13)
def _(b: Builder, x: str) -> str:
    def step(b: Builder, x: str) -> str:
        y = b.add("Reshape", x, b.store([0, SIZE, SIZE, 2, WIDE // 2]))
        y = decomposed(b, y, [1, 2, 4], power)
        return affine(b, b.add("Reshape", y, b.store([0, SIZE, SIZE, WIDE])), WIDE)

    return last(b, x, step)


@form("ReduceMean of squares", opset=18)
def _(b: Builder, x: str) -> str:
    mean = b.add("Add", reduce_mean(b, b.add("Mul", x, x), [1]), b.store(np.float32(1e-5)))
    return b.add("Mul", x, b.add("Reciprocal", b.add("Sqrt", mean)))


@form("ReduceMean as a spatial gate")
def _(b: Builder, x: str) -> str:
    mean = b.add("Unsqueeze", reduce_mean(b, x, [1], keepdims=0), b.store([1]))
    return b.add("Mul", x, b.add("Sigmoid", b.conv(mean, (1, 1))))


# --- nets --------------------------------------------------------------------------------


def net_of(name: str, parts: tuple[int, ...]) -> onnx.ModelProto:
    """Convolutions, concatenated, then the norm, a gate, a convolution and a head."""
    how = FORMS[name]
    b = Builder(opset=how.opset, dtype=how.dtype)
    image = b.input("N", 3, SIZE, SIZE)
    convs = [b.relu(b.conv(image, (3, width))) for width in parts]
    x = how.step(b, b.add("Concat", *convs, axis=1) if len(parts) > 1 else convs[0])
    x = b.add("Add", b.add("Sigmoid", x), x)
    return b.build(b.head(b.relu(b.conv(x, (WIDE, 5))), (5, 3)))


PARTS = {"one": (WIDE,), "two": (WIDE // 2, WIDE // 2), "uneven": (4, 8)}


@cache
def bench(name: str, parts: str, absent: Absent = "mean") -> Bench:
    return opened(net_of(name, PARTS[parts]), absent)


def opened(proto: onnx.ModelProto, absent: Absent = "mean") -> Bench:
    """Not through the loader: onnx's checker takes no GroupNormalization of opset 18."""
    model = Model(proto, "", None)
    data = load_calibration(samples(proto, 6), model.inputs)
    return Bench(model, data, wishes=Wishes(approximate=True), absent=absent)


def masks(kept: dict[str, BoolArray]) -> dict[str, Array]:
    return {mask_name(name): chosen.astype(np.float32) for name, chosen in kept.items()}


each_form = pytest.mark.parametrize("name", sorted(FORMS))
each_parts = pytest.mark.parametrize("parts", sorted(PARTS))


@each_form
@each_parts
@pytest.mark.parametrize("absent", ["zero", "mean"])
def test_masked_is_removed(name: str, parts: str, absent: Absent) -> None:
    of = bench(name, parts, absent)
    masked = masked_model(of.graph, of.groups, of.shifts)
    for seed in range(3):
        kept = choice(of.groups, seed)
        plan = make_plan(of, kept)
        pruned = remove(of.model.proto, of.model.sha256, plan)
        tolerance = 2e-2 if FORMS[name].dtype == np.float16 else 1e-4
        assert verify(of.graph, of.model, pruned, plan, of.calibration) <= tolerance
        for batch, optimised in itertools.product((1, 3), (False, True)):
            feeds = samples(of.model.proto, batch, seed=7)
            expected = run(masked, {**feeds, **masks(kept)}, optimised=False)
            assert_close(run(pruned, feeds, optimised=optimised), expected)


@each_form
def test_channels_are_cut_one_by_one(name: str) -> None:
    of = bench(name, "one")
    assert [group.players for group in of.groups] == [FORMS[name].players, 5]
    assert not any("Conv_0" in entry.members for entry in of.coupling.skipped)
    assert operator_of(name) in {entry.op_type for entry in approximated(of.graph, of.groups)}


def operator_of(name: str) -> str:
    return name.split(maxsplit=1)[0].strip(",")


@each_form
def test_masks_of_ones_change_nothing(name: str) -> None:
    of = bench(name, "two")
    feeds = samples(of.model.proto, 3)
    masked = masked_model(of.graph, of.groups, of.shifts)
    assert_close(run(masked, feeds), run(of.model.proto, feeds))


@each_form
def test_nothing_is_left_of_an_empty_coalition_but_numbers(name: str) -> None:
    of = bench(name, "one")
    nobody = {group.name: np.zeros(group.players, bool) for group in of.groups}
    masked = masked_model(of.graph, of.groups, of.shifts)
    (found,) = run(masked, {**samples(of.model.proto, 3), **masks(nobody)})
    assert np.isfinite(found).all()


def stacked(seed: int) -> onnx.ModelProto:
    """Blocks with a skip each and norms of all forms, on tensors that several groups share."""
    b = Builder(opset=23, ir=11, seed=seed)
    rng = np.random.default_rng(seed)
    steps = [how.step for name, how in sorted(FORMS.items()) if "scale per group" not in name]
    image = b.input("N", 3, SIZE, SIZE)
    x = b.add("Concat", *(b.conv(image, (3, width)) for width in (5, 7)), axis=1)
    for number in rng.choice(len(steps), 4, replace=False):
        y = b.relu(b.conv(steps[number](b, x), (WIDE, WIDE), groups=int(rng.choice([1, 2]))))
        x = b.add("Add", x, b.conv(y, (WIDE, WIDE)))
    return b.build(b.head(last(b, x, layer_norm), (WIDE, 3)))


OF_THE_GATE = ("Conv", "Mul")
"""They keep its single channel."""


@pytest.mark.parametrize("seed", range(12))
def test_masked_is_removed_in_stacks(seed: int) -> None:
    proto = stacked(seed)
    of = opened(proto)
    assert {entry.op_type for entry in of.coupling.skipped} <= {"Gemm", *OF_THE_GATE}
    for number in range(2):
        plan = make_plan(of, choice(of.groups, seed + number))
        pruned = remove(of.model.proto, of.model.sha256, plan)
        verify(of.graph, of.model, pruned, plan, of.calibration)


# --- worked out by hand ------------------------------------------------------------------


def test_masked_layer_norm_is_that_of_the_channels_present() -> None:
    """The tensor behind the norm is compared with its definition."""
    b = Builder()
    x = b.conv(b.input("N", 3, SIZE, SIZE), (3, WIDE))
    rows = b.add("Transpose", x, perm=[0, 2, 3, 1])
    scale, bias = b.uniform(WIDE), b.normal(WIDE)
    y = b.add("LayerNormalization", rows, scale, bias, epsilon=0.1)
    back = b.add("Transpose", y, perm=[0, 3, 1, 2])
    proto = b.build(b.head(b.conv(back, (WIDE, 5)), (5, 3)))
    graph = Graph(proto)
    first = find_groups(graph, Wishes(approximate=True)).groups[0]
    kept = np.arange(WIDE) % 3 == 0
    feeds = samples(proto, 2)
    masked = masked_model(graph, [first], {})
    full, found = run(masked, {**feeds, **masks({first.name: kept})}, [rows, y])
    stored = {t.name: numpy_helper.to_array(t)[kept] for t in proto.graph.initializer[2:4]}
    there = full[..., kept].astype(np.float64)
    spread = np.sqrt(there.var(axis=-1, keepdims=True) + 0.1)
    expected = (there - there.mean(axis=-1, keepdims=True)) / spread * stored[scale] + stored[bias]
    np.testing.assert_allclose(found[..., kept], expected, rtol=1e-5, atol=1e-6)


def test_masked_mean_is_that_of_the_channels_present() -> None:
    """Two groups share a tensor of which some channels belong to nobody."""
    b = Builder()
    image = b.input("N", 3, SIZE, SIZE)
    x = b.add("Concat", b.conv(image, (3, 4)), image, b.conv(image, (3, 5)), axis=1)
    mean = b.add("ReduceMean", x, axes=[1])
    proto = b.build(b.head(b.conv(mean, (1, 5)), (5, 3)))
    graph = Graph(proto)
    one, other = find_groups(graph, Wishes(approximate=True)).groups[:2]
    kept = {one.name: np.arange(4) > 1, other.name: np.arange(5) == 2}
    feeds = samples(proto, 2)
    masked = masked_model(graph, [one, other], {})
    full, found = run(masked, {**feeds, **masks(kept)}, [x, mean])
    present = full[:, [2, 3, 4, 5, 6, 9]]
    np.testing.assert_allclose(found, present.mean(axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


# --- what is refused ---------------------------------------------------------------------


@each_form
def test_without_the_option_they_lock_or_leave_by_groups(name: str) -> None:
    found = find_groups(Graph(net_of(name, PARTS["one"])))
    held = {m: e.op_type for e in found.skipped if e.approximable for m in e.members}
    whole = "GroupNormalization" in name or "of groups" in name
    assert held == ({} if whole else {"Conv_0": operator_of(name)})
    assert not any(group.averages for group in found.groups)


def refused(b: Builder, y: str) -> list[tuple[str, str, bool]]:
    """Why channels stay, even with the option."""
    found = find_groups(Graph(b.build(y)), Wishes(approximate=True))
    return [(entry.op_type, entry.reason, entry.approximable) for entry in found.skipped]


def test_statistics_that_are_returned_stay() -> None:
    b = Builder()
    x = b.conv(b.input("N", 3, SIZE, SIZE), (3, WIDE))
    b.add("LayerNormalization", x, b.uniform(WIDE, SIZE, SIZE), "", axis=1, outputs=2)
    norm = b.nodes[-1]
    y = b.add("Add", b.conv(norm.output[0], (WIDE, 1)), norm.output[1])
    reason = "the statistics that it returns run over the channels"
    assert ("LayerNormalization", reason, False) in refused(b, y)


def test_means_of_integers_stay() -> None:
    b = Builder()
    x = b.add("Cast", b.conv(b.input("N", 3, SIZE, SIZE), (3, WIDE)), to=TensorProto.INT32)
    y = b.add("Cast", b.add("ReduceMean", x, axes=[1]), to=TensorProto.FLOAT)
    reason = "it takes a mean of integers over the channels"
    assert ("ReduceMean", reason, False) in refused(b, y)


def test_other_reductions_over_channels_stay() -> None:
    b = Builder()
    x = b.conv(b.input("N", 3, SIZE, SIZE), (3, WIDE))
    y = b.conv(b.add("ReduceMax", x, axes=[1]), (1, 4))
    assert ("ReduceMax", "it reduces over the channels", False) in refused(b, y)


def test_groups_wider_than_many_lose_channels_and_others_leave_whole() -> None:
    """Six groups of two: more players leave if it is the groups that leave."""
    b = Builder(opset=21)
    x = b.conv(b.input("N", 3, SIZE, SIZE), (3, WIDE))
    y = b.add("GroupNormalization", x, b.uniform(WIDE), b.normal(WIDE), num_groups=6)
    graph = Graph(b.build(b.head(b.conv(y, (WIDE, 5)), (5, 3))))
    for approximate in (False, True):
        first = find_groups(graph, Wishes(approximate=approximate)).groups[0]
        assert (first.players, first.averages) == (6, ())
