"""The dependency analysis where things are shared, captured, aliased, or meet what must stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.errors import NothingToPrune, OptionError, TargetUnreachable
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.masking import mask_name, masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench, prune
from onnx_shapprune.scoring import Scoring
from onnx_shapprune.types import Coupling, Wishes
from onnx_shapprune.verification import verify
from zoo import ZOO, Builder, Model, assert_close, choice, run, samples, with_recorded_shapes

ODD: dict[str, tuple[Callable[[], Model], set[tuple[int, ...]]]] = {}
"""Nets with a trap in them: what builds them, and which players their groups may have."""


def odd(
    *players: int, or_else: tuple[int, ...] | None = None
) -> Callable[[Callable[[], Model]], Callable[[], Model]]:
    """Register a net; where refusing more is sound too, ``or_else`` says what is left then."""

    def register(build: Callable[[], Model]) -> Callable[[], Model]:
        ODD[build.__name__] = (build, {players, players if or_else is None else or_else})
        return build

    return register


def couplings(model: Model, *exclude: str) -> Coupling:
    """Groups of a model by inference alone."""
    return find_groups(Graph(model), Wishes(exclude))


def started(batch: int | str = "N") -> tuple[Builder, str, str]:
    """A builder, its input [batch, 3, 4, 4], and 8 channels behind a Relu."""
    b = Builder()
    source = b.input(batch, 3, 4, 4)
    return b, source, b.relu(b.conv(source, (3, 8)))


def if_positive(
    b: Builder, source: str, op: str, captured: str, elem_type: int = TensorProto.FLOAT
) -> str:
    """An If whose branches read an outer tensor: Neg or Abs of ``op`` of it."""
    largest = b.add("ReduceMax", source, keepdims=0)
    condition = b.add("Greater", largest, b.store(np.float32(0)))
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        end, last = f"{branch} {len(b.nodes)}", "Abs" if branch == "else_branch" else "Neg"
        nodes = [
            helper.make_node(op, [captured], [f"{end} inner"]),
            helper.make_node(last, [f"{end} inner"], [end]),
        ]
        info = helper.make_tensor_value_info(end, elem_type, None)
        bodies[branch] = helper.make_graph(nodes, branch, [], [info])
    return b.add("If", condition, **bodies)


# --- stored numbers with several readers ------------------------------------------------


def stored_shape(b: Builder, source: str) -> str:
    """[N, 8, 16]: the batch from a Shape, the rest stored."""
    batch = b.add("Gather", b.add("Shape", source), b.store([0]), axis=0)
    return b.add("Concat", batch, b.store([8, 16]), axis=0)


def mean_of_rows(b: Builder, x: str, shape: str) -> str:
    """Reshape, mean over pixels, Gemm."""
    x = b.add("ReduceMean", b.add("Reshape", x, shape), axes=[2], keepdims=0)
    return b.gemm(x, (8, 3))


@odd(8, or_else=())
def one_shape_for_two_views_of_a_group() -> Model:
    b, source, x = started()
    shape = stored_shape(b, source)
    y = b.add("Reshape", b.add("Sigmoid", x), shape)
    y = b.add("Add", y, b.add("Reshape", x, shape))
    return b.build(b.gemm(b.add("ReduceMean", y, axes=[2], keepdims=0), (8, 3)))


@odd(8, or_else=())
def one_shape_for_two_groups() -> Model:
    b, source, x = started()
    other = b.relu(b.conv(source, (3, 8)))
    shape = stored_shape(b, source)
    return b.build(b.add("Add", mean_of_rows(b, x, shape), mean_of_rows(b, other, shape)))


@odd()
def one_shape_also_for_an_input() -> Model:
    b, source, x = started()
    other = b.input("N", 8, 4, 4, name="z")
    shape = stored_shape(b, source)
    return b.build(b.add("Add", mean_of_rows(b, x, shape), mean_of_rows(b, other, shape)))


@odd()
def one_shape_also_for_an_expand() -> Model:
    b, source, x = started()
    shape = stored_shape(b, source)
    wide = b.add("ReduceMean", b.add("Expand", b.normal(1, 8, 16), shape), axes=[2], keepdims=0)
    return b.build(b.add("Add", mean_of_rows(b, x, shape), b.gemm(wide, (8, 3))))


@odd()
def shape_is_an_output() -> Model:
    b, source, x = started()
    shape = stored_shape(b, source)
    return b.build(mean_of_rows(b, x, shape), shape)


@odd(8, or_else=())
def cast_shape_for_two_views_of_a_group() -> Model:
    b, _, x = started()
    shape = b.add("Cast", b.store(np.array([0, 8, 16], np.int32)), to=TensorProto.INT64)
    y = b.add("Add", b.add("Reshape", b.add("Sigmoid", x), shape), b.add("Reshape", x, shape))
    return b.build(b.gemm(b.add("ReduceMean", y, axes=[2], keepdims=0), (8, 3)))


@odd(8, 8)
def cast_shape_for_two_groups() -> Model:
    b, source, x = started()
    other = b.relu(b.conv(source, (3, 8)))
    shape = b.add("Cast", b.store(np.array([0, 8, 16], np.int32)), to=TensorProto.INT64)
    return b.build(b.add("Add", mean_of_rows(b, x, shape), mean_of_rows(b, other, shape)))


@odd(8)
def cast_shape_also_for_an_input() -> Model:
    b, _, x = started()
    other = b.input("N", 8, 4, 4, name="z")
    shape = b.add("Cast", b.store(np.array([0, 8, 16], np.int32)), to=TensorProto.INT64)
    return b.build(b.add("Add", mean_of_rows(b, x, shape), mean_of_rows(b, other, shape)))


@odd(8)
def aliased_shape_is_an_output() -> Model:
    b, _, x = started()
    shape = b.add("Cast", b.store(np.array([0, 8, 16], np.int32)), to=TensorProto.INT64)
    return b.build(mean_of_rows(b, x, shape), shape)


# --- sizes that leave the graph ---------------------------------------------------------


@odd(4)
def width_is_an_output() -> Model:
    b, _, x = started()
    sizes = b.add("Shape", x)
    return b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)), sizes)


@odd(4)
def gathered_width_is_an_output() -> Model:
    b, _, x = started()
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    return b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)), width)


@odd(8, 4)
def batch_is_an_output() -> Model:
    b, _, x = started()
    batch = b.add("Gather", b.add("Shape", x), b.store([0]), axis=0)
    return b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)), batch)


@odd(4)
def width_is_captured() -> Model:
    b, source, x = started()
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    factor = if_positive(b, source, "Identity", b.add("Identity", width), TensorProto.INT64)
    factor = b.add("Cast", factor, to=TensorProto.FLOAT)
    return b.build(b.add("Mul", b.head(b.relu(b.conv(x, (8, 4))), (4, 3)), factor))


# --- constants that others see ----------------------------------------------------------


@odd(8)
def alias_is_an_output() -> Model:
    b = Builder()
    x = b.conv(b.input("N", 3, 4, 4), (3, 8), bias=False)
    scale = b.uniform(8)
    alias = b.add("Identity", scale)
    x = b.add("BatchNormalization", x, scale, b.normal(8), b.normal(8), b.uniform(8))
    return b.build(b.head(b.relu(x), (8, 3)), alias)


@odd(8)
def alias_is_captured() -> Model:
    b = Builder()
    source = b.input("N", 3, 4, 4)
    x = b.conv(source, (3, 8), bias=False)
    scale = b.uniform(8)
    inside = if_positive(b, source, "Exp", b.add("Identity", scale))
    x = b.add("BatchNormalization", x, scale, b.normal(8), b.normal(8), b.uniform(8))
    total = b.add("ReduceSum", inside, keepdims=0)
    return b.build(b.add("Add", b.head(b.relu(x), (8, 3)), total))


@odd(8)
def bias_is_captured() -> Model:
    b = Builder()
    source, bias = b.input("N", 3, 4, 4), b.normal(8)
    x = b.relu(b.add("Conv", source, b.kernel((3, 8)), bias))
    total = b.add("ReduceSum", if_positive(b, source, "Exp", bias), keepdims=0)
    return b.build(b.add("Add", b.head(x, (8, 3)), total))


@odd()
def kernel_is_captured() -> Model:
    b = Builder()
    source, kernel = b.input("N", 3, 4, 4), b.kernel((3, 8))
    x = b.relu(b.add("Conv", source, kernel))
    total = b.add("ReduceSum", if_positive(b, source, "Exp", kernel), keepdims=0)
    return b.build(b.add("Add", b.head(x, (8, 3)), total))


@odd(4)
def kernel_is_trained() -> Model:
    """A training step in the same file sets the first kernel, and reads the last bias."""
    b, _, x = started()
    model = b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)))
    step = helper.make_node("Neg", ["c0"], ["next"])
    training = model.training_info.add()
    training.algorithm.CopyFrom(helper.make_graph([step], "step", [], []))
    training.update_binding.add(key="c0", value="next")
    training.initialization_binding.add(key="c3", value="c5")
    return model


@odd(8)
def constant_is_an_output() -> Model:
    b, _, x = started()
    shift = b.add("Constant", value=onnx.numpy_helper.from_array(np.ones((8, 1, 1), np.float32)))
    return b.build(b.head(b.relu(b.add("Add", x, shift)), (8, 3)), shift)


@odd(8, 8)
def vector_in_two_forms() -> Model:
    b = Builder()
    x, vector = b.conv(b.input("N", 3, 4, 4), (3, 8), bias=False), b.uniform(8)
    x = b.add("Add", x, b.add("Reshape", vector, b.store([8, 1, 1])))
    x = b.conv(b.relu(x), (8, 8), bias=False)
    x = b.add("Mul", x, b.add("Unsqueeze", vector, b.store([1, 2])))
    return b.build(b.head(b.add("BatchNormalization", x, *[vector] * 4), (8, 3)))


@odd(8, 8)
def shape_of_constants_is_shared() -> Model:
    b = Builder()
    x, shape = b.conv(b.input("N", 3, 4, 4), (3, 8), bias=False), b.store([8, 1, 1])
    x = b.relu(b.add("Add", x, b.add("Reshape", b.normal(8), shape)))
    x = b.conv(x, (8, 8), bias=False)
    x = b.relu(b.add("Add", x, b.add("Reshape", b.normal(1, 8), shape)))
    return b.build(b.head(x, (8, 3)))


@odd(5, 6, 4)
def recorded_constants_in_other_form() -> Model:
    return with_recorded_shapes(ZOO["constants_in_other_form"].build())


@odd(5, 4)
def recorded_aliases() -> Model:
    return with_recorded_shapes(ZOO["aliased"].build())


@odd(8, 4)
def cast_constants() -> Model:
    b, _, x = started()
    scale = b.add("Cast", b.store(np.arange(8)), to=TensorProto.FLOAT)
    x = b.add("Mul", x, b.add("Reshape", scale, b.store([1, -1, 1, 1])))
    return b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)))


@odd(5, 4)
def typed_fields() -> Model:
    """Values in the typed fields of tensors instead of raw bytes."""
    model = ZOO["flatten_gemm"].build()
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        typed = helper.make_tensor(tensor.name, tensor.data_type, array.shape, array.ravel())
        tensor.CopyFrom(typed)
    return model


# --- Reshape's zeros and other layout ---------------------------------------------------


@odd()
def zero_copies_the_channels_elsewhere() -> Model:
    """Source [2, 4, 4], shape [-1, 0]: the zero takes the number of channels for an axis."""
    b = Builder()
    x = b.relu(b.conv(b.input(2, 3, 4), (3, 4), rank=1))
    x = b.add("Transpose", b.add("Reshape", x, b.store([-1, 0])), perm=[1, 0])
    return b.build(b.gemm(x, (8, 3)))


@odd(8)
def flattened_with_the_batch_of_one() -> Model:
    b, _, x = started(1)
    x = b.add("Reshape", x, b.store([8, 16]))
    return b.build(b.add("Gemm", b.add("Transpose", x), b.normal(8, 3), b.normal(3)))


@odd(8, 16)
def tokens() -> Model:
    """Patches as tokens, a feed-forward part with a residual, the mean over tokens."""
    b = Builder()
    x = b.conv(b.input("N", 3, 8, 8), (3, 8), 2, pads=[0] * 4, strides=[2, 2])
    x = b.add("Transpose", b.add("Reshape", x, b.store([0, 8, -1])), perm=[0, 2, 1])
    y = b.add("Add", b.add("MatMul", x, b.normal(8, 16, scale=0.3)), b.normal(16))
    y = b.add("MatMul", b.relu(y), b.normal(16, 8, scale=0.3))
    return b.build(b.gemm(b.add("ReduceMean", b.add("Add", x, y), axes=[1], keepdims=0), (8, 3)))


@odd(8)
def one_row_for_two_readers() -> Model:
    b, _, x = started()
    row = b.add("Flatten", x)
    one = b.gemm(row, (128, 3))
    return b.build(b.add("Add", one, b.gemm(b.add("Tanh", row), (128, 3), transposed=False)))


# --- what must stay beside what may go --------------------------------------------------


@odd(5, 4)
def depthwise_over_both() -> Model:
    b = Builder()
    source = b.input("N", 3, 4, 4)
    x = b.add("Concat", source, b.relu(b.conv(source, (3, 5))), axis=1)
    return b.build(b.head(b.relu(b.conv(b.depthwise(x, 8, 2), (16, 4), 1)), (4, 3)))


@odd(2, 4)
def groups_over_both() -> Model:
    """Only the pair of channels that meets none of the input's can go."""
    b = Builder()
    source = b.input("N", 3, 4, 4)
    x = b.add("Concat", source, b.relu(b.conv(source, (3, 7))), axis=1)
    return b.build(b.head(b.relu(b.conv(x, (10, 8), groups=2)), (8, 3)))


