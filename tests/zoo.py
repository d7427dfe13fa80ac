"""Small nets that every promise is tested on, each with the groups that it must have.

``ZOO[name]`` has the function that builds the net and the numbers of players per group,
worked out by hand: a change that refuses more than before does not go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_shapprune.types import BoolArray, ChannelGroup

Array = npt.NDArray[Any]
Model = onnx.ModelProto

TOLERANCE = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True)
class Net:
    """One net of the zoo.

    ``players`` of each group in graph order; ``skipped`` are the operators that reasons must
    be given for; ``dims`` are sizes for symbolic dimensions other than the batch.
    """

    name: str
    build: Callable[[], Model]
    players: tuple[int, ...]
    skipped: tuple[str, ...]
    dims: Mapping[str, int]

    def samples(self, count: int, seed: int = 0) -> dict[str, Array]:
        """Seeded samples for all inputs."""
        return samples(self.build(), count, seed, self.dims)


ZOO: dict[str, Net] = {}


def net(
    *players: int,
    skipped: tuple[str, ...] = (),
    dims: Mapping[str, int] | None = None,
) -> Callable[[Callable[[], Model]], Callable[[], Model]]:
    """Register a net with the players of its groups."""

    def register(build: Callable[[], Model]) -> Callable[[], Model]:
        ZOO[build.__name__] = Net(build.__name__, build, players, skipped, dims or {})
        return build

    return register


def samples(
    model: Model, count: int, seed: int = 0, dims: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Standard normal samples for all inputs that have to be fed."""
    rng = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for info in (i for i in model.graph.input if i.name not in stored):
        kind = info.type.tensor_type
        sizes = [d.dim_value or (dims or {}).get(d.dim_param, 1) for d in kind.shape.dim]
        values = rng.standard_normal([count, *sizes[1:]])
        found[info.name] = values.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return found


def choice(groups: Sequence[ChannelGroup], seed: int) -> dict[str, BoolArray]:
    """A random choice of players that empties no tensor; seed 0: as few players as possible."""
    rng = np.random.default_rng(seed)
    share = 0.0 if seed == 0 else rng.uniform(0.2, 0.9)
    kept = {}
    for group in groups:
        kept[group.name] = chosen = rng.random(group.players) < share
        chosen[rng.integers(group.players)] = True
        for part in group.shapes:
            if not part.kept_positions(chosen).any():
                chosen[rng.choice(part.owner)] = True
    return kept


def run(
    model: Model,
    feeds: Mapping[str, Array],
    names: Sequence[str] | None = None,
    *,
    optimised: bool = True,
) -> list[Array]:
    """Named tensors of a model (its outputs if none are named) in plain ONNX Runtime."""
    wanted = [output.name for output in model.graph.output] if names is None else list(names)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in known)
    options, level = ort.SessionOptions(), ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(wanted, dict(feeds))) if wanted else []


def assert_close(found: Sequence[Array], expected: Sequence[Array]) -> None:
    """Equal shapes, and values equal within rounding at the tensor's own scale."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype.kind != "f":
            np.testing.assert_array_equal(one, other)
            continue
        scale = max(float(np.abs(other).max(initial=0)), 1e-3)
        difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)
        assert difference / scale <= TOLERANCE[one.dtype.name]


@dataclass(eq=False)
class Builder:
    """Adds nodes one by one; weights are seeded and keep activations near unit variance."""

    opset: int = 17
    ir: int = 8
    dtype: npt.DTypeLike = np.float32
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    stored: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the generator."""
        self.rng = np.random.default_rng(self.seed)

    # --- tensors

    @property
    def elem_type(self) -> int:
        """ONNX element type of activations."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def input(self, *shape: int | str, name: str = "x") -> str:
        """A graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, self.elem_type, shape))
        return name

    def store(self, array: Array | Sequence[int], name: str = "") -> str:
        """An initializer; integers stay int64, floats become the net's dtype."""
        values = np.asarray(array)
        kind = self.dtype if values.dtype.kind == "f" else values.dtype
        tensor = numpy_helper.from_array(values.astype(kind), name or f"c{len(self.stored)}")
        tensor.doc_string = f"stored as number {len(self.stored)}"
        self.stored.append(tensor)
        return str(tensor.name)

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """A random initializer."""
        return self.store(self.rng.standard_normal(shape) * scale)

    def uniform(self, *shape: int) -> str:
        """A random positive initializer."""
        return self.store(self.rng.uniform(0.5, 1.5, shape))

    # --- nodes

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **kw: Any) -> str:
        """A node; its first output."""
        number = len(self.nodes)
        names = [f"t{number}", *(f"t{number}_{i}" for i in range(1, outputs))]
        node = helper.make_node(op, inputs, names, name=f"{op}_{number}", domain=domain, **kw)
        node.doc_string = f"made as number {number}"
        self.nodes.append(node)
        return names[0]

    def constant(self, array: Array) -> str:
        """A Constant node."""
        values = np.asarray(array)
        kind = self.dtype if values.dtype.kind == "f" else values.dtype
        return self.add("Constant", value=numpy_helper.from_array(values.astype(kind)))

    def conv(
        self,
        x: str,
        sizes: tuple[int, int],
        kernel: int = 3,
        *,
        groups: int = 1,
        bias: bool = True,
        rank: int = 2,
        **kw: Any,
    ) -> str:
        """A Conv that keeps the size; ``sizes`` are its input and output channels."""
        inputs = [x, self.kernel(sizes, kernel, groups=groups, rank=rank)]
        inputs += [self.normal(sizes[1], scale=0.5)] if bias else []
        pads = {} if "pads" in kw else {"pads": [kernel // 2] * 2 * rank}
        grouped = {"group": groups} if groups > 1 else {}
        return self.add("Conv", *inputs, kernel_shape=[kernel] * rank, **grouped, **pads, **kw)

    def kernel(
        self, sizes: tuple[int, int], kernel: int = 3, *, groups: int = 1, rank: int = 2
    ) -> str:
        """Weights of a Conv."""
        arriving = sizes[0] // groups
        fan_in = arriving * kernel**rank
        return self.normal(sizes[1], arriving, *[kernel] * rank, scale=(2 / fan_in) ** 0.5)

    def depthwise(self, x: str, channels: int, multiplier: int = 1, *, bias: bool = True) -> str:
        """A depthwise Conv."""
        return self.conv(x, (channels, channels * multiplier), groups=channels, bias=bias)

    def norm(self, x: str, channels: int) -> str:
        """A BatchNormalization whose shift would bring a zeroed channel back to life."""
        scale, var = self.uniform(channels), self.uniform(channels)
        shift, mean = self.normal(channels), self.normal(channels, scale=0.2)
        return self.add("BatchNormalization", x, scale, shift, mean, var)

    def block(self, x: str, sizes: tuple[int, int], kernel: int = 3, **kw: Any) -> str:
        """Conv, BatchNormalization, Relu."""
        return self.relu(self.norm(self.conv(x, sizes, kernel, **kw), sizes[1]))

    def relu(self, x: str) -> str:
        """A Relu."""
        return self.add("Relu", x)

    def gemm(self, x: str, sizes: tuple[int, int], *, transposed: bool = True, **kw: Any) -> str:
        """A Gemm with bias; ``sizes`` are its inputs and outputs."""
        shape = sizes[::-1] if transposed else sizes
        kernel = self.normal(*shape, scale=(1 / sizes[0]) ** 0.5)
        switch = {"transB": 1} if transposed else {}
        return self.add("Gemm", x, kernel, self.normal(sizes[1]), **switch, **kw)

    def head(self, x: str, sizes: tuple[int, int]) -> str:
        """GlobalAveragePool, Flatten, Gemm."""
        return self.gemm(self.add("Flatten", self.add("GlobalAveragePool", x)), sizes)

    # --- the model

    def build(self, *outputs: str, functions: Sequence[onnx.FunctionProto] = ()) -> Model:
        """The model, with documentation and metadata that must survive."""
        ends = [onnx.ValueInfoProto(name=output) for output in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, ends, self.stored, "a graph")
        domains = {n.domain for n in self.nodes if n.domain}
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, 1) for d in domains),
        ]
        model = helper.make_model(graph, opset_imports=opsets, functions=functions)
        model.ir_version, model.producer_name, model.doc_string = self.ir, "zoo", "a model"
        helper.set_model_props(model, {"author": "somebody"})
        _infer_outputs(model, self.elem_type)
        return model


