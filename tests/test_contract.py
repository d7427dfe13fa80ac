"""The central promise on every net of the zoo: masked ≡ removed, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.calibration import fixed_batch
from onnx_shapprune.passes.functions import flattened
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.masking import mask_name, masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray, Plan
from onnx_shapprune.verification import verify
from zoo import ZOO, Array, Model, assert_close, choice, run

SEEDS = range(3)

each_net = pytest.mark.parametrize("name", sorted(ZOO))
each_absent = pytest.mark.parametrize("absent", ["zero", "mean"])


@cache
def bench(name: str, absent: Absent) -> Bench:
    """A net of the zoo with samples."""
    net = ZOO[name]
    return open_bench(net.build(), net.samples(6), absent=absent, provider="cpu")


def cut(of: Bench, kept: Mapping[str, BoolArray]) -> tuple[Plan, Model]:
    """The plan and the pruned model."""
    plan = make_plan(of, kept)
    return plan, remove(of.model.proto, of.model.sha256, plan)


def feeds(name: str, batch: int, seed: int = 7) -> dict[str, Array]:
    """Samples that were not used for calibration."""
    return ZOO[name].samples(fixed_batch(bench(name, "zero").model.inputs) or batch, seed)


# --- the nets themselves, and their groups ----------------------------------------------


@each_net
def test_net_is_valid(name: str) -> None:
    model = ZOO[name].build()
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 13
    outputs = run(model, feeds(name, 2))
    assert all(np.isfinite(array).all() and array.std() > 1e-6 for array in outputs)


@each_net
@each_absent
def test_groups_are_those_worked_out_by_hand(name: str, absent: Absent) -> None:
    found = bench(name, absent).groups
    assert tuple(group.players for group in found) == ZOO[name].players
    assert len({group.name for group in found}) == len(found)


@each_net
@each_absent
def test_what_stays_has_a_reason(name: str, absent: Absent) -> None:
    skipped = bench(name, absent).coupling.skipped
    assert {entry.op_type for entry in skipped} >= set(ZOO[name].skipped)
    assert all(entry.reason and entry.node and entry.members for entry in skipped)


@each_net
def test_every_convolution_is_cut_or_has_a_reason(name: str) -> None:
    of = bench(name, "zero")
    held = {member for group in of.groups for member in group.members}
    held |= {member for entry in of.coupling.skipped for member in entry.members}
    makers = [n for n in of.model.proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    missing = [n for n in makers if not {n.name, n.output[0]} & held]
    assert [(n.op_type, n.output[0]) for n in missing if n.op_type == "Conv"] == []


# --- masked ≡ removed -------------------------------------------------------------------


@each_net
@each_absent
@pytest.mark.parametrize("seed", SEEDS)
def test_masked_is_removed(name: str, absent: Absent, seed: int) -> None:
    of = bench(name, absent)
    plan, pruned = cut(of, choice(of.groups, seed))
    assert verify(of.graph, of.model, pruned, plan, of.calibration) <= 1e-2
    onnx.checker.check_model(pruned, full_check=True)
    masked = masked_model(of.graph, of.groups, of.shifts)
    masks = {mask_name(part.group.name): part.kept.astype(np.float32) for part in plan.groups}
    for batch in (1, 3):
        samples = feeds(name, batch)
        expected = run(masked, {**samples, **masks}, optimised=False)
        for optimised in (False, True):
            assert_close(run(pruned, samples, optimised=optimised), expected)


@each_net
def test_each_group_alone(name: str) -> None:
    of = bench(name, "zero")
    whole = of.costs.full()
    samples = feeds(name, 2)
    for group in of.groups:
        kept = choice(of.groups, 1)[group.name]
        kept[-1], kept[0] = False, True
        plan, pruned = cut(of, {**whole, group.name: kept})
        expected = run(zeroed(of, plan), samples, optimised=False)
        assert_close(run(pruned, samples, optimised=False), expected)


@each_net
@each_absent
def test_masks_of_ones_change_nothing(name: str, absent: Absent) -> None:
    of = bench(name, absent)
    samples = feeds(name, 2)
    masked = masked_model(of.graph, of.groups, of.shifts)
    assert_close(run(masked, samples), run(of.model.proto, samples))


@each_net
def test_keeping_all_gives_the_source(name: str) -> None:
    of = bench(name, "mean")
    _, pruned = cut(of, of.costs.full())
    assert pruned == of.model.proto


@each_net
@each_absent
def test_source_is_not_touched(name: str, absent: Absent) -> None:
    of = bench(name, absent)
    before = of.model.proto.SerializeToString(deterministic=True)
    cut(of, choice(of.groups, 2))
    masked_model(of.graph, of.groups, of.shifts)
    assert of.model.proto.SerializeToString(deterministic=True) == before
    assert before == ZOO[name].build().SerializeToString(deterministic=True)


@each_net
def test_removing_is_repeatable(name: str) -> None:
    of = bench(name, "mean")
    kept = choice(of.groups, 1)
    assert cut(of, kept)[1] == cut(of, kept)[1]


def zeroed(of: Bench, plan: Plan) -> Model:
    """The source with absent channels multiplied by zero where they are read, by hand."""
    model = onnx.ModelProto()
    model.CopyFrom(of.graph.model)
    for part in plan.groups:
        for read in part.group.reads:
            factors = read.kept_positions(part.kept).astype(np.float64)
            rank = len(of.graph.shape(read.tensor) or ())
            factors = factors.reshape([-1 if a == read.axis else 1 for a in range(rank)])
            for slot in read.readers:
                _multiply(
                    model,
                    (slot.node, slot.index),
                    factors,
                    of.graph.elem_type(read.tensor) or onnx.TensorProto.FLOAT,
                )
    return model


def _multiply(model: Model, slot: tuple[str, int], factors: Array, elem_type: int) -> None:
    lists = [body.node for body in Graph(model).bodies.values()]
    nodes = next(nodes for nodes in lists if slot[0] in [node.output[0] for node in nodes])
    position = next(i for i, n in enumerate(nodes) if n.output[0] == slot[0])
    name = f"factor {len(model.graph.initializer)}"
    kind = helper.tensor_dtype_to_np_dtype(elem_type)
    model.graph.initializer.append(numpy_helper.from_array(factors.astype(kind), name))
    product = helper.make_node("Mul", [nodes[position].input[slot[1]], name], [f"{name} applied"])
    nodes[position].input[slot[1]] = f"{name} applied"
    nodes.insert(position, product)
    model.ir_version = max(model.ir_version, 4)


# --- nothing else changes ---------------------------------------------------------------


@each_net
def test_only_what_is_listed_changes(name: str) -> None:
    of = bench(name, "zero")
    plan, pruned = cut(of, choice(of.groups, 1))
    one, other = onnx.ModelProto(), onnx.ModelProto()
    one.CopyFrom(of.graph.model)
    other.CopyFrom(flattened(pruned).model)
    _follow_copies(one, other)
    for model in (one, other):
        _blank_constants(model, set(_listed(of, plan)))
        _blank_attributes(model, plan)
        _blank_recorded(model, plan)
    assert str(one) == str(other)


@each_net
def test_folding_means_adds_only_biases(name: str) -> None:
    of = bench(name, "mean")
    _, pruned = cut(of, choice(of.groups, 1))
    source, pruned = of.graph.model.graph, without_new_constants(flattened(pruned).model)
    ids = {tuple(n.output)[-1:] for n in source.node}
    added = [n for n in pruned.graph.node if tuple(n.output)[-1:] not in ids]
    assert all(n.op_type == "MatMul" for n in added)
    nodes = [n for n in pruned.graph.node if not n.name.endswith("_bias_add")]
    assert [(n.op_type, n.name, n.doc_string) for n in nodes] == [
        (n.op_type, n.name, n.doc_string) for n in source.node
    ]
    names = [tensor.name for tensor in source.initializer]
    assert [t.name for t in pruned.graph.initializer][: len(names)] == names
    assert pruned.graph.output == source.output
    assert pruned.graph.input[: len(of.model.inputs)] == source.input[: len(of.model.inputs)]
    assert pruned.opset_import == of.model.proto.opset_import
    assert pruned.metadata_props == of.model.proto.metadata_props


def without_new_constants(model: Model) -> Model:
    """The model without the biases that its functions hold themselves."""
    nodes = [n for n in model.graph.node if not n.name.endswith("_bias")]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@each_net
def test_cut_tensors_shrink_by_what_leaves(name: str) -> None:
    of = bench(name, "zero")
    plan, pruned = cut(of, choice(of.groups, 1))
    before, after = _shapes(of.graph.model), _shapes(flattened(pruned).model)
    for part in plan.groups:
        for weight in part.group.weights:
            if sum(w.tensor == weight.tensor for p in plan.groups for w in p.group.weights) == 1:
                left = int(weight.kept_positions(part.kept).sum())
                assert before[weight.tensor][weight.axis] == len(weight.owner)
                assert after[weight.tensor][weight.axis] == left


def _listed(of: Bench, plan: Plan) -> Iterator[str]:
    """Constants that may change."""
    for part in plan.groups:
        yield from (weight.tensor for weight in part.group.weights)
        for follow in part.group.follows:
            name = of.graph.nodes[follow.slot.node].input[follow.slot.index]
            if not follow.attribute:
                yield of.graph.constant_root(name) or name


def _follow_copies(source: Model, pruned: Model) -> None:
    """Drop private copies of shared constants again; check that they are copies."""
    known = {tensor.name for tensor in source.graph.initializer}
    copies = {t.name: t for t in pruned.graph.initializer if t.name not in known}
    for one, other in zip(source.graph.node, pruned.graph.node, strict=True):
        for index, name in enumerate(other.input):
            if name in copies:
                assert name.startswith(one.input[index])
                other.input[index] = one.input[index]
    for extra in [t for t in pruned.graph.initializer if t.name in copies]:
        pruned.graph.initializer.remove(extra)
    for extra in [i for i in pruned.graph.input if i.name in copies]:
        pruned.graph.input.remove(extra)


def _blank_constants(model: Model, listed: set[str]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in listed:
            _blank(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in listed:
            del node.attribute[1:]
            node.attribute[0].CopyFrom(helper.make_attribute(node.attribute[0].name, 0))
    for info in model.graph.input:
        if info.name in listed:
            info.type.tensor_type.ClearField("shape")


def _blank(tensor: onnx.TensorProto) -> None:
    for field in ("dims", "raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(field)


def _blank_attributes(model: Model, plan: Plan) -> None:
    follows = [follow for part in plan.groups for follow in part.group.follows]
    for follow in (f for f in follows if f.attribute):
        node = next(n for n in model.graph.node if n.output[0] == follow.slot.node)
        found = next(a for a in node.attribute if a.name == follow.attribute)
        found.ClearField("i")


def _blank_recorded(model: Model, plan: Plan) -> None:
    """Recorded shapes of what became narrower."""
    cuts = {(c.tensor, c.axis) for p in plan.groups for c in (*p.group.shapes, *p.group.weights)}
    for info in model.graph.value_info:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if (info.name, axis) in cuts:
                dim.ClearField("dim_value")


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in (a for a in node.attribute if node.op_type == "Constant"):
            value = helper.get_attribute_value(attribute)
            is_tensor = isinstance(value, onnx.TensorProto)
            shapes[node.output[0]] = tuple(value.dims) if is_tensor else np.shape(value)
    return shapes
