"""The model minus channels: folded biases, private copies, constants of all kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shapprune.bench import Bench
from onnx_shapprune.errors import ModelError, OptionError
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray, ChannelGroup, GroupPlan, Plan
from zoo import ZOO, Array, Builder, Model, assert_close, choice, run, samples


def stored(model: Model) -> dict[str, Array]:
    """Initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def node(model: Model, output: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    return next(n for n in model.graph.node if output in n.output)


def some(players: int, *kept: int) -> BoolArray:
    """A choice that keeps these players."""
    return np.isin(np.arange(players), kept)


def cut(model: Model, number: int, *kept: int) -> Model:
    """The model with only these players of one group, absent ones zero."""
    group = find_groups(Graph(model)).groups[number]
    return remove(model, "", Plan("", (GroupPlan(group, some(group.players, *kept)),)))


# --- plans ------------------------------------------------------------------------------


def test_plan_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="the plan was made for the model aaaaaaaaaaaa…") as caught:
        remove(ZOO["sequential"].build(), "b" * 64, Plan("a" * 64, ()))
    assert "this is bbbbbbbbbbbb…" in str(caught.value)
    assert caught.value.hint


def test_empty_plan_gives_an_equal_copy() -> None:
    model = ZOO["sequential"].build()
    pruned = remove(model, "", Plan("", ()))
    assert pruned == model
    assert pruned is not model


@pytest.mark.parametrize("name", sorted(ZOO.keys() - {"grouped_twice"}))
def test_one_after_the_other_is_all_at_once(name: str) -> None:
    """Cutting, analysing what is left, and cutting again leads to the same model.

    Not so where a grouped convolution ends as a depthwise one: then it has other groups.
    """
    model = ZOO[name].build()
    groups = find_groups(Graph(model)).groups
    few = choice(groups, 0)
    more = {group: kept | few[group] for group, kept in choice(groups, 1).items()}
    at_once = remove(model, "", _plan(groups, few))
    halfway = remove(model, "", _plan(groups, more))
    rest = {group: kept[more[group]] for group, kept in few.items()}
    in_two = remove(halfway, "", _plan(find_groups(Graph(halfway)).groups, rest))
    feeds = ZOO[name].samples(2)
    assert_close(run(in_two, feeds), run(at_once, feeds))


def _plan(groups: tuple[ChannelGroup, ...], kept: dict[str, BoolArray]) -> Plan:
    return Plan("", tuple(GroupPlan(group, kept[group.name]) for group in groups))


# --- what is sliced ---------------------------------------------------------------------


def test_slices_worked_out_by_hand() -> None:
    model = ZOO["sequential"].build()
    before, after = stored(model), stored(cut(model, 0, 1, 4))
    np.testing.assert_array_equal(after["c0"], before["c0"][[1, 4]])
    for name in ("c1", "c2", "c3", "c4", "c5"):
        np.testing.assert_array_equal(after[name], before[name][[1, 4]])
    np.testing.assert_array_equal(after["c6"], before["c6"][:, [1, 4]])
    assert all(np.array_equal(after[n], before[n]) for n in before if int(n[1:]) > 6)


def test_flatten_strides_worked_out_by_hand() -> None:
    model = ZOO["flatten_gemm"].build()
    before, after = stored(model), stored(cut(model, 0, 0, 3))
    rows = [*range(16), *range(48, 64)]
    np.testing.assert_array_equal(after["c6"], before["c6"][rows])


def test_channel_last_strides_worked_out_by_hand() -> None:
    model = ZOO["channels_last"].build()
    before, after = stored(model), stored(cut(model, 1, 1, 2))
    columns = [4 * pixel + channel for pixel in range(36) for channel in (1, 2)]
    np.testing.assert_array_equal(after["c8"], before["c8"][:, columns])