def _infer_outputs(model: Model, elem_type: int) -> None:
    """Give the outputs the shape that inference tells; where it can't, they are a matrix."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        kind = known.type.tensor_type.elem_type or elem_type
        guess = helper.make_tensor_value_info(output.name, kind, ["N", "classes"])
        output.CopyFrom(known if known.type.tensor_type.HasField("shape") else guess)


def with_recorded_shapes(model: Model) -> Model:
    """The model with the inferred shape of every tensor recorded in it."""
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


# --- sequential ------------------------------------------------------------------------


@net(6, 5, 4)
def sequential() -> Model:
    """Conv, BatchNormalization, Relu, pools, a Gemm head."""
    b = Builder()
    x = b.add("MaxPool", b.block(b.input("N", 3, 8, 8), (3, 6)), kernel_shape=[2, 2])
    x = b.add("AveragePool", b.block(x, (6, 5)), kernel_shape=[2, 2], strides=[2, 2])
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(6, 5)
def no_bias() -> Model:
    """Nothing has a bias: what a mean folds into must be made."""
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 6, 6), (3, 6), bias=False))
    x = b.add("Flatten", b.relu(b.conv(x, (6, 5), bias=False)))
    return b.build(b.add("Gemm", x, b.normal(180, 4, scale=0.1)))


@net(6, 7)
def clipped() -> Model:
    """Relu6 with bounds as inputs, LeakyRelu, Dropout, Identity, Sigmoid, Tanh."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 6))
    x = b.add("Clip", x, b.store(np.float32(0.0)), b.store(np.float32(6.0)))
    x = b.add("Dropout", b.add("Sigmoid", b.norm(x, 6)))
    x = b.add("LeakyRelu", b.conv(x, (6, 7), strides=[2, 2]), alpha=0.2)
    x = b.add("Tanh", b.add("Identity", x))
    return b.build(b.head(x, (7, 3)))


@net(5, 6)
def prelu() -> Model:
    """Slopes per channel, and one slope for all."""
    b = Builder()
    x = b.add("PRelu", b.conv(b.input("N", 3, 6, 6), (3, 5)), b.normal(5, 1, 1))
    x = b.add("PRelu", b.conv(x, (5, 6)), b.normal(1, 1, 1))
    return b.build(b.head(x, (6, 3)))


@net(5, 6)
def scale_and_shift() -> Model:
    """Constants per channel before and behind, in all ranks that broadcast."""
    b = Builder()
    x = b.add("Mul", b.conv(b.input("N", 3, 6, 6), (3, 5), bias=False), b.normal(1, 5, 1, 1))
    x = b.relu(b.add("Add", b.normal(5, 1, 1), x))
    x = b.add("Sub", b.store(np.float32(1.0)), b.conv(x, (5, 6)))
    x = b.add("Div", x, b.uniform(6, 1, 1))
    return b.build(b.head(b.add("Add", x, b.normal(6, 6)), (6, 3)))


