"""Convolutions in the bodies of If, Loop and Scan: cut where that can be verified, else not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_shapprune.bench import Bench
from onnx_shapprune.errors import VerificationError
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.inner import inner_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import Skipped
from onnx_shapprune.verification import verify
from zoo import ZOO, Builder, Model, Prefixed, bottleneck, choice, inner_builder, run, samples

Branch = Callable[[Prefixed, str], str]


def conditional(then: Branch, other: Branch, prefixes: tuple[str, str] = ("a", "b")) -> Model:
    """An If whose first branch is taken by the samples."""
    b = Builder(opset=13)
    x = b.relu(b.conv(b.input("N", 3, 8, 8), (3, 4)))
    taken = b.add("Greater", b.add("ReduceMax", x, keepdims=0), b.store(np.float32(-1)))
    bodies = {}
    names = ("then_branch", "else_branch")
    for name, branch, prefix in zip(names, (then, other), prefixes, strict=True):
        inner = inner_builder(b, prefix)
        bodies[name] = inner.body([branch(inner, x)])
    y = b.relu(b.add("If", taken, **bodies))
    return b.build(b.head(b.relu(b.conv(y, (4, 6))), (6, 3)))


def bench_of(model: Model) -> Bench:
    return open_bench(model, samples(model, 8), absent="zero", provider="cpu")


def reasons(bench: Bench, member: str) -> set[Skipped]:
    return {skipped for skipped in bench.coupling.skipped if member in skipped.members}


def members(bench: Bench) -> set[str]:
    return {member for group in bench.groups for member in group.members}


@pytest.mark.parametrize("weight", [0, 1])
def test_a_fault_in_either_branch_is_found(weight: int) -> None:
    model = conditional(bottleneck, bottleneck)
    bench = bench_of(model)
    plan = make_plan(bench, choice(bench.groups, 0))
    pruned = remove(model, bench.model.sha256, plan)
    verify(bench.graph, bench.model, pruned, plan, bench.calibration)
    (branch,) = (n for n in pruned.graph.node if n.op_type == "If")
    name = branch.attribute[weight].g.node[0].input[1]
    tensor = next(t for t in pruned.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.01), name))
    with pytest.raises(VerificationError, match="differs by"):
        verify(bench.graph, bench.model, pruned, plan, bench.calibration)


def impossible(b: Prefixed, x: str) -> str:
    """Asks for another size than there is."""
    return b.add("Reshape", bottleneck(b, x), b.store([-1, 4, 7, 7]))


def test_a_branch_that_does_not_run_is_left_alone() -> None:
    bench = bench_of(conditional(bottleneck, impossible))
    assert {"aConv_0", "bConv_0"} & members(bench) == {"aConv_0"}
    (found,) = reasons(bench, "bConv_0")
    assert found.op_type == "If"
    assert found.reason == (
        "its body does not run by itself on these samples: nothing could be verified"
    )


def unknown_rank(b: Prefixed, x: str) -> str:
    """Behind an operator of which onnx doesn't know what it makes."""
    return bottleneck(b, b.add("Gelu", x, domain="com.microsoft"))


def test_costs_in_a_body_whose_sizes_only_a_run_shows() -> None:
    model = conditional(bottleneck, unknown_rank)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    known = bench_of(conditional(bottleneck, bottleneck)).costs
    found = bench_of(model).costs
    assert found.cost(found.full()).macs == known.cost(known.full()).macs


def test_names_that_stand_for_several_tensors() -> None:
    bench = bench_of(conditional(bottleneck, bottleneck, prefixes=("same", "same")))
    assert "sameConv_0" not in members(bench)
    (found,) = reasons(bench, "sameConv_0")
    assert found.reason == "names in its body stand for several tensors"


def nested(b: Prefixed, x: str) -> str:
    """A branch in a branch."""
    taken = b.add("Greater", b.add("ReduceMax", x, keepdims=0), b.store(np.float32(-1)))
    bodies = {}
    for name in ("then_branch", "else_branch"):
        inner = inner_builder(b, f"{b.prefix}{name[0]}_")
        bodies[name] = inner.body([bottleneck(inner, x)])
    return b.add("If", taken, **bodies)


def test_bodies_in_bodies_are_left_alone() -> None:
    bench = bench_of(conditional(bottleneck, nested))
    assert "aConv_0" in members(bench)
    (found,) = reasons(bench, "bt_Conv_0")
    assert found.reason == "it is itself in a body"


def test_channels_from_outside_stay() -> None:
    bench = bench_of(conditional(bottleneck, bottleneck))
    assert "Conv_0" not in members(bench)
    found = [skipped.reason for skipped in reasons(bench, "Conv_0")]
    assert "its channels are read inside the body of another node as 't1'" in found


def test_a_scan_that_convolves_frames() -> None:
    """Frames one by one, with a state; both stay, what is between them is cut."""
    b = Builder(opset=13)
    x = b.input(5, 2, 3, 8, 8)
    inner = inner_builder(b, "scan_")
    inputs = [
        helper.make_tensor_value_info(f"scan_{name}", b.elem_type, [2, channels, 8, 8])
        for name, channels in (("state", 4), ("frame", 3))
    ]
    y = inner.conv(inner.relu(inner.conv("scan_frame", (3, 8))), (8, 4))
    state = inner.add("Add", "scan_state", y)
    body = inner.body([state, inner.add("Identity", y)], inputs)
    b.add("Scan", b.normal(2, 4, 8, 8), x, outputs=2, body=body, num_scan_inputs=1)
    first, _ = b.nodes[-1].output
    bench = bench_of(b.build(b.head(b.relu(b.conv(first, (4, 6))), (6, 3))))
    assert {"scan_Conv_0", "Conv_1"} <= members(bench)
    plan = make_plan(bench, choice(bench.groups, 0))
    pruned = remove(bench.model.proto, bench.model.sha256, plan)
    assert verify(bench.graph, bench.model, pruned, plan, bench.calibration) <= 1e-4


def test_a_body_as_a_model() -> None:
    model = ZOO["branches"].build()
    graph = Graph(model)
    scope = next(scope for scope in graph.bodies if scope.endswith("then_branch"))
    inner = inner_model(model, scope)
    assert [info.name for info in inner.model.graph.input] == list(inner.captured)
    inner.model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info(inner.captured[0], TensorProto.FLOAT, ["N", 4, 8, 8])
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    (found,) = run(inner.model, {inner.captured[0]: x})
    assert found.shape == (2, 4, 8, 8)