def test_concat_offsets_worked_out_by_hand() -> None:
    model = ZOO["concat_depthwise"].build()
    before, pruned = stored(model), cut(model, 1, 0, 2)
    after = stored(pruned)
    depthwise = next(n for n in pruned.graph.node if n.op_type == "Conv" and len(n.attribute) > 2)
    np.testing.assert_array_equal(
        after[depthwise.input[1]], before[depthwise.input[1]][[0, 1, 2, 3, 4, 6]]
    )
    assert (
        helper.get_attribute_value(next(a for a in depthwise.attribute if a.name == "group")) == 6
    )


def test_grouped_kernels_worked_out_by_hand() -> None:
    model = ZOO["grouped"].build()
    before, after = stored(model), stored(cut(model, 0, 0, 3))
    np.testing.assert_array_equal(after["c0"], before["c0"][[0, 3, 4, 7]])
    np.testing.assert_array_equal(after["c6"], before["c6"][:, [0, 3]])
    outer = stored(cut(model, 1, 1))
    np.testing.assert_array_equal(outer["c6"], before["c6"][[1, 4]])


def test_stored_width_follows() -> None:
    model = ZOO["reshape_stored_width"].build()
    shapes = [n.input[1] for n in model.graph.node if n.op_type == "Reshape"]
    after = stored(cut(model, 0, 0, 2))
    np.testing.assert_array_equal(after[shapes[0]], [-1, 32])
    np.testing.assert_array_equal(after[shapes[1]], [-1, 4, 1, 1])
    np.testing.assert_array_equal(stored(cut(model, 1, 0, 2))[shapes[1]], [-1, 2, 1, 1])


def test_lists_in_constant_nodes_stay_lists() -> None:
    pruned = cut(ZOO["constant_nodes"].build(), 0, 0, 2, 3)
    reshape = next(n for n in pruned.graph.node if n.op_type == "Reshape")
    found = node(pruned, reshape.input[1]).attribute[0]
    assert (found.name, found.type, list(found.ints)) == (
        "value_ints",
        onnx.AttributeProto.INTS,
        [-1, 48],
    )
    pruned = cut(ZOO["constant_nodes"].build(), 1, 1, 2)
    scale = next(n for n in pruned.graph.node if n.op_type == "Mul").input[1]
    found = node(pruned, scale).attribute[0]
    assert (found.name, list(found.floats)) == ("value_floats", [1.0, 1.5])


def test_stored_tensors_keep_their_other_fields() -> None:
    model = ZOO["sequential"].build()
    entry = model.graph.initializer[0].metadata_props.add()
    entry.key, entry.value = "origin", "trained"
    tensor = cut(model, 0, 1, 4).graph.initializer[0]
    assert tensor.doc_string == model.graph.initializer[0].doc_string != ""
    assert tensor.metadata_props == model.graph.initializer[0].metadata_props


# --- what is shared ---------------------------------------------------------------------


def test_shared_vectors_get_private_copies() -> None:
    model = ZOO["shared_vectors"].build()
    before, pruned = stored(model), cut(model, 1, 0, 3)
    convs = [n for n in pruned.graph.node if n.op_type == "Conv"]
    biases = [n.input[2] for n in convs]
    assert biases[0] == biases[2] == "c1"
    assert biases[1] not in before
    after = stored(pruned)
    np.testing.assert_array_equal(after["c1"], before["c1"])
    np.testing.assert_array_equal(after[biases[1]], before["c1"][[0, 3]])
    norm = [n for n in pruned.graph.node if n.op_type == "BatchNormalization"][1]
    assert norm.input[2] == norm.input[3] == biases[1]


def test_no_copy_where_all_readers_agree() -> None:
    model = ZOO["aliased"].build()
    pruned = cut(model, 0, 0, 3)
    assert [t.name for t in pruned.graph.initializer] == [t.name for t in model.graph.initializer]
    assert [n.output[0] for n in pruned.graph.node] == [n.output[0] for n in model.graph.node]


def test_shared_shape_gets_a_copy() -> None:
    pruned = cut(ZOO["shared_shape"].build(), 1, 0, 1, 2)
    names = [n.input[1] for n in pruned.graph.node if n.op_type == "Reshape"]
    np.testing.assert_array_equal(stored(pruned)[names[0]], [0, 8, 16])
    np.testing.assert_array_equal(stored(pruned)[names[1]], [0, 3, 16])