@net(5, 6, 4)
def constants_in_other_form() -> Model:
    """Per-channel constants behind Unsqueeze, Reshape and Identity."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 5), bias=False)
    scale = b.add("Unsqueeze", b.normal(5), b.store([1, 2]))
    x = b.relu(b.add("Mul", x, scale))
    shift = b.add("Reshape", b.normal(6), b.store([1, 6, 1, 1]))
    x = b.relu(b.add("Add", b.conv(x, (5, 6), bias=False), shift))
    slope = b.add("Reshape", b.normal(4), b.store([-1, 1, 1]))
    return b.build(b.head(b.add("PRelu", b.conv(x, (6, 4)), slope), (4, 3)))


@net(5, 4)
def instance_norm() -> Model:
    """InstanceNormalization."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 5))
    x = b.relu(b.add("InstanceNormalization", x, b.uniform(5), b.normal(5)))
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(7, 5)
def perceptron() -> Model:
    """Gemm after Gemm."""
    b = Builder()
    x = b.relu(b.gemm(b.input("N", 4), (4, 7)))
    return b.build(b.gemm(b.relu(b.gemm(x, (7, 5), transposed=False)), (5, 3)))


@net(8)
def feed_forward() -> Model:
    """MatMul and Add on sequences, as in a transformer's feed-forward part."""
    b = Builder()
    x = b.input("N", 5, 4)
    y = b.add("Add", b.add("MatMul", x, b.normal(4, 8, scale=0.5)), b.normal(8))
    y = b.add("Add", b.normal(4), b.add("MatMul", b.relu(y), b.normal(8, 4, scale=0.4)))
    return b.build(b.add("Add", x, y))


# --- joins -----------------------------------------------------------------------------


@net(6, 5)
def residual() -> Model:
    """A block whose shortcut is the identity."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    y = b.norm(b.conv(b.block(x, (6, 5)), (5, 6)), 6)
    return b.build(b.head(b.relu(b.add("Add", y, x)), (6, 3)))


@net(6, 5, 8)
def residual_projection() -> Model:
    """A block whose shortcut is a convolution."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    y = b.norm(b.conv(b.block(x, (6, 5)), (5, 8), strides=[2, 2]), 8)
    x = b.norm(b.conv(x, (6, 8), 1, strides=[2, 2]), 8)
    return b.build(b.head(b.relu(b.add("Add", x, y)), (8, 3)))


@net(5)
def sum_of_three() -> Model:
    """Sum of three branches."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    y = b.add("Sum", *(b.conv(x, (3, 5), kernel) for kernel in (1, 3, 5)))
    return b.build(b.head(b.relu(y), (5, 3)))


@net(6, 5)
def pre_activation() -> Model:
    """BatchNormalization and Relu before the convolutions, a bare sum behind."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 6), bias=False)
    y = b.conv(b.relu(b.norm(x, 6)), (6, 5), bias=False)
    y = b.conv(b.relu(b.norm(y, 5)), (5, 6), bias=False)
    return b.build(b.head(b.relu(b.norm(b.add("Add", x, y), 6)), (6, 3)))


@net(8, 2, 5)
def squeeze_excitation() -> Model:
    """A gate per channel: 0.5 where its own input is zero."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 8))
    gate = b.relu(b.conv(b.add("GlobalAveragePool", x), (8, 2), 1))
    gate = b.add("Sigmoid", b.conv(gate, (2, 8), 1))
    x = b.add("Mul", x, gate)
    return b.build(b.head(b.relu(b.conv(x, (8, 5))), (5, 3)))


@net(6, 4)
def spatial_attention() -> Model:
    """One map for all channels: its single channel stays."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    x = b.add("Mul", x, b.add("Sigmoid", b.conv(x, (6, 1))))
    return b.build(b.head(b.relu(b.conv(x, (6, 4))), (4, 3)))


@net(4, 3, 5)
def dense() -> Model:
    """Each layer reads all before it."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    x = b.add("Concat", x, b.block(x, (3, 4)), axis=1)
    x = b.add("Concat", x, b.block(x, (7, 3)), axis=-3)
    return b.build(b.head(b.relu(b.conv(b.relu(b.norm(x, 10)), (10, 5))), (5, 3)))


@net(4, 3, 5)
def concat_depthwise() -> Model:
    """Two branches side by side, then a depthwise convolution over both."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    x = b.add("Concat", b.block(x, (3, 4)), b.block(x, (3, 3), 1), axis=1)
    x = b.relu(b.depthwise(x, 7))
    return b.build(b.head(b.relu(b.conv(x, (7, 5), 1)), (5, 3)))


@net(6, 4, 2, 3, 5)
def inception() -> Model:
    """Four branches, one of them pooled."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    branches = [b.relu(b.conv(x, (6, 4), 1))]
    branches.append(b.relu(b.conv(b.relu(b.conv(x, (6, 2), 1)), (2, 3))))
    pooled = b.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    branches.append(b.relu(b.conv(pooled, (6, 5), 1)))
    return b.build(b.head(b.add("Concat", *branches, axis=1), (12, 3)))


@net(7)
def concat_of_sums() -> Model:
    """A sum of concatenations ties the branches part by part."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    one = b.add("Concat", b.conv(x, (3, 4)), b.conv(x, (3, 3)), axis=1)
    two = b.conv(x, (3, 7), 1)
    return b.build(b.head(b.relu(b.add("Add", one, two)), (7, 3)))


@net(4)
def concat_beside() -> Model:
    """A concatenation along the width has the same channels in all parts."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    x = b.add("Concat", b.conv(x, (3, 4)), b.conv(x, (3, 4), 1), axis=3)
    return b.build(b.head(b.relu(x), (4, 3)))


# --- kernels of other kinds ------------------------------------------------------------


@net(6, 5)
def depthwise() -> Model:
    """A depthwise convolution ties what arrives to what leaves."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    x = b.relu(b.norm(b.depthwise(x, 6, bias=False), 6))
    return b.build(b.head(b.relu(b.conv(x, (6, 5), 1)), (5, 3)))


