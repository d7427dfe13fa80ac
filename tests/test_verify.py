"""The check itself: sabotaged models are caught, sound ones pass, the guilty are named."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_shapprune import verification
from onnx_shapprune.bench import Bench
from onnx_shapprune.errors import ModelError, VerificationError
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.passes.shifts import as_dtype
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray, Plan
from onnx_shapprune.verification import verify
from zoo import ZOO, Array, Builder, Model, choice, samples

Sabotage = Callable[[Model], None]


@cache
def bench(name: str) -> Bench:
    """A net of the zoo, absent = mean."""
    net = ZOO[name]
    return open_bench(net.build(), net.samples(5), absent="mean", provider="cpu")


def halves(of: Bench) -> dict[str, BoolArray]:
    """Every second player stays."""
    return {group.name: np.arange(group.players) % 2 == 0 for group in of.groups}


def pruned(of: Bench) -> tuple[Plan, Model]:
    """The plan and the pruned model."""
    plan = make_plan(of, halves(of))
    return plan, remove(of.model.proto, of.model.sha256, plan)


def check(of: Bench, model: Model, plan: Plan) -> float:
    """Verify."""
    return verify(of.graph, of.model, model, plan, of.calibration)


def tensor(model: Model, name: str) -> onnx.TensorProto:
    """An initializer."""
    return next(t for t in model.graph.initializer if t.name == name)


def change(model: Model, name: str, edit: Callable[[Array], Array]) -> None:
    """Replace an initializer's value."""
    found = tensor(model, name)
    array = edit(numpy_helper.to_array(found).copy())
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def changing(name: str, edit: Callable[[Array], Array]) -> Sabotage:
    """Sabotage of one initializer."""
    return lambda model: change(model, name, edit)


def attribute(op: str, name: str, value: object) -> Sabotage:
    """Sabotage of an attribute of the first node of its kind."""

    def apply(model: Model) -> None:
        node = next(n for n in model.graph.node if n.op_type == op)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return apply


def drop_output(model: Model) -> None:
    """One output less."""
    del model.graph.output[-1]


def double_the_output(model: Model) -> None:
    """The output under the same name, but twice as large."""
    name = model.graph.output[0].name
    node = next(n for n in model.graph.node if name in n.output)
    node.output[0] = "half of it"
    double = helper.make_node("Add", ["half of it", "half of it"], [name])
    model.graph.node.append(double)


# sequential: c0 kernel, c1 bias, c2–c5 BatchNormalization, c6 kernel, c7 bias, …
SABOTAGES: dict[str, tuple[str, Sabotage]] = {
    "other channel": ("sequential", changing("c0", lambda w: w[[1, 0, 2]])),
    "one value": (
        "sequential",
        changing("c6", lambda w: w + (np.arange(w.size) == 3).reshape(w.shape)),
    ),
    "kernel of the consumer shifted": (
        "sequential",
        changing("c6", lambda w: np.roll(w, 1, axis=1)),
    ),
    "kernel too wide": ("sequential", changing("c6", lambda w: np.concatenate([w, w], axis=1))),
    "kernel too narrow": ("sequential", changing("c6", lambda w: w[:, :2])),
    "stale BatchNormalization scale": ("sequential", changing("c2", lambda v: np.tile(v, 2))),
    "wrong BatchNormalization shift": ("sequential", changing("c3", lambda v: v[::-1])),
    "wrong BatchNormalization mean": ("sequential", changing("c4", lambda v: v + 0.3)),
    "wrong BatchNormalization variance": ("sequential", changing("c5", lambda v: v * 1.5)),
    "bias forgotten": ("sequential", changing("c7", lambda v: v * 0)),
    "last bias off": ("sequential", changing("c15", lambda v: v + 0.01)),
    "flatten stride": ("flatten_gemm", changing("c6", lambda w: np.roll(w, 16, axis=0))),
    "flatten order": ("channels_last", changing("c8", lambda w: np.roll(w, 1, axis=1))),
    "stale shape": ("reshape_stored_width", changing("c6", lambda s: np.array([-1, 16]))),
    "shape that mixes samples": (
        "reshape_stored_width",
        changing("c6", lambda s: np.array([-1, 96])),
    ),
    "depthwise order": ("depthwise", changing("c6", lambda w: w[::-1])),
    "number of groups": ("depthwise", attribute("Conv", "group", 3)),
    "strides": ("residual", attribute("Conv", "strides", [2, 2])),
    "slopes": ("prelu", changing("c2", lambda v: v[::-1])),
    "gate": ("squeeze_excitation", changing("c10", lambda w: -w)),
    "small part of an output": ("two_outputs", changing("c6", lambda w: w * 1.01)),
    "output twice as large": ("sequential", double_the_output),
}