@odd(5, 8, or_else=(8,))
def unread() -> Model:
    """A convolution that nothing reads."""
    b = Builder()
    source = b.input("N", 3, 4, 4)
    b.conv(source, (3, 5))
    return b.build(b.head(b.relu(b.conv(source, (3, 8))), (8, 3)))


@odd(5, or_else=())
def only_unread() -> Model:
    b = Builder()
    source = b.input("N", 3, 4, 4)
    b.conv(source, (3, 5))
    return b.build(b.add("Relu", source))


@odd(8, 4)
def names_that_collide() -> Model:
    """A node without a name beside one that is called like its output."""
    model = _two_convolutions()
    first, second = (n for n in model.graph.node if n.op_type == "Conv")
    first.name, second.name = second.output[0], ""
    return model


def _two_convolutions() -> Model:
    b, _, x = started()
    return b.build(b.head(b.relu(b.conv(x, (8, 4))), (4, 3)))


@odd(8)
def sparse_constant() -> Model:
    """A constant that is stored sparsely, behind the masks."""
    b, _, x = started()
    model = b.build(b.add("Add", b.head(x, (8, 3)), "sparse"))
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], [0, 2])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))
    return model


@odd()
def sparse_constant_per_channel() -> Model:
    b, _, x = started()
    x = b.add("Add", b.add("Transpose", x, perm=[0, 2, 3, 1]), "sparse")
    model = b.build(b.head(b.add("Transpose", x, perm=[0, 3, 1, 2]), (8, 3)))
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], [0, 2])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8]))
    return model