@net(4, 5)
def depthwise_multiplier() -> Model:
    """Two outputs per channel."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 4))
    x = b.relu(b.norm(b.depthwise(x, 4, 2), 8))
    return b.build(b.head(b.relu(b.conv(x, (8, 5), 1)), (5, 3)))


@net(8)
def depthwise_of_locked() -> Model:
    """The input itself is depthwise: nothing to take there, all behind it."""
    b = Builder()
    x = b.relu(b.depthwise(b.input("N", 3, 6, 6), 3, 2))
    return b.build(b.head(b.relu(b.conv(x, (6, 8), 1)), (8, 3)))


@net(4, 3, 6)
def grouped() -> Model:
    """Groups of equal width before and behind."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 8))
    x = b.block(x, (8, 6), groups=2)
    return b.build(b.head(b.relu(b.conv(x, (6, 6))), (6, 3)))


@net(2, 4)
def grouped_twice() -> Model:
    """Two grouped convolutions with different numbers of groups in a row."""
    b = Builder()
    x = b.block(b.input("N", 4, 6, 6), (4, 8), groups=2)
    return b.build(b.head(b.relu(b.conv(x, (8, 16), groups=4)), (16, 3)))


@net(5, 4)
def one_dimensional() -> Model:
    """Conv over sequences."""
    b = Builder()
    x = b.block(b.input("N", 3, 12), (3, 5), rank=1)
    x = b.relu(b.conv(b.add("MaxPool", x, kernel_shape=[2], strides=[2]), (5, 4), rank=1))
    return b.build(b.gemm(b.add("Flatten", x), (24, 3)))


@net(5, 4)
def three_dimensional() -> Model:
    """Conv over volumes."""
    b = Builder()
    x = b.block(b.input("N", 2, 4, 4, 4), (2, 5), rank=3)
    return b.build(b.head(b.relu(b.conv(x, (5, 4), rank=3)), (4, 3)))


@net(6, 5, 4)
def transposed() -> Model:
    """ConvTranspose: its border depends on the position, so no mean folds into it."""
    b = Builder()
    x = b.block(b.input("N", 3, 4, 4), (3, 6))
    kernel = b.normal(6, 5, 2, 2, scale=0.3)
    x = b.add("ConvTranspose", x, kernel, b.normal(5), strides=[2, 2], kernel_shape=[2, 2])
    return b.build(b.head(b.relu(b.conv(b.relu(x), (5, 4))), (4, 3)))


# --- layout ----------------------------------------------------------------------------


@net(5, 4)
def channels_last() -> Model:
    """Images arrive and leave with their channels last."""
    b = Builder()
    x = b.add("Transpose", b.input("N", 6, 6, 3), perm=[0, 3, 1, 2])
    x = b.relu(b.conv(b.block(x, (3, 5)), (5, 4)))
    x = b.add("Flatten", b.add("Transpose", x, perm=[0, 2, 3, 1]))
    return b.build(b.gemm(x, (144, 3)))


@net(5, 4)
def channels_last_mean() -> Model:
    """Pictures with their channels last are averaged: the channels move to the front."""
    b = Builder()
    x = b.relu(b.conv(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 4)))
    x = b.add("ReduceMean", b.add("Transpose", x, perm=[0, 2, 3, 1]), axes=[1, 2], keepdims=0)
    return b.build(b.gemm(x, (4, 3)))


@net(5, 4)
def flatten_gemm() -> Model:
    """Flatten into a Gemm whose kernel has its inputs first."""
    b = Builder()
    x = b.add("Flatten", b.block(b.input("N", 3, 4, 4), (3, 5)))
    x = b.relu(b.gemm(x, (80, 4), transposed=False, alpha=0.5, beta=2.0))
    return b.build(b.gemm(x, (4, 3)))


@net(5, 4)
def flatten_gemm_transposed() -> Model:
    """Flatten into a Gemm whose kernel has its outputs first."""
    b = Builder()
    x = b.add("Flatten", b.block(b.input("N", 3, 4, 4), (3, 5)), axis=1)
    x = b.relu(b.gemm(x, (80, 4), alpha=1.5, beta=0.5))
    return b.build(b.gemm(x, (4, 3), alpha=0.7))


@net(5, 4)
def reshape_zero() -> Model:
    """Reshape to [0, -1] and back to pictures of one pixel."""
    b = Builder()
    x = b.add("Reshape", b.block(b.input("N", 3, 4, 4), (3, 5)), b.store([0, -1]))
    x = b.add("Reshape", b.gemm(x, (80, 4)), b.store([0, 0, 1, 1]))
    x = b.add("Conv", b.relu(x), b.normal(3, 4, 1, 1))
    return b.build(b.add("Reshape", x, b.store([-1, 3])))


@net(5, 4, 6)
def reshape_stored_width() -> Model:
    """The width stands in the shape, which has to follow."""
    b = Builder()
    x = b.add("Reshape", b.block(b.input("N", 3, 4, 4), (3, 5)), b.store([-1, 80]))
    x = b.add("Reshape", b.gemm(x, (80, 4)), b.store([-1, 4, 1, 1]))
    return b.build(b.head(b.add("Conv", b.relu(x), b.normal(6, 4, 1, 1)), (6, 3)))


@net(5, 4)
def reshape_of_shape() -> Model:
    """Shape, Gather, Unsqueeze, Concat, Reshape, as exported for a view."""
    b = Builder()
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    batch = b.add("Gather", b.add("Shape", x), b.store(np.int64(0)), axis=0)
    batch = b.add("Unsqueeze", batch, b.store([0]))
    x = b.add("Reshape", x, b.add("Concat", batch, b.store([-1]), axis=0))
    return b.build(b.gemm(b.relu(b.gemm(x, (80, 4))), (4, 3)))