def test_copies_are_inputs_too_where_the_ir_demands_it() -> None:
    model = ZOO["shared_vectors"].build()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    pruned = cut(model, 1, 0, 3)
    onnx.checker.check_model(pruned, full_check=True)
    inputs = {info.name for info in pruned.graph.input}
    assert {tensor.name for tensor in pruned.graph.initializer} <= inputs


def test_listed_inputs_become_narrower() -> None:
    pruned = cut(ZOO["initializers_as_inputs"].build(), 0, 1, 4)
    sizes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in pruned.graph.input
    }
    assert sizes["c0"] == [2, 3, 3, 3]
    assert sizes["c6"] == [5, 2, 3, 3]
    onnx.checker.check_model(pruned, full_check=True)


def test_new_names_avoid_those_that_are_taken() -> None:
    model = ZOO["shared_vectors"].build()
    model.graph.node[0].name, model.graph.node[1].name = "c1_1", "c1_2"
    pruned = cut(model, 1, 0, 3)
    names = [t.name for t in pruned.graph.initializer] + [n.name for n in pruned.graph.node]
    assert len(names) == len(set(names))


def test_new_names_avoid_those_in_bodies() -> None:
    model = ZOO["shared_vectors"].build()
    end = model.graph.output[0]
    inner = helper.make_node("Identity", [end.name], ["c1_1"])
    body = helper.make_graph([inner], "body", [], [helper.make_empty_tensor_value_info("c1_1")])
    body.output[0].type.CopyFrom(end.type)
    model.graph.initializer.append(numpy_helper.from_array(np.bool_(True), "yes"))
    choose = helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body)
    model.graph.node.append(choose)
    end.name = "chosen"
    onnx.checker.check_model(model, full_check=True)
    pruned = cut(model, 1, 0, 3)
    assert "c1_1" not in stored(pruned)
    onnx.checker.check_model(pruned, full_check=True)


# --- means, folded into biases ----------------------------------------------------------

FOLDS: dict[str, Callable[[Builder, str], str]] = {}
"""Linear nodes behind 6 channels [2, 6] whose absent ones take their means."""


def fold(name: str) -> Callable[[Callable[[Builder, str], str]], Callable[[Builder, str], str]]:
    """Register a linear node."""

    def register(step: Callable[[Builder, str], str]) -> Callable[[Builder, str], str]:
        FOLDS[name] = step
        return step

    return register


def picture(b: Builder, x: str) -> str:
    """Rows as pictures of one pixel."""
    return b.add("Unsqueeze", x, b.store([2, 3]))


def row(b: Builder, x: str) -> str:
    """Pictures of one pixel as rows."""
    return b.add("Squeeze", x, b.store([2, 3]))