@odd(5, 4)
def loop() -> Model:
    """The body of a Loop: its output's rank is not known."""
    b, _, x = started()
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "s"], ["t"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, None),
        ],
    )
    x = b.add("Loop", b.store(np.int64(2)), "", x, body=body)
    x = b.relu(b.conv(b.relu(b.conv(x, (8, 5))), (5, 4)))
    return b.build(b.head(x, (4, 3)))


# --- precision --------------------------------------------------------------------------


def _half(b: Builder, inner: Callable[[str], str], *sizes: int) -> Model:
    """float32 outside, float16 inside, as converters make it."""
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *sizes]))
    x = inner(b.add("Cast", "x", to=TensorProto.FLOAT16))
    return b.build(b.add("Cast", x, to=TensorProto.FLOAT))


@odd(8, 6, 4)
def half_inside() -> Model:
    b = Builder(dtype=np.float16)

    def inner(x: str) -> str:
        x = b.block(b.block(x, (3, 8)), (8, 6))
        return b.head(b.relu(b.conv(x, (6, 4))), (4, 3))

    return _half(b, inner, 3, 6, 6)


@odd(64, 64)
def half_perceptron() -> Model:
    b = Builder(dtype=np.float16)

    def inner(x: str) -> str:
        return b.gemm(b.relu(b.gemm(b.relu(b.gemm(x, (8, 64))), (64, 64))), (64, 3))

    return _half(b, inner, 8)