@net(5, 4)
def reshape_of_all_sizes() -> Model:
    """A width taken from a Shape follows by itself."""
    b = Builder()
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    sizes = b.add("Shape", x)
    front = b.add("Slice", sizes, b.store([0]), b.store([2]), b.store([0]))
    x = b.add("Reshape", x, b.add("Concat", front, b.store([-1]), axis=0))
    x = b.add("Reshape", b.relu(x), b.add("Cast", sizes, to=TensorProto.INT64))
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(8, 8)
def shared_shape() -> Model:
    """Two Reshapes of different groups share one shape constant."""
    b = Builder()
    x = b.input("N", 3, 4, 4)
    shape = b.store([0, 8, 16])
    one = b.add("Reshape", b.conv(x, (3, 8)), shape)
    two = b.add("Reshape", b.conv(x, (3, 8)), shape)
    one, two = (b.add("ReduceMean", y, axes=[2], keepdims=0) for y in (one, two))
    return b.build(b.add("Add", b.gemm(b.relu(one), (8, 3)), b.gemm(b.relu(two), (8, 3))))


@net(5, 4)
def matmul_head() -> Model:
    """MatMul and Add instead of a Gemm."""
    b = Builder()
    x = b.add("Flatten", b.block(b.input("N", 3, 4, 4), (3, 5)))
    x = b.relu(b.add("Add", b.add("MatMul", x, b.normal(80, 4, scale=0.1)), b.normal(4)))
    return b.build(b.add("MatMul", x, b.normal(4, 3)))


@net(5, 4)
def matmul_beside() -> Model:
    """A MatMul over the width of the picture leaves the channels alone."""
    b = Builder()
    x = b.add("MatMul", b.block(b.input("N", 3, 6, 6), (3, 5)), b.normal(6, 8, scale=0.4))
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(5, 4)
def mean_head_keeping_axes() -> Model:
    """ReduceMean that keeps the axes, then Squeeze."""
    b = Builder()
    x = b.relu(b.conv(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 4)))
    x = b.add("Squeeze", b.add("ReduceMean", x, axes=[2, 3], keepdims=1), b.store([2, 3]))
    return b.build(b.gemm(x, (4, 3)))


@net(5, 4)
def mean_head_dropping_axes() -> Model:
    """ReduceMean and ReduceMax that drop axes, counted from the end."""
    b = Builder()
    x = b.relu(b.conv(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 4)))
    x = b.add("ReduceMax", b.add("ReduceMean", x, axes=[-1], keepdims=0), axes=[2], keepdims=0)
    return b.build(b.gemm(x, (4, 3)))


@net(5, 4)
def unsqueezed() -> Model:
    """Sequences as pictures of height one, and back."""
    b = Builder()
    x = b.add("Unsqueeze", b.conv(b.input("N", 3, 8), (3, 5), rank=1), b.store([2]))
    x = b.add("Squeeze", b.relu(b.conv(b.relu(x), (5, 4))), b.store([2]))
    return b.build(b.head(x, (4, 3)))


@net(5, 4)
def padded() -> Model:
    """Pads beside the channels, constant and mirrored, before convolutions without any."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("Pad", x, b.store([0, 0, 1, 1, 0, 0, 1, 1]), b.store(np.float32(0.5)))
    x = b.relu(b.conv(x, (5, 4), pads=[0, 0, 0, 0]))
    x = b.add("Pad", x, b.store([0, 0, 0, 1, 0, 0, 1, 0]), mode="reflect")
    return b.build(b.head(x, (4, 3)))


@net(5, 4)
def resize_scales() -> Model:
    """Resize by scales."""
    b = Builder()
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    scales = b.store(np.float32([1, 1, 2, 2]))
    x = b.add("Resize", x, "", scales, mode="nearest")
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(5, 4)
def resize_computed_sizes() -> Model:
    """Resize to sizes strung together from a Shape, as exporters write it."""
    b = Builder()
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    front = b.add("Slice", b.add("Shape", x), b.store([0]), b.store([2]), b.store([0]))
    sizes = b.add("Concat", front, b.store([7, 9]), axis=0)
    x = b.add("Resize", x, "", "", sizes, mode="linear")
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(5, 4)
def resize_stored_sizes() -> Model:
    """Resize to stored sizes: the number of channels in them has to follow."""
    b = Builder()
    x = b.block(b.input(2, 3, 4, 4), (3, 5))
    x = b.add("Resize", x, "", "", b.store([2, 5, 8, 8]), mode="nearest")
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


# --- how weights are stored ------------------------------------------------------------


@net(5, 4)
def constant_nodes() -> Model:
    """All weights are Constant nodes, shapes are lists of integers."""
    b = Builder()
    b.store = lambda array, name="": b.constant(np.asarray(array))  # type: ignore[method-assign]
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    x = b.add("Reshape", x, b.add("Constant", value_ints=[-1, 80]))
    x = b.relu(b.gemm(x, (80, 4)))
    scale = b.add("Constant", value_floats=[0.5, 1.0, 1.5, 2.0])
    return b.build(b.gemm(b.add("Mul", x, scale), (4, 3)))


@net(5, 4)
def aliased() -> Model:
    """Weights behind Identity nodes, some of them shared that way."""
    b = Builder()
    x = b.conv(b.input("N", 3, 6, 6), (3, 5), bias=False)
    scale, shift, mean, var = b.uniform(5), b.normal(5), b.normal(5), b.uniform(5)
    alias = b.add("Identity", b.add("Identity", shift))
    x = b.relu(b.add("BatchNormalization", x, scale, alias, mean, var))
    x = b.add("BatchNormalization", x, b.add("Identity", scale), shift, mean, var)
    kernel = b.add("Identity", b.kernel((5, 4)))
    x = b.add("Conv", x, kernel, pads=[1, 1, 1, 1])
    return b.build(b.head(b.relu(x), (4, 3)))


@net(6, 5, 4)
def initializers_as_inputs() -> Model:
    """IR 3: every initializer is also an input."""
    model = sequential()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    return model


@net(5, 5)
def shared_kernel() -> Model:
    """One kernel for two convolutions that read different things."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    first, second, kernel = b.conv(x, (3, 5)), b.conv(x, (3, 5), 1), b.kernel((5, 5))
    ends = [b.add("Conv", b.relu(y), kernel, pads=[1, 1, 1, 1]) for y in (first, second)]
    return b.build(b.head(b.relu(b.add("Concat", *ends, axis=2)), (5, 3)))