FOLDS["Conv with bias"] = lambda b, x: row(
    b, b.add("Conv", picture(b, x), b.normal(5, 6, 1, 1), b.normal(5))
)
FOLDS["Conv without bias"] = lambda b, x: row(b, b.add("Conv", picture(b, x), b.normal(5, 6, 1, 1)))
FOLDS["Conv with an empty bias"] = lambda b, x: row(
    b, b.add("Conv", picture(b, x), b.normal(5, 6, 1, 1), "")
)
FOLDS["Conv in groups"] = lambda b, x: row(
    b, b.add("Conv", picture(b, x), b.normal(4, 3, 1, 1), b.normal(4), group=2)
)
FOLDS["Conv with an aliased bias"] = lambda b, x: row(
    b, b.add("Conv", picture(b, x), b.normal(5, 6, 1, 1), b.add("Identity", b.normal(5)))
)
FOLDS["Gemm"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), b.normal(5))
FOLDS["Gemm transB"] = lambda b, x: b.add("Gemm", x, b.normal(5, 6), b.normal(5), transB=1)
FOLDS["Gemm transA"] = lambda b, x: b.add(
    "Gemm", b.add("Transpose", x), b.normal(6, 5), b.normal(5), transA=1
)
FOLDS["Gemm scaled"] = lambda b, x: b.add(
    "Gemm", x, b.normal(6, 5), b.normal(5), alpha=0.5, beta=-2.0
)
FOLDS["Gemm without bias"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), alpha=2.0, beta=0.5)
FOLDS["Gemm with one number"] = lambda b, x: b.add(
    "Gemm", x, b.normal(6, 5), b.store(np.float32(0.7)), beta=2.0
)
FOLDS["Gemm with a list of one"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), b.normal(1))
FOLDS["Gemm with one row"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), b.normal(1, 5), beta=3.0)
FOLDS["Gemm with a column"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), b.normal(2, 1))
FOLDS["Gemm with a matrix"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), b.normal(2, 5))
FOLDS["Gemm with a single output"] = lambda b, x: b.add("Gemm", x, b.normal(6, 1), b.normal(2, 1))
FOLDS["Gemm that ignores its bias"] = lambda b, x: b.add(
    "Gemm", x, b.normal(6, 5), b.normal(5), beta=0.0
)
FOLDS["Gemm with beta and no bias"] = lambda b, x: b.add("Gemm", x, b.normal(6, 5), beta=0.0)
FOLDS["MatMul"] = lambda b, x: b.add("MatMul", x, b.normal(6, 5))
FOLDS["MatMul and Add"] = lambda b, x: b.add("Add", b.add("MatMul", x, b.normal(6, 5)), b.normal(5))
FOLDS["MatMul of a stack"] = lambda b, x: b.add(
    "Squeeze",
    b.add("MatMul", b.add("Unsqueeze", x, b.store([1])), b.normal(6, 5)),
    b.store([1]),
)
FOLDS["two readers"] = lambda b, x: b.add(
    "Add", b.add("Gemm", x, b.normal(6, 5)), b.add("MatMul", x, b.normal(6, 5))
)


@fold("two readers with one bias")
def _(b: Builder, x: str) -> str:
    bias = b.normal(5)
    one, two = (b.add("Gemm", x, b.normal(6, 5), bias) for _ in range(2))
    return b.add("Add", one, two)


@fold("Gemm in a row")
def _(b: Builder, x: str) -> str:
    """The node that reads one group and makes another."""
    x = b.add("Tanh", b.add("Gemm", x, b.normal(6, 4), b.normal(4)))
    return b.add("Gemm", x, b.normal(4, 5))


@fold("Conv in a row without bias")
def _(b: Builder, x: str) -> str:
    x = b.add("Tanh", b.add("Conv", picture(b, x), b.normal(4, 6, 1, 1)))
    return row(b, b.add("Conv", x, b.normal(5, 4, 1, 1)))


@fold("MatMul in a row")
def _(b: Builder, x: str) -> str:
    x = b.add("Tanh", b.add("MatMul", x, b.normal(6, 4)))
    return b.add("MatMul", x, b.normal(4, 5))


def folded(name: str) -> Bench:
    """A bench on a net with this linear node, absent = mean."""
    b = Builder()
    x = b.add("Sigmoid", b.gemm(b.input(2, 3), (3, 6)))
    model = b.build(FOLDS[name](b, x))
    onnx.checker.check_model(model, full_check=True)
    return open_bench(model, samples(model, 8), absent="mean", provider="cpu")


def replaced(bench: Bench, plan: Plan) -> Model:
    """The source where absent channels take their means at the readers, by hand."""
    model = onnx.ModelProto()
    model.CopyFrom(bench.model.proto)
    for part in plan.groups:
        for read in part.group.reads:
            means = _means(bench, read.tensor, read.axis)
            rank = len(bench.graph.shape(read.tensor) or ())
            form = [-1 if axis == read.axis else 1 for axis in range(rank)]
            chosen = read.kept_positions(part.kept).reshape(form)
            for slot in read.readers:
                _choose(model, (slot.node, slot.index), chosen, means.reshape(form))
    return model