@odd(5, 4)
def half_behind_a_vendor_operator() -> Model:
    """Inference loses rank and type behind it."""
    b = Builder(dtype=np.float16)

    def inner(x: str) -> str:
        x = b.add("Trilu", b.conv(x, (3, 6)), domain="com.microsoft")
        return b.head(b.relu(b.conv(b.relu(b.conv(x, (6, 5))), (5, 4))), (4, 3))

    return _half(b, inner, 3, 6, 6)


def _type(b: Builder, scale: float) -> tuple[str, str]:
    """Scale and zero point of quantised activations."""
    return b.store(np.float32(scale)), b.store(np.uint8(120))


def _quantised_conv(b: Builder, x: Sequence[str], sizes: tuple[int, int]) -> tuple[str, str, str]:
    """A quantised convolution; its output with its scale and zero point."""
    kernel = b.store(b.rng.integers(-100, 100, (*sizes[::-1], 3, 3)).astype(np.int8))
    scales = b.uniform(sizes[1]), b.store(np.zeros(sizes[1], np.int8))
    bias = b.store(b.rng.integers(-100, 100, sizes[1]).astype(np.int32))
    end = _type(b, 40.0)
    return b.add("QLinearConv", *x, kernel, *scales, *end, bias, pads=[1] * 4), *end


