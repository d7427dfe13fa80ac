"""Costs: worked out by hand, and as predicted for a choice equal to those of the file."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_shapprune.bench import Bench
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray, Cost
from zoo import ZOO, Builder, Model, choice, samples


def opened(model: Model, count: int = 2) -> Bench:
    """A bench with absent = zero, so that removal only slices."""
    return open_bench(model, samples(model, count), absent="zero", provider="cpu")


@cache
def bench(name: str) -> Bench:
    """A net of the zoo."""
    net = ZOO[name]
    return open_bench(net.build(), net.samples(2), absent="zero", provider="cpu")


def cost(model: Model, count: int = 2) -> Cost:
    """Cost of a whole model."""
    costs = opened(model, count).costs
    return costs.cost(costs.full())


def single(op: str, b: Builder, *inputs: str, **kw: object) -> int:
    """Multiply-accumulates of a net of one operator."""
    return cost(b.build(b.add(op, *inputs, **kw))).macs


# --- worked out by hand -----------------------------------------------------------------


def test_convolution() -> None:
    b = Builder()
    x = b.input("N", 3, 8, 8)
    macs = single("Conv", b, x, b.normal(5, 3, 3, 3), strides=[2, 2], pads=[1] * 4)
    assert macs == 4 * 4 * 5 * 3 * 3 * 3


def test_grouped_and_depthwise_convolution() -> None:
    b = Builder()
    macs = single("Conv", b, b.input("N", 4, 8, 8), b.normal(6, 2, 3, 3), group=2)
    assert macs == 6 * 6 * 6 * 2 * 9
    b = Builder()
    macs = single("Conv", b, b.input("N", 4, 8, 8), b.normal(8, 1, 3, 3), group=4)
    assert macs == 6 * 6 * 8 * 9


def test_transposed_convolution() -> None:
    b = Builder()
    x = b.input("N", 3, 4, 4)
    macs = single("ConvTranspose", b, x, b.normal(3, 5, 2, 2), strides=[2, 2])
    assert macs == 4 * 4 * 3 * 5 * 2 * 2


def test_convolutions_of_other_ranks() -> None:
    b = Builder()
    assert single("Conv", b, b.input("N", 3, 10), b.normal(5, 3, 3)) == 8 * 5 * 3 * 3
    b = Builder()
    macs = single("Conv", b, b.input("N", 2, 4, 4, 4), b.normal(3, 2, 2, 2, 2))
    assert macs == 27 * 3 * 2 * 8


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(transposed: bool) -> None:
    b = Builder()
    kernel = b.normal(*((5, 7) if transposed else (7, 5)))
    assert single("Gemm", b, b.input("N", 7), kernel, transB=int(transposed)) == 35


def test_matmul_of_a_sequence() -> None:
    b = Builder()
    assert single("MatMul", b, b.input("N", 9, 7), b.normal(7, 5)) == 9 * 7 * 5


def test_matmul_with_a_vector() -> None:
    b = Builder()
    assert single("MatMul", b, b.input("N", 9, 7), b.normal(7)) == 9 * 7


def test_product_of_activations_counts() -> None:
    b = Builder()
    x = b.input("N", 6, 7)
    assert single("MatMul", b, x, b.add("Transpose", x, perm=[0, 2, 1])) == 6 * 7 * 6


def test_batch_does_not_count_where_it_is_open() -> None:
    assert cost(ZOO["sequential"].build(), 2) == cost(ZOO["sequential"].build(), 5)


def test_a_fixed_batch_counts_as_one_run() -> None:
    b = Builder()
    assert single("Gemm", b, b.input(2, 7), b.normal(7, 5)) == 2 * 35


def test_whole_net() -> None:
    """sequential: pictures of 8×8, 7×7 and 3×3, then a Gemm."""
    found = cost(ZOO["sequential"].build())
    assert found.macs == 64 * 6 * 27 + 49 * 5 * 54 + 9 * 4 * 45 + 12
    kernels, biases, norms = 6 * 27 + 5 * 54 + 4 * 45 + 12, 6 + 5 + 4 + 3, 4 * (6 + 5)
    assert found.parameters == kernels + biases + norms
    assert found.channels == 6 + 5 + 4
    assert found.bytes == len(ZOO["sequential"].build().SerializeToString())


def test_shapes_are_no_parameters() -> None:
    plain, reshaped = ZOO["flatten_gemm"].build(), ZOO["reshape_stored_width"].build()
    kinds = {t.name: t.data_type for t in reshaped.graph.initializer}
    sizes = {t.name: int(np.prod(t.dims)) for t in reshaped.graph.initializer}
    expected = sum(n for name, n in sizes.items() if kinds[name] == onnx.TensorProto.FLOAT)
    assert cost(reshaped).parameters == expected
    assert cost(plain).parameters == 135 + 5 + 20 + 320 + 4 + 12 + 3


def test_shared_kernel_counts_once_as_parameters_and_twice_as_work() -> None:
    b = Builder()
    x, kernel = b.input("N", 4, 6, 6), b.kernel((4, 4))
    for _ in range(2):
        x = b.add("Conv", x, kernel, pads=[1] * 4)
    found = cost(b.build(x))
    assert found.parameters == 144
    assert found.macs == 2 * 36 * 144


def test_constant_nodes_count_like_initializers() -> None:
    found = cost(ZOO["constant_nodes"].build())
    assert found.parameters == 135 + 5 + 20 + 320 + 4 + 4 + 12 + 3


def test_open_sizes_come_from_the_samples() -> None:
    """fully_convolutional at 7×9: 7×9, then 4×5 twice."""
    found = bench("fully_convolutional").costs
    assert found.cost(found.full()).macs == 63 * 5 * 27 + 20 * 4 * 45 + 20 * 2 * 4


def test_a_single_player_worked_out_by_hand() -> None:
    of = bench("residual")
    kept = {of.groups[0].name: np.arange(6) == 2, of.groups[1].name: np.arange(5) < 2}
    found = of.costs.cost(kept)
    assert found.macs == 36 * (27 + 2 * 9 + 2 * 9) + 3
    assert found.parameters == (27 + 1) + 4 + (18 + 2) + 8 + (18 + 1) + 4 + 3 + 3
    assert found.channels == 3


# --- predicted is measured --------------------------------------------------------------


def measured(of: Bench, kept: dict[str, BoolArray]) -> tuple[Cost, Model]:
    """Cost of the pruned file on its own, and the file."""
    pruned = remove(of.model.proto, of.model.sha256, make_plan(of, kept))
    after = open_bench(pruned, dict(of.calibration.inputs), absent="zero", provider="cpu").costs
    return after.cost(after.full()), pruned


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(ZOO))
def test_predicted_is_measured(name: str, seed: int) -> None:
    of = bench(name)
    kept = choice(of.groups, seed)
    predicted, (found, pruned) = of.costs.cost(kept), measured(of, kept)
    assert (predicted.macs, predicted.parameters) == (found.macs, found.parameters)
    assert found.bytes == len(pruned.SerializeToString())
    copies = len(pruned.graph.initializer) - len(of.model.proto.graph.initializer)
    dropped = len(of.model.proto.graph.value_info) - len(pruned.graph.value_info)
    slack = 0.01 * of.costs.cost(of.costs.full()).bytes + 64 * (copies + dropped)
    assert abs(predicted.bytes - found.bytes) <= slack


@pytest.mark.parametrize("name", sorted(ZOO))
def test_keeping_all_is_the_file_itself(name: str) -> None:
    of = bench(name)
    found = of.costs.cost(of.costs.full())
    assert found.bytes == of.model.proto.ByteSize()
    assert found.channels == sum(group.players for group in of.groups)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_fewer_players_never_cost_more(name: str) -> None:
    of = bench(name)
    kept = of.costs.full()
    before = of.costs.cost(kept)
    rng = np.random.default_rng(0)
    for group in of.groups:
        for player in rng.permutation(group.players)[:-1]:
            kept[group.name][player] = False
            after = of.costs.cost(kept)
            assert after.macs <= before.macs
            assert after.parameters < before.parameters
            assert after.bytes < before.bytes
            assert after.channels == before.channels - 1
            before = after


def test_a_graph_output_keeps_the_shared_original() -> None:
    """A vector that others see stays whole beside its narrower copy."""
    b = Builder()
    x, shift = b.input("N", 3, 4, 4), b.normal(8)
    x = b.relu(b.add("Conv", x, b.kernel((3, 8)), shift))
    model = b.build(b.head(x, (8, 3)))
    model.graph.output.append(helper.make_tensor_value_info(shift, onnx.TensorProto.FLOAT, [8]))
    of = opened(model)
    kept = choice(of.groups, 1)
    found, _ = measured(of, kept)
    assert of.costs.cost(kept).parameters == found.parameters