@net(5, 4)
def shared_kernel_in_sequence() -> Model:
    """One kernel used twice in a row: what arrives is what leaves."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    kernel = b.kernel((5, 5))
    for _ in range(2):
        x = b.relu(b.add("Conv", x, kernel, pads=[1, 1, 1, 1]))
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))


@net(4, 4, 4)
def shared_vectors() -> Model:
    """Layers of different groups share their BatchNormalization vectors and biases."""
    b = Builder()
    scale, shift = b.uniform(4), b.normal(4)
    x = b.input("N", 4, 6, 6)
    for _ in range(3):
        x = b.add("Conv", x, b.kernel((4, 4)), shift, pads=[1, 1, 1, 1])
        x = b.relu(b.add("BatchNormalization", x, scale, shift, shift, scale))
    return b.build(b.add("Gemm", b.add("Flatten", b.add("GlobalMaxPool", x)), b.normal(4, 3)))


@net(5, 6, 4)
def filled_weights() -> Model:
    """A kernel and a bias that repeat one number, as onnx's light models have them."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    number = onnx.numpy_helper.from_array(np.float32([0.02]))
    shapes = b.store([6, 5, 3, 3]), b.store([6])
    x = b.add("Conv", x, *(b.add("ConstantOfShape", shape, value=number) for shape in shapes))
    return b.build(b.head(b.block(b.relu(x), (6, 4)), (4, 3)))


@net(5, 4)
def cast_bias() -> Model:
    """A bias that is stored in half precision."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    bias = b.store(b.rng.standard_normal(4).astype(np.float16))
    x = b.add("Conv", x, b.normal(4, 5, 3, 3), b.add("Cast", bias, to=TensorProto.FLOAT))
    return b.build(b.head(b.relu(x), (4, 3)))


@net(5, 4)
def recorded_shapes() -> Model:
    """The shapes of all tensors are recorded in the file."""
    return with_recorded_shapes(_plain())


@net(5, 4)
def recorded_constants() -> Model:
    """The shapes of all tensors are recorded, those of Constant nodes too."""
    return with_recorded_shapes(constant_nodes())


def _plain(**settings: Any) -> Model:
    """Two blocks and a head."""
    b = Builder(**settings)
    x = b.add("MaxPool", b.block(b.input("N", 3, 6, 6), (3, 5)), kernel_shape=[2, 2])
    return b.build(b.head(b.block(x, (5, 4)), (4, 3)))


@net(5, 4)
def half_precision() -> Model:
    """float16."""
    return _plain(dtype=np.float16)


@net(5, 4)
def double_precision() -> Model:
    """float64, for which ONNX Runtime has no Conv."""
    b = Builder(dtype=np.float64)
    x = b.relu(b.norm(b.gemm(b.input("N", 6), (6, 5)), 5))
    return b.build(b.add("MatMul", b.relu(b.gemm(x, (5, 4), beta=0.5)), b.normal(4, 3)))


@net(5, 4)
def unnamed() -> Model:
    """No node has a name."""
    model = _plain()
    for node in model.graph.node:
        node.ClearField("name")
    return model


@net(5, 4)
def opset_9() -> Model:
    """An old opset: attributes instead of inputs."""
    b = Builder(opset=9, ir=4)
    x = b.block(b.input("N", 3, 4, 4), (3, 5))
    x = b.add("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.0)
    x = b.add("Upsample", x, b.store(np.float32([1, 1, 2, 2])), mode="nearest")
    x = b.add("Clip", b.conv(x, (5, 4)), min=0.0, max=6.0)
    x = b.add("Squeeze", b.add("ReduceMean", x, axes=[2, 3]), axes=[2, 3])
    x = b.add("Unsqueeze", x, axes=[2])
    return b.build(b.gemm(b.add("Flatten", x), (4, 3)))


@net(5, 4)
def opset_22() -> Model:
    """A new opset: axes as inputs."""
    b = Builder(opset=22, ir=10)
    x = b.add("Gelu", b.conv(b.input("N", 3, 6, 6), (3, 5)))
    x = b.add("HardSwish", b.conv(b.add("Mish", x), (5, 4)))
    x = b.add("ReduceMean", x, b.store([2, 3]), keepdims=0)
    return b.build(b.gemm(x, (4, 3)))


@net(5, 4)
def domain_by_name() -> Model:
    """The standard domain under its other name."""
    model = _plain()
    model.opset_import[0].domain = "ai.onnx"
    return model


# --- inputs and outputs ----------------------------------------------------------------


@net(5, 4)
def fixed_batch() -> Model:
    """The batch is fixed, and stands in a shape."""
    b = Builder()
    x = b.block(b.input(2, 3, 4, 4), (3, 5))
    x = b.add("Reshape", x, b.store([2, 80]))
    return b.build(b.gemm(b.relu(b.gemm(x, (80, 4))), (4, 3)))


@net(5, 4, 3)
def two_inputs() -> Model:
    """Two pictures of different sizes."""
    b = Builder()
    one = b.head(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 4))
    two = b.head(b.block(b.input("N", 2, 4, 4, name="z"), (2, 3)), (3, 4))
    return b.build(b.gemm(b.relu(b.add("Add", one, two)), (4, 3)))


@net(5, 4, skipped=("Conv", "Gemm"))
def two_outputs() -> Model:
    """Scores and a feature map, which keeps its channels."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    features = b.conv(x, (5, 6))
    return b.build(b.head(b.block(features, (6, 4)), (4, 3)), features)