@odd(5, 6)
def quantised_operators() -> Model:
    """What ONNX Runtime's quantiser makes of a net if it is asked for operators."""
    b = Builder(seed=1)
    x = (b.add("QuantizeLinear", b.input("N", 3, 6, 6), *(given := _type(b, 0.02))), *given)
    x = _quantised_conv(b, x, (3, 5))
    y = _quantised_conv(b, x, (5, 5))
    end, ms = _type(b, 60.0), {"domain": "com.microsoft"}
    x = (b.add("QLinearAdd", *x, *y, *end, **ms), *end)
    y = _quantised_conv(b, x, (5, 6))
    y = (b.add("QLinearLeakyRelu", *y, *end, alpha=0.1, **ms), *end)
    x = (b.add("QLinearConcat", *end, *x, *y, axis=1, **ms), *end)
    x = (b.add("QLinearGlobalAveragePool", *x, *end, channels_last=0, **ms), *end)
    kernel = b.store(b.rng.integers(-100, 100, (11, 3)).astype(np.int8))
    columns = kernel, b.uniform(3), b.store(np.zeros(3, np.int8))
    last = _type(b, 500.0)
    rows = (b.add("Flatten", x[0]), *end)
    bias = b.store(b.rng.integers(-9, 9, 3).astype(np.int32))
    x = b.add("QGemm", *rows, *columns, bias, *last, **ms)
    return b.build(b.add("DequantizeLinear", x, *last))


# --- the contract holds on all of them --------------------------------------------------


def opened(name: str, absent: Absent = "zero") -> Bench:
    """A bench on one of the nets."""
    model = ODD[name][0]()
    onnx.checker.check_model(model)
    return open_bench(model, samples(model, 6), absent=absent, provider="cpu")


@pytest.mark.parametrize("absent", ["zero", "mean"])
@pytest.mark.parametrize("name", sorted(ODD))
def test_masked_is_removed(name: str, absent: Absent) -> None:
    bench = opened(name, absent)
    masked = masked_model(bench.graph, bench.groups, bench.shifts)
    feeds = bench.batches[0]
    for seed in range(3):
        plan = make_plan(bench, choice(bench.groups, seed))
        pruned = remove(bench.model.proto, bench.model.sha256, plan)
        verify(bench.graph, bench.model, pruned, plan, bench.calibration)
        masks = {mask_name(part.group.name): part.kept.astype(np.float32) for part in plan.groups}
        expected, found = run(masked, {**feeds, **masks}), run(pruned, feeds)
        if "half" in name:
            expected, found = ([a.astype(np.float16) for a in many] for many in (expected, found))
        assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(ODD))
def test_pruned_or_said_why_not(name: str) -> None:
    """The whole path, with coalitions played on the part behind the masks."""
    bench = opened(name, "mean")
    try:
        report = prune(bench, keep=0.8, scoring=Scoring(estimator="leave-one-out")).report
    except (NothingToPrune, TargetUnreachable) as error:
        report = error.result.report
    assert report.groups or report.skipped
    assert report.metric.removed == pytest.approx(report.metric.masked, rel=0.1, abs=1e-3)


@pytest.mark.parametrize("name", sorted(ODD))
def test_groups_are_those_worked_out_by_hand(name: str) -> None:
    found = opened(name).groups
    assert tuple(group.players for group in found) in ODD[name][1]
    assert len({group.name for group in found}) == len(found)


@pytest.mark.parametrize("name", sorted(ODD))
def test_every_convolution_is_cut_or_has_a_reason(name: str) -> None:
    bench = opened(name)
    held = {member for group in bench.groups for member in group.members}
    held |= {member for entry in bench.coupling.skipped for member in entry.members}
    makers = [n for n in bench.model.proto.graph.node if "Conv" in n.op_type]
    assert [n.output[0] for n in makers if not {n.name, n.output[0]} & held] == []