@pytest.mark.parametrize("name", sorted(SABOTAGES))
def test_sabotage_is_caught(name: str) -> None:
    net, sabotage = SABOTAGES[name]
    of = bench(net)
    plan, model = pruned(of)
    check(of, model, plan)
    sabotage(model)
    with pytest.raises(VerificationError) as caught:
        check(of, model, plan)
    assert "nothing was written" in caught.value.hint


def test_missing_output_is_caught() -> None:
    of = bench("two_outputs")
    plan, model = pruned(of)
    drop_output(model)
    with pytest.raises(VerificationError):
        check(of, model, plan)


def test_a_wrong_width_that_runs_when_optimised_is_caught() -> None:
    """A tensor of 3 channels into a kernel for 4: with optimisations on it can go unnoticed."""
    of = bench("recorded_shapes")
    plan, model = pruned(of)
    second = [n for n in model.graph.node if n.op_type == "Conv"][1]
    change(model, second.input[1], lambda w: np.concatenate([w, w[:, :1]], axis=1))
    del model.graph.value_info[:]
    with pytest.raises(VerificationError):
        check(of, model, plan)


def test_an_output_that_saturates_hides_nothing() -> None:
    b = Builder()
    x = b.relu(b.gemm(b.input("N", 4), (4, 6)))
    x = b.add("Softmax", b.add("Mul", b.gemm(x, (6, 3)), b.store(np.float32(0))), axis=1)
    model = b.build(x)
    of = open_bench(model, samples(model, 5), absent="zero", provider="cpu")
    plan, cut = pruned(of)
    check(of, cut, plan)
    change(cut, cut.graph.initializer[2].name, lambda w: w[:, ::-1])
    with pytest.raises(VerificationError):
        check(of, cut, plan)


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16"])
def test_a_coarse_side_branch_does_not_blunt_the_check_of_the_rest(kind: str) -> None:
    b = Builder()
    source = b.input("N", 4)
    x = b.gemm(b.relu(b.gemm(source, (4, 6))), (6, 3))
    coarse = b.add("Cast", source, to=getattr(onnx.TensorProto, kind))
    model = b.build(x, b.add("Cast", coarse, to=onnx.TensorProto.FLOAT))
    of = open_bench(model, samples(model, 5), absent="zero", provider="cpu")
    plan, cut = pruned(of)
    check(of, cut, plan)
    change(cut, "c2", lambda w: w * 1.01)
    with pytest.raises(VerificationError):
        check(of, cut, plan)


# --- sound models pass ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sequential", "fixed_batch", "two_outputs", "half_precision"])
def test_sound_model_passes(name: str) -> None:
    of = bench(name)
    plan, model = pruned(of)
    assert 0 <= check(of, model, plan) < 1e-2


def test_empty_plan_has_no_difference() -> None:
    of = bench("sequential")
    assert check(of, of.model.proto, Plan(of.model.sha256, ())) == 0


def test_difference_is_relative_to_the_output() -> None:
    """A larger output may differ by more."""
    of = bench("sequential")
    plan, model = pruned(of)
    change(model, "c15", lambda v: v + 1e-5)
    found = check(of, model, plan)
    assert 1e-7 < found < 1e-4


@pytest.mark.parametrize(
    ("masked", "found", "text"),
    [
        ([1.0, np.nan], [1.0, 2.0], "NaN or infinity in one model only"),
        ([1.0, np.inf], [1.0, -np.inf], "NaN or infinity in one model only"),
        ([1.0, 2.0], [1.0, np.nan], "finite in one model only"),
    ],
)
def test_values_that_are_not_finite_must_agree(
    masked: list[float], found: list[float], text: str
) -> None:
    probe = verification._Probe("y", tolerance=1e-4)
    with pytest.raises(VerificationError, match=text):
        verification._difference(probe, np.asarray(masked), np.asarray(found))
    assert verification._difference(probe, np.asarray(masked), np.asarray(masked)) == 0


@pytest.mark.parametrize(("shares", "passes"), [("Sigmoid", True), ("Exp", False)])
def test_a_mean_of_shares_is_compared_on_their_scale(shares: str, passes: bool) -> None:
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 6, 6), (3, 6)))
    x = b.add("Sub", b.conv(x, (6, 2)), b.store(np.float32(12)))
    model = b.build(b.add("ReduceMean", b.add(shares, x), axes=[2, 3]))
    of = open_bench(model, samples(model, 4), provider="cpu")
    plan, smaller = pruned(of)
    (subtracted,) = (t for t in smaller.graph.initializer if not t.dims)
    change(smaller, subtracted.name, lambda number: number + np.float32(0.01))
    if passes:
        assert check(of, smaller, plan) < 1e-5
    else:
        with pytest.raises(VerificationError, match="differs by"):
            check(of, smaller, plan)


