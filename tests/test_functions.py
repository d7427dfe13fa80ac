"""Local functions: written out and folded back, the file stays what it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.functions import flattened, folded_back
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray
from onnx_shapprune.verification import verify
from zoo import ZOO, Builder, Model, choice, conv_function, run, samples


def nested() -> Model:
    """A function that calls another one twice, once in the branch of an If."""
    b = Builder()
    inner = conv_function("Inner", (4, 4), 6)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = helper.make_graph(
        [helper.make_node("Inner", ["x", "w"], ["z"], domain="local", step=[1, 1])],
        "then",
        [],
        [onnx.ValueInfoProto(name="z")],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "else", [], [onnx.ValueInfoProto(name="n")]
    )
    nodes = [
        helper.make_node("Inner", ["x", "w"], ["y"], domain="local", step=[1, 1]),
        helper.make_node("If", ["c"], ["v"], then_branch=body, else_branch=other),
        helper.make_node("Add", ["y", "v"], ["o"]),
    ]
    outer = helper.make_function("local", "Outer", ["x", "w", "c"], ["o"], nodes, opsets)
    x = b.relu(b.conv(b.input("N", 3, 8, 8), (3, 4)))
    taken = b.add("Greater", b.add("ReduceMax", x, keepdims=0), b.store(np.float32(-1)))
    y = b.relu(b.add("Outer", x, b.kernel((6, 4)), taken, domain="local"))
    return b.build(b.head(b.relu(b.conv(y, (4, 6))), (6, 3)), functions=[outer, inner])


def same_kept(groups: dict[str, int], share: float) -> dict[str, BoolArray]:
    return {name: np.arange(count) < max(1, round(share * count)) for name, count in groups.items()}


MODELS = {name: ZOO[name].build for name in ("local_function", "local_convolutions")}
MODELS["nested"] = nested


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str) -> None:
    model = MODELS[name]()
    flat = flattened(model)
    assert not flat.model.functions
    feeds = samples(model, 2)
    np.testing.assert_array_equal(run(flat.model, feeds)[0], run(model, feeds)[0])
    assert folded_back(flat.model, flat, model) == model


@pytest.mark.parametrize("name", MODELS)
def test_masked_is_removed(name: str) -> None:
    model = MODELS[name]()
    for absent in ("zero", "mean"):
        bench = open_bench(model, samples(model, 8), absent=absent, provider="cpu")
        plan = make_plan(bench, choice(bench.groups, 3))
        pruned = remove(model, bench.model.sha256, plan)
        assert verify(bench.graph, bench.model, pruned, plan, bench.calibration) <= 1e-4
        tags = [n.metadata_props for f in pruned.functions for n in f.node]
        assert not any(tags)


def test_convolutions_inside_are_found() -> None:
    bench = open_bench(nested(), samples(nested(), 8), provider="cpu")
    members = [group.members for group in bench.groups]
    first = next(found for found in members if len(found) > 1)
    assert [name.rpartition("/")[2] for name in first] == ["first", "first"]


def test_calls_that_come_out_alike_share_the_function() -> None:
    """A kernel of the function's own is one for all calls, and is counted once."""
    model = ZOO["local_convolutions"].build()
    bench = open_bench(model, samples(model, 8), absent="zero", provider="cpu")
    kept = same_kept({group.name: group.players for group in bench.groups}, 0.5)
    pruned = remove(model, bench.model.sha256, make_plan(bench, kept))
    assert [function.name for function in pruned.functions] == ["Twofold"]
    (kernel,) = (n for n in pruned.functions[0].node if n.output[0] == "k")
    assert list(kernel.attribute[0].t.dims) == [3, 2, 3, 3]
    stored = sum(np.prod(t.dims) for t in model.graph.initializer)
    inside = sum(np.prod(n.attribute[0].t.dims) for n in model.functions[0].node[:2])
    assert bench.costs.cost(bench.costs.full()).parameters == stored + inside


def test_a_function_of_another_opset_is_left_alone() -> None:
    model = ZOO["local_convolutions"].build()
    model.functions[0].opset_import[0].version = 16
    assert flattened(model).model is model
    found = find_groups(Graph(model)).skipped
    (reason,) = {entry.reason for entry in found if "first" in entry.members}
    assert reason == "its opset is not that of the model"


def test_a_function_named_like_a_known_operator_is_none() -> None:
    """Its body sums neighbours; the rule of the operator would let channels pass."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 4))
    y = b.conv(b.add("QuickGelu", x, domain="com.microsoft"), (4, 3))
    body = [helper.make_node("LRN", ["a"], ["b"], size=3)]
    opset = [helper.make_opsetid("", 16)]
    function = helper.make_function("com.microsoft", "QuickGelu", ["a"], ["b"], body, opset)
    found = find_groups(Graph(b.build(y, functions=[function])))
    assert not found.groups
    reasons = {entry.reason for entry in found.skipped if "Conv_0" in entry.members}
    assert reasons == {"a function of the model's own, whose opset is not that of the model"}