# --- what is tied to what ---------------------------------------------------------------


def test_residual_members_are_one_group() -> None:
    groups = couplings(ZOO["residual"].build()).groups
    assert [group.members for group in groups] == [("Conv_0", "Conv_6"), ("Conv_3",)]


def test_depthwise_is_a_member_of_its_producer() -> None:
    groups = couplings(ZOO["depthwise"].build()).groups
    assert [group.members for group in groups] == [("Conv_0", "Conv_3"), ("Conv_6",)]


def test_concat_keeps_branches_apart() -> None:
    groups = couplings(ZOO["concat_depthwise"].build()).groups
    assert [group.players for group in groups] == [4, 3, 5]
    assert groups[0].members[-1] == groups[1].members[-1]
    depthwise = next(cut for cut in groups[1].weights if len(cut.owner) == 7)
    np.testing.assert_array_equal(depthwise.owner, [-1, -1, -1, -1, 0, 1, 2])


def test_concat_offsets() -> None:
    groups = couplings(ZOO["dense"].build()).groups
    reads = {cut.readers[0].node: cut.owner for cut in groups[0].reads}
    np.testing.assert_array_equal(next(iter(reads.values())), [-1, -1, -1, 0, 1, 2, 3])
    last = groups[1].reads[-1].owner
    np.testing.assert_array_equal(last, [-1] * 7 + [0, 1, 2])


def test_grouped_convolution_ties_across_groups() -> None:
    group = couplings(ZOO["grouped"].build()).groups[0]
    np.testing.assert_array_equal(group.reads[0].owner, [0, 1, 2, 3, 0, 1, 2, 3])
    kernel = next(cut for cut in group.weights if len(cut.owner) == 4)
    np.testing.assert_array_equal(kernel.owner, [0, 1, 2, 3])


def test_multiplier_repeats_players() -> None:
    group = couplings(ZOO["depthwise_multiplier"].build()).groups[0]
    read = next(cut for cut in group.reads if len(cut.owner) == 8)
    np.testing.assert_array_equal(read.owner, [0, 0, 1, 1, 2, 2, 3, 3])
    follow = next(f for f in group.follows if f.attribute == "group")
    np.testing.assert_array_equal(follow.owner, [0, 1, 2, 3])


def test_gate_ties_both_ends() -> None:
    groups = couplings(ZOO["squeeze_excitation"].build()).groups
    assert groups[0].members == ("Conv_0", "Conv_6")
    assert len(groups[0].reads) == 2


def test_shared_kernel_ties_its_users() -> None:
    group = couplings(ZOO["shared_kernel_in_sequence"].build()).groups[0]
    assert group.members == ("Conv_0", "Conv_3", "Conv_5")


def test_channels_are_masked_only_where_they_are_read() -> None:
    """Behind BatchNormalization and Relu: a mask in front of them would be undone."""
    group = couplings(ZOO["sequential"].build()).groups[0]
    assert [cut.tensor for cut in group.reads] == ["t3"]
    assert [slot.node for slot in group.reads[0].readers] == ["t4"]


def test_groups_are_in_graph_order() -> None:
    names = [group.name for group in couplings(ZOO["inception"].build()).groups]
    assert names == sorted(names, key=lambda name: int(name.rpartition("_")[2]))


# --- exclude ----------------------------------------------------------------------------


def test_excluded_by_name_of_a_node() -> None:
    found = couplings(ZOO["sequential"].build(), "Conv_4")
    assert [group.players for group in found.groups] == [6, 4]
    entry = next(e for e in found.skipped if e.members == ("Conv_4",))
    assert entry.reason == "excluded by 'Conv_4'"


def test_excluded_by_pattern_and_by_tensor() -> None:
    assert couplings(ZOO["sequential"].build(), "Conv_*").groups == ()
    assert [g.players for g in couplings(ZOO["sequential"].build(), "t0").groups] == [5, 4]


def test_excluding_one_end_of_a_residual_keeps_both() -> None:
    found = couplings(ZOO["residual"].build(), "Conv_6")
    assert [group.members for group in found.groups] == [("Conv_3",)]


def test_excluding_nothing_is_an_error() -> None:
    with pytest.raises(OptionError, match="--exclude 'nonesuch' matches no node and no tensor"):
        couplings(ZOO["sequential"].build(), "nonesuch")