def _means(bench: Bench, tensor: str, axis: int) -> Array:
    every = [run(bench.model.proto, feeds, [tensor])[0] for feeds in bench.batches]
    array = np.concatenate(every).astype(np.float64)
    if axis == 0:  # rows were transposed: the batch runs along axis 1
        array = np.concatenate(every, axis=1).astype(np.float64)
    return array.mean(axis=tuple(a for a in range(array.ndim) if a != axis)).astype(np.float32)


def _choose(model: Model, slot: tuple[str, int], chosen: Array, means: Array) -> None:
    nodes = model.graph.node
    position = next(i for i, n in enumerate(nodes) if n.output[0] == slot[0])
    names = [f"{kind} {len(nodes)}" for kind in ("chosen", "means", "mixed")]
    model.graph.initializer.append(numpy_helper.from_array(chosen, names[0]))
    model.graph.initializer.append(numpy_helper.from_array(means, names[1]))
    inputs = [names[0], nodes[position].input[slot[1]], names[1]]
    nodes[position].input[slot[1]] = names[2]
    nodes.insert(position, helper.make_node("Where", inputs, [names[2]]))


@pytest.mark.parametrize("name", sorted(FOLDS))
def test_folded_is_replaced_by_the_mean(name: str) -> None:
    bench = folded(name)
    assert bench.groups[0].players == (3 if name == "Conv in groups" else 6)
    for seed in range(3):
        plan = make_plan(bench, choice(bench.groups, seed))
        pruned = remove(bench.model.proto, bench.model.sha256, plan)
        onnx.checker.check_model(pruned, full_check=True)
        expected = replaced(bench, plan)
        for feeds in bench.batches:
            assert_close(run(pruned, feeds), run(expected, feeds))


def test_new_bias_worked_out_by_hand() -> None:
    bench = folded("Conv without bias")
    kept = some(6, 0, 2, 3)
    plan = make_plan(bench, {bench.groups[0].name: kept})
    pruned = remove(bench.model.proto, bench.model.sha256, plan)
    read = bench.groups[0].reads[0]
    kernel = stored(bench.model.proto)[node(bench.model.proto, read.readers[0].node).input[1]]
    means = _means(bench, read.tensor, 1)
    expected = kernel[:, ~kept, 0, 0] @ means[~kept]
    bias = stored(pruned)[node(pruned, read.readers[0].node).input[2]]
    np.testing.assert_allclose(bias, expected, rtol=1e-5)


def test_add_behind_a_matmul_takes_its_name() -> None:
    bench = folded("MatMul")
    plan = make_plan(bench, {bench.groups[0].name: some(6, 1)})
    pruned = remove(bench.model.proto, bench.model.sha256, plan)
    assert [n.op_type for n in pruned.graph.node[-2:]] == ["MatMul", "Add"]
    assert pruned.graph.node[-1].output[0] == bench.model.proto.graph.output[0].name
    assert pruned.graph.node[-1].input[0] == pruned.graph.node[-2].output[0]


def test_nothing_absent_adds_no_bias() -> None:
    bench = folded("MatMul")
    whole = {group.name: np.ones(group.players, bool) for group in bench.groups}
    pruned = remove(bench.model.proto, bench.model.sha256, make_plan(bench, whole))
    assert pruned == bench.model.proto


def test_precision_of_a_new_bias_is_that_of_the_kernel() -> None:
    model = ZOO["half_precision"].build()
    bench = open_bench(model, samples(model, 4), absent="mean", provider="cpu")
    plan = make_plan(bench, choice(bench.groups, 1))
    pruned = remove(model, bench.model.sha256, plan)
    assert {t.data_type for t in pruned.graph.initializer} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("entries", [1, 99])
def test_a_mask_of_another_length_is_refused(entries: int) -> None:
    model = ZOO["sequential"].build()
    group = find_groups(Graph(model)).groups[0]
    plan = Plan("digest", (GroupPlan(group, np.zeros(entries, bool)),))
    with pytest.raises(OptionError, match=f"has {entries} entries for {group.players} players"):
        remove(model, "digest", plan)