@net(5, 4, skipped=("Conv",), dims={"H": 7, "W": 9})
def fully_convolutional() -> Model:
    """Height and width are open; the last convolution is the output."""
    b = Builder()
    x = b.block(b.input("N", 3, "H", "W"), (3, 5))
    return b.build(b.conv(b.block(x, (5, 4), strides=[2, 2]), (4, 2), 1))


@net(skipped=("Conv",))
def only_output() -> Model:
    """A single convolution: nothing to take."""
    b = Builder()
    return b.build(b.conv(b.input("N", 3, 6, 6), (3, 5)))


@net(4, skipped=("Relu",))
def captured() -> Model:
    """The body of an If reads a tensor; what it reads keeps its channels."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    y = b.relu(b.conv(x, (3, 5)))
    large = b.add("ReduceMax", x, keepdims=0)
    large = b.add("Greater", large, b.store(np.float32(0.0)))
    bodies = {}
    for branch, op in (("then_branch", "Neg"), ("else_branch", "Abs")):
        end = helper.make_tensor_value_info(f"{op}_end", b.elem_type, None)
        body = helper.make_node(op, [y], [f"{op}_end"], name=f"{op}_inside")
        bodies[branch] = helper.make_graph([body], branch, [], [end])
    y = b.add("If", large, **bodies)
    return b.build(b.head(b.relu(b.conv(y, (5, 4))), (4, 3)))


def inner_builder(b: Builder, prefix: str) -> Builder:
    """A builder for a body: its weights are stored outside, its names are its own."""
    return Prefixed(b.opset, b.ir, b.dtype, prefix=prefix, stored=b.stored, rng=b.rng)


@dataclass(eq=False)
class Prefixed(Builder):
    """A builder whose nodes' outputs start with a prefix, and whose weights go elsewhere."""

    prefix: str = ""
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        """The generator is that of the net around."""

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **kw: Any) -> str:
        """A node with names of its own."""
        name = super().add(op, *inputs, outputs=outputs, domain=domain, **kw)
        node = self.nodes[-1]
        node.output[:] = [f"{self.prefix}{output}" for output in node.output]
        node.name = f"{self.prefix}{node.name}"
        return f"{self.prefix}{name}"

    def body(
        self, outputs: Sequence[str], inputs: Sequence[onnx.ValueInfoProto] = ()
    ) -> onnx.GraphProto:
        """The body."""
        ends = [onnx.ValueInfoProto(name=output) for output in outputs]
        for end in ends:
            end.type.tensor_type.elem_type = self.elem_type
        return helper.make_graph(self.nodes, f"{self.prefix}body", list(inputs), ends)


def bottleneck(b: Prefixed, x: str) -> str:
    """Four channels, eight, four."""
    return b.conv(b.relu(b.conv(x, (4, 8))), (8, 4))


@net(8, 8, 4, 6, skipped=("Conv", "ReduceMean", "Relu"))
def branches() -> Model:
    """Convolutions in both branches; the samples take one of them."""
    b = Builder(opset=13)
    x = b.relu(b.conv(b.input("N", 3, 8, 8), (3, 4)))
    large = b.add("Greater", b.add("ReduceMean", x, keepdims=0), b.store(np.float32(-1)))
    bodies = {}
    for name in ("then_branch", "else_branch"):
        inner = inner_builder(b, name[:5])
        bodies[name] = inner.body([bottleneck(inner, x)])
    y = b.relu(b.add("If", large, **bodies))
    return b.build(b.head(b.relu(b.conv(b.conv(y, (4, 4)), (4, 6))), (6, 3)))


@net(8, 6, skipped=("Loop", "Add"))
def loop() -> Model:
    """A block that is run three times, with one set of weights."""
    b = Builder(opset=13)
    x = b.relu(b.conv(b.input("N", 3, 8, 8), (3, 4)))
    inner = inner_builder(b, "loop_")
    inputs = [
        helper.make_tensor_value_info("loop_i", TensorProto.INT64, []),
        helper.make_tensor_value_info("loop_c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("loop_x", b.elem_type, [2, 4, 8, 8]),
    ]
    y = inner.add("Add", "loop_x", bottleneck(inner, "loop_x"))
    body = inner.body([inner.add("Identity", "loop_c"), y], inputs)
    body.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    x = b.add("Loop", b.store(np.int64(3)), "", x, body=body)
    return b.build(b.head(b.relu(b.conv(x, (4, 6))), (6, 3)))


@net(5, 4, 6)
def local_function() -> Model:
    """A function of the model's own stands beside what can be cut."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("Twice", b.relu(b.conv(x, (5, 4))), domain="local")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Twice", ["a"], ["b"], body, opset)
    return b.build(b.head(b.block(x, (4, 6)), (6, 3)), functions=[function])


def conv_function(name: str, channels: tuple[int, int], middle: int) -> onnx.FunctionProto:
    """A function of two convolutions; the first one's kernel is its own, the other's is given."""
    rng = np.random.default_rng(middle)
    first = rng.standard_normal((middle, channels[0], 3, 3)).astype(np.float32) / 5
    shift = rng.standard_normal(middle).astype(np.float32)
    pads, kernel = [1, 1, 1, 1], onnx.AttributeProto(name="strides", ref_attr_name="step")
    kernel.type = onnx.AttributeProto.INTS
    second = helper.make_node("Conv", ["h2", "w"], ["y"], name="second", pads=pads)
    second.attribute.append(kernel)
    nodes = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(first)),
        helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(shift)),
        helper.make_node("Conv", ["x", "k", "s"], ["h"], name="first", pads=pads),
        helper.make_node("Relu", ["h"], ["h2"]),
        second,
    ]
    opset = [helper.make_opsetid("", 17)]
    return helper.make_function("local", name, ["x", "w"], ["y"], nodes, opset, attributes=["step"])


@net(5, 6, 5, 4, 5)
def local_convolutions() -> Model:
    """A function that is called twice: its own kernel is cut alike, what is given is not."""
    b = Builder()
    x = b.block(b.input("N", 3, 8, 8), (3, 5))
    for channels, step in ((5, 1), (4, 2)):
        w = b.kernel((6, channels if step == 1 else 4))
        x = b.relu(b.add("Twofold", x, w, domain="local", step=[step, step]))
        x = b.relu(b.conv(x, (channels if step == 1 else 4, 5)))
    function = conv_function("Twofold", (5, 4), 6)
    return b.build(b.head(x, (5, 3)), functions=[function])


# --- ONNX Runtime's own operators -----------------------------------------------------


@net(5, 6, 4)
def fused_operators() -> Model:
    """What ONNX Runtime's optimiser makes of a residual net."""
    b, ms = Builder(), {"domain": "com.microsoft"}

    def conv(x: str, sizes: tuple[int, int], *added: str) -> str:
        inputs = x, b.kernel(sizes), b.normal(sizes[1]), *added
        return b.add("FusedConv", *inputs, pads=[1] * 4, activation="Relu", **ms)

    x = conv(b.input("N", 3, 6, 6), (3, 5))
    x = conv(conv(x, (5, 6)), (6, 5), x)
    x = b.add("Flatten", b.add("GlobalAveragePool", b.add("QuickGelu", x, **ms)))
    x = b.add("FusedGemm", x, b.normal(5, 4), b.normal(4), activation="Relu", **ms)
    return b.build(b.gemm(x, (4, 3)))


# --- operators that no rule knows ------------------------------------------------------


@net(5, 4, skipped=("Trilu",))
def unknown_operator() -> Model:
    """It zeroes by position, here of the channels too."""
    b = Builder()
    x = b.conv(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 6))
    x = b.add("Trilu", b.add("Transpose", x, perm=[0, 2, 1, 3]))
    x = b.add("Transpose", x, perm=[0, 2, 1, 3])
    return b.build(b.head(b.block(x, (6, 4)), (4, 3)))