def test_a_small_channel_is_compared_by_its_own_size() -> None:
    """A difference that would drown in the largest channel."""
    probe = verification._Probe("x", axis=1, kept=np.ones(2, bool), tolerance=1e-4)
    masked = np.asarray([[100.0, 10.0], [-100.0, -10.0]], np.float32)
    found = masked + np.asarray([0, 4e-3], np.float32)
    with pytest.raises(VerificationError, match=r"'x' differs by 0\.0004 of its scale"):
        verification._difference(probe, masked, found)
    elsewhere = masked + np.asarray([4e-3, 0], np.float32)
    assert verification._difference(probe, masked, elsewhere) == pytest.approx(4e-5, rel=0.1)


def test_integers_must_agree() -> None:
    b = Builder()
    x = b.head(b.relu(b.conv(b.input("N", 3, 4, 4), (3, 6))), (6, 5))
    model = b.build(b.add("ArgMax", x, axis=1, keepdims=0))
    of = open_bench(model, samples(model, 8), absent="zero", provider="cpu")
    plan, cut = pruned(of)
    check(of, cut, plan)
    change(cut, cut.graph.initializer[-1].name, lambda v: v + np.arange(5) * 3)
    with pytest.raises(VerificationError):
        check(of, cut, plan)


def test_a_model_that_was_invalid_before_is_not_held_to_the_checker() -> None:
    model = ZOO["sequential"].build()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    of = open_bench(model, samples(model, 3), absent="zero", provider="cpu")
    plan, cut = pruned(of)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(model, full_check=True)
    check(of, cut, plan)


# --- the guilty group -------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_guilty_group_is_named(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect that shows in one group only: its consumer loses the wrong channel."""
    of = bench("sequential")
    group = of.groups[number]
    name = group.reads[0].readers[0].node
    kernel = of.graph.nodes[name].input[1]

    def broken(model: Model, sha256: str, plan: Plan) -> Model:
        cut = remove(model, sha256, plan)
        guilty = any(p.group.name == group.name and not p.kept.all() for p in plan.groups)
        if guilty:
            change(cut, kernel, lambda w: np.roll(w, 1, axis=1))
        return cut

    monkeypatch.setattr(verification, "remove", broken)
    plan = make_plan(of, choice(of.groups, 3) | halves(of))
    with pytest.raises(VerificationError, match=f"^group '{group.name}': ") as caught:
        check(of, broken(of.model.proto, of.model.sha256, plan), plan)
    assert caught.value.group == group.name


def test_without_a_guilty_group_the_reason_stands_alone() -> None:
    of = bench("sequential")
    plan, model = pruned(of)
    change(model, "c15", lambda v: v + 1)
    with pytest.raises(VerificationError, match="differs by") as caught:
        check(of, model, plan)
    assert caught.value.group == ""


# --- models that can't be verified ---------------------------------------------------------------


def behind_a_conv(add: Callable[[Builder, str], str], classes: int = 4) -> Bench:
    """A bench on two convolutions with something between them and the output."""
    b = Builder()
    x = b.add("Relu", b.add("Conv", b.input("N", 3, 6, 6), b.normal(6, 3, 1, 1)))
    x = b.add("Conv", x, b.normal(classes, 6, 1, 1))
    inputs = {"x": np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)}
    return open_bench(b.build(add(b, x)), inputs, provider="cpu")


def test_random_numbers_are_no_defect() -> None:
    of = behind_a_conv(lambda b, x: b.add("Add", x, b.add("RandomNormalLike", x)))
    plan, model = pruned(of)
    with pytest.raises(ModelError, match="is another one every time that it runs"):
        check(of, model, plan)


def test_a_model_that_does_not_take_one_sample_is_no_defect() -> None:
    of = behind_a_conv(lambda b, x: b.add("Gather", x, b.store([3]), axis=0))
    plan, model = pruned(of)
    with pytest.raises(ModelError, match=r"can't run the model.*\(on 'x' \[1, 3, 6, 6\]\)"):
        check(of, model, plan)


def test_means_that_no_float_holds() -> None:
    with (
        np.errstate(all="raise"),
        pytest.raises(ModelError, match="too large for float32") as error,
    ):
        as_dtype(np.array([1.0, 1e39]), np.dtype(np.float32))
    assert "--absent zero" in error.value.hint
    assert as_dtype(np.array([np.inf]), np.dtype(np.float16)) == np.inf