@net(5, 4, skipped=("Softmax",))
def softmax_over_channels() -> Model:
    """A Softmax mixes all channels: they stay, those before and behind don't."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("Softmax", b.conv(x, (5, 6)), axis=1)
    return b.build(b.head(b.block(x, (6, 4)), (4, 3)))


@net(5, 4, skipped=("LRN",))
def local_response() -> Model:
    """LRN sums over neighbouring channels."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("LRN", b.relu(b.conv(x, (5, 6))), size=3)
    return b.build(b.head(b.block(x, (6, 4)), (4, 3)))


@net(5, skipped=("TopK",))
def top_channels() -> Model:
    """TopK over the channels."""
    b = Builder()
    x = b.add("GlobalAveragePool", b.conv(b.block(b.input("N", 3, 6, 6), (3, 5)), (5, 6)))
    x = b.add("TopK", b.add("Flatten", x), b.store([2]), outputs=2, axis=1)
    return b.build(x)


@net(5, 4, skipped=("ReduceMean",))
def mean_over_channels() -> Model:
    """A map that is the mean over channels."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("ReduceMean", b.conv(x, (5, 6)), axes=[1])
    return b.build(b.head(b.block(x, (1, 4)), (4, 3)))


@net(5, 4, 4)
def attention() -> Model:
    """A product of two activations."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.add("MatMul", b.conv(x, (5, 4)), b.conv(x, (5, 4)))
    return b.build(b.head(b.block(x, (4, 4)), (4, 3)))


@net(6, 4)
def einsum() -> Model:
    """A gate and a sum over channels, in letters."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    gate = b.add("Sigmoid", b.add("ReduceMean", x, axes=[2, 3], keepdims=0))
    x = b.add("Einsum", x, gate, b.uniform(6), equation="nchw,nc,c->nhw")
    x = b.conv(b.add("Unsqueeze", x, b.store([1])), (1, 4))
    return b.build(b.head(b.relu(x), (4, 3)))


@net(6, 4)
def sequences() -> Model:
    """Parts taken out of a sequence, by sizes and by one size."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 6))
    parts = b.add("SplitToSequence", x, b.store([2, 4]), axis=1)
    one, other = (b.add("SequenceAt", parts, b.store(np.int64(k))) for k in (0, 1))
    x = b.relu(b.conv(b.add("Concat", other, b.add("Tanh", one), axis=1), (6, 8)))
    parts = b.add("SplitToSequence", x, b.store(np.int64(4)), axis=1)
    one, other = (b.add("SequenceAt", parts, b.store(np.int64(k))) for k in (0, 1))
    return b.build(b.head(b.add("Mul", one, b.add("Sigmoid", other)), (4, 3)))


@net(5, 6, skipped=("DeformConv",))
def deformable() -> Model:
    """Offsets stay, what is sampled there does not."""
    b = Builder(opset=19)
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    offsets = b.conv(x, (5, 18))
    x = b.add("DeformConv", x, b.kernel((5, 6)), offsets, b.normal(6), pads=[1] * 4)
    return b.build(b.head(b.relu(x), (6, 3)))


@net(5, 6)
def sliced_channels() -> Model:
    """Channels cut in two by a Slice."""
    b = Builder()
    x = b.block(b.input("N", 3, 6, 6), (3, 5))
    x = b.conv(x, (5, 6))
    x = b.add("Slice", x, b.store([0]), b.store([3]), b.store([1]))
    return b.build(b.head(x, (3, 3)))


@net(5, 4, skipped=("Trilu",))
def vendor_operator() -> Model:
    """An operator of ONNX Runtime's own, of which onnx doesn't even know the rank."""
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 6, 6), (3, 6)))
    x = b.add("Trilu", x, domain="com.microsoft")
    x = b.relu(b.conv(x, (6, 5)))
    return b.build(b.head(b.relu(b.conv(x, (5, 4))), (4, 3)))
