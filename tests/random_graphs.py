"""Random nets over the whole operator table, and what must hold for each of them.

``seeded(number)`` is the random net of that number. Nets are grown node by node, so that they
are valid as they are; where ONNX Runtime lacks a kernel (:func:`runs`) they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.passes.masking import mask_name, masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import Wishes
from onnx_shapprune.verification import verify
from zoo import TOLERANCE, Array, Builder, Model, choice, run, samples, with_recorded_shapes

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several: hypothesis, or a seeded generator."""

INPUT = 4
WIDTHS = (3, 4, 6, 8, 8, 12)
LAST = 2**63 - 1
OPSETS = {11: 6, 13: 7, 17: 8, 18: 8, 21: 10}
"""Opsets with the IR version of their time."""

MOST_CHANNELS, LARGEST = 32, 1e4


@dataclass(frozen=True)
class Live:
    """A tensor that later nodes may read: batch, channels, then ``sizes``."""

    name: str
    channels: int
    sizes: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes behind the channels."""
        return len(self.sizes)

    @property
    def pixels(self) -> int:
        """Elements of a channel."""
        return prod(self.sizes)


# --- how weights are stored --------------------------------------------------------------


@dataclass(eq=False)
class Varied(Builder):
    """A builder that stores weights in all forms that exporters and quantisers write."""

    pick: Pick = lambda options: options[0]
    plain: bool = False
    kernels: dict[tuple[int, ...], str] = field(default_factory=dict)
    norms: dict[int, list[str]] = field(default_factory=dict)

    def store(self, array: Array | Sequence[int], name: str = "") -> str:
        """An initializer, also behind an Identity; or a Constant node."""
        form = "stored" if self.plain or name else self.pick(("stored",) * 14 + ("alias", "node"))
        if form == "node":
            return self.constant(np.asarray(array))
        stored = super().store(array, name)
        return self.add("Identity", stored) if form == "alias" else stored

    def kernel(
        self, sizes: tuple[int, int], kernel: int = 3, *, groups: int = 1, rank: int = 2
    ) -> str:
        """Weights of a Conv, now and then those of another one."""
        arriving = sizes[0] // groups
        shape = (sizes[1], arriving, *[kernel] * rank)
        scale = (2 / (arriving * kernel**rank)) ** 0.5
        return self.weight(self.rng.standard_normal(shape) * scale, 0)

    def weight(self, values: Array, axis: int) -> str:
        """A kernel in any form; ``axis`` is that of its outputs."""
        known = self.kernels.get(values.shape)
        if known is not None and self.pick((False,) * 7 + (True,)):
            return known
        forms: tuple[str, ...] = ("stored",) * 16
        if np.dtype(self.dtype) == np.float32:
            forms += ("cast", "scaled") + (("quantised",) if self.opset >= 13 else ())
        form = self.pick(forms)
        name = self.store(values) if form == "stored" else getattr(self, form)(values, axis)
        self.kernels[values.shape] = name
        return str(name)

    def cast(self, values: Array, axis: int) -> str:
        """Half precision in the file."""
        return self.add("Cast", self.raw(values.astype(np.float16)), to=TensorProto.FLOAT)

    def scaled(self, values: Array, axis: int) -> str:
        """Integers in the file, cast and scaled per output."""
        scale = self._scales(values, axis)
        stored = self.raw(np.round(values / scale).astype(np.int8))
        cast = self.add("Cast", stored, to=TensorProto.FLOAT)
        return self.add("Mul", cast, self.raw(scale.astype(np.float32)))

    def quantised(self, values: Array, axis: int) -> str:
        """Integers in the file, dequantised per output or with one scale."""
        scale = self._scales(values, axis)
        if self.pick((True, False)):
            scale, fields = np.asarray(scale.max()), {}
        else:
            fields = {"axis": axis}
        stored = self.raw(np.round(values / scale).astype(np.int8))
        inputs = [stored, self.raw(np.squeeze(scale).astype(np.float32))]
        if self.pick((True, False)):
            inputs.append(self.raw(np.zeros(np.squeeze(scale).shape, np.int8)))
        return self.add("DequantizeLinear", *inputs, **fields)

    @staticmethod
    def _scales(values: Array, axis: int) -> Array:
        others = tuple(i for i in range(values.ndim) if i != axis)
        return np.asarray(np.abs(values).max(axis=others, keepdims=True) / 100)

    def raw(self, array: Array) -> str:
        """An initializer whose dtype stays as it is."""
        tensor = onnx.numpy_helper.from_array(array, f"c{len(self.stored)}")
        self.stored.append(tensor)
        return str(tensor.name)

    def norm(self, x: str, channels: int) -> str:
        """A BatchNormalization, now and then with the vectors of another one."""
        if channels not in self.norms or not self.pick((False,) * 5 + (True,)):
            vectors = [self.uniform(channels), self.normal(channels, scale=0.5)]
            vectors += [self.normal(channels, scale=0.2), self.uniform(channels)]
            self.norms[channels] = vectors
        return self.add("BatchNormalization", x, *self.norms[channels])


# --- the steps ---------------------------------------------------------------------------


@dataclass(eq=False)
class Grower:
    """Grows a net node by node from what ``pick`` chooses."""

    pick: Pick
    b: Varied = field(init=False)
    live: list[Live] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    batch: int | str = "N"

    def __post_init__(self) -> None:
        """Choose the opset, the dtype and the batch."""
        opset = self.pick(tuple(OPSETS))
        dtype = self.pick((np.float32,) * 16 + (np.float16, np.float64))
        self.b = Varied(opset=opset, ir=OPSETS[opset], dtype=dtype, pick=self.pick)
        self.batch = self.pick(("N", "N", "N", 2))

    def grow(self, nodes: int) -> Model:
        """A net of about this many operators."""
        forms: tuple[tuple[int, ...], ...] = ((8, 8),) * 6 + ((16,), (16,), (4, 4, 4), ())
        if self.double:
            forms = ((),)  # ONNX Runtime has no Conv for it
        sizes = self.pick(forms)
        self.live.append(Live(self.b.input(self.batch, INPUT, *sizes), INPUT, sizes))
        (conv if sizes else gemm)(self, self.live[0])
        while len(self.b.nodes) < nodes:
            x = self.pick(self.live[-3:])
            self.pick(steps(x.rank))(self, x)
        return self.finished(self.end())

    @property
    def double(self) -> bool:
        """Whether activations are float64."""
        return np.dtype(self.b.dtype) == np.float64

    @property
    def single(self) -> bool:
        """Whether activations are float32."""
        return np.dtype(self.b.dtype) == np.float32

    def emit(self, name: str, channels: int, sizes: tuple[int, ...]) -> Live:
        """A new tensor."""
        self.live.append(Live(name, channels, sizes))
        return self.live[-1]

    def same(self, x: Live, name: str) -> Live:
        """A new tensor of a known form."""
        return self.emit(name, x.channels, x.sizes)

    def chance(self, one_in: int) -> bool:
        """Now and then."""
        return bool(self.pick((False,) * (one_in - 1) + (True,)))

    # --- parts of steps

    def per_channel(self, x: Live, values: Array | None = None) -> str:
        """A constant per channel, per element, or for all, in any rank that broadcasts."""
        ones = (1,) * x.rank
        shapes = [(x.channels, *ones), (1, x.channels, *ones)] * 3
        shapes += [(1,), (), (1, *ones), (x.channels, *x.sizes)]
        shape = self.pick(shapes)
        return self.b.store(self.b.rng.uniform(0.5, 1.5, shape) if values is None else values)

    def conv_to(self, x: Live, channels: int, kernel: int = 1) -> Live:
        """A convolution (a Gemm, for a vector) with a given number of channels."""
        if not x.rank:
            return Live(self.b.gemm(x.name, (x.channels, channels)), channels, ())
        y = self.b.conv(x.name, (x.channels, channels), kernel, rank=x.rank)
        return Live(y, channels, x.sizes)

    def axes(self, op: str, y: str, axes: Sequence[int], **kw: Any) -> str:
        """An operator whose axes are an attribute in old opsets and an input in new ones."""
        since = 13 if op in ("Squeeze", "Unsqueeze", "ReduceSum") else 18
        if self.b.opset < since:
            return self.b.add(op, y, axes=list(axes), **kw)
        return self.b.add(op, y, self.b.store(list(axes)), **kw)

    def size(self, y: str, axis: int) -> str:
        """A list of one: the size of an axis at run time."""
        shape = self.b.add("Shape", y)
        match self.pick(("gather", "unsqueeze", "slice")):
            case "gather":
                return self.b.add("Gather", shape, self.b.store([axis]), axis=0)
            case "slice":
                bounds = [self.b.store([k]) for k in (axis, axis + 1, 0)]
                return self.b.add("Slice", shape, *bounds)
        scalar = self.b.add("Gather", shape, self.b.store(np.int64(axis)), axis=0)
        return self.axes("Unsqueeze", scalar, [0])

    def reshape(self, y: str, *dims: int) -> str:
        """To these sizes behind the batch, which is written in any way."""
        form = self.pick(("zero", "zero", "free", "number", "shape"))
        if form == "shape":
            rest = self.b.store([*dims[:-1], self.pick((dims[-1], -1))])
            return self.b.add("Reshape", y, self.b.add("Concat", self.size(y, 0), rest, axis=0))
        batch = {"zero": 0, "free": -1, "number": self.batch}[form]
        sizes = [batch if isinstance(batch, int) else -1, *dims]
        if form == "zero":
            place = self.pick((None, *range(1, len(sizes))))
            sizes = [-1 if i == place else size for i, size in enumerate(sizes)]
        return self.b.add("Reshape", y, self.b.store(sizes))

    def as_vector(self, x: Live) -> Live:
        """The means of all channels."""
        if not x.rank:
            return x
        spatial = list(range(2, x.rank + 2))
        match self.pick(("pool", "mean", "squeeze", "max")):
            case "pool":
                y = self.b.add("Flatten", self.b.add("GlobalAveragePool", x.name))
            case "mean":
                y = self.axes("ReduceMean", x.name, spatial, keepdims=0)
            case "max":
                y = self.b.add("Flatten", self.b.add("GlobalMaxPool", x.name))
            case _:
                y = self.axes("ReduceMean", x.name, [a - x.rank - 2 for a in spatial], keepdims=1)
                y = self.axes("Squeeze", y, spatial)
        return Live(y, x.channels, ())

    def spread(self, x: Live, rank: int) -> str:
        """A vector that broadcasts over a picture."""
        if not rank:
            return x.name
        if self.pick((True, False)):
            return self.axes("Unsqueeze", x.name, range(2, rank + 2))
        return self.reshape(x.name, x.channels, *[1] * rank)

    def slice(self, y: str, *bounds: Sequence[int]) -> str:
        """A Slice by stored starts, ends, axes (and steps)."""
        return self.b.add("Slice", y, *(self.b.store(list(bound)) for bound in bounds))

    def parted(self, y: str, widths: Sequence[int], axis: int = 1) -> list[str]:
        """A Split in any of its forms."""
        ways = ["sizes"]
        if len(set(widths)) == 1:
            ways += ["equal"] if self.b.opset < 18 else ["number"]
        fields: dict[str, Any] = {"axis": axis, "outputs": len(widths)}
        inputs: list[str] = []
        match self.pick(ways):
            case "sizes" if self.b.opset < 13:
                fields["split"] = list(widths)
            case "sizes":
                inputs = [self.b.store(list(widths))]
            case "number":
                fields["num_outputs"] = len(widths)
        first = self.b.add("Split", y, *inputs, **fields)
        return [first, *(f"{first}_{i}" for i in range(1, len(widths)))]

    # --- the end

    def end(self) -> Live:
        """The last tensor, with what all others that nothing reads have to say added to it."""
        last = self.live[-1]
        loose = [self.as_vector(x) for x in self.unread(self.live[:-1])]
        if not loose:
            return last
        said = loose[0]
        if len(loose) > 1:
            y = self.b.add("Concat", *(x.name for x in loose), axis=1)
            said = Live(y, sum(x.channels for x in loose), ())
        said = self.conv_to(said, last.channels)
        y = self.b.add("Add", last.name, self.spread(said, last.rank))
        return Live(y, last.channels, last.sizes)

    def unread(self, live: Sequence[Live]) -> list[Live]:
        """Those that nothing reads so far."""
        read = {name for node in self.b.nodes for name in node.input}
        return [x for x in live if x.name not in read]

    def finished(self, x: Live) -> Model:
        """Scores, other outputs, and how all that is written down."""
        names = [self.pick(ENDS)(self, x), *self.outputs]
        model = self.b.build(*names)
        if self.chance(5):
            model = with_recorded_shapes(model)
        if self.chance(8):
            list_as_inputs(model, every=self.b.opset == 11)
        return model


def list_as_inputs(model: Model, *, every: bool) -> None:
    """List initializers as inputs too: all (as IR 3 wants it), or every second one."""
    if every:
        model.ir_version = 3
    for tensor in list(model.graph.initializer)[:: 1 if every else 2]:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)


Step = Callable[[Grower, Live], Any]
_STEPS: list[tuple[Step, int, tuple[int, ...]]] = []
ANY, PICTURES = (0, 1, 2, 3), (1, 2, 3)


def step(weight: int, ranks: tuple[int, ...] = PICTURES) -> Callable[[Step], Step]:
    """Register a step for tensors of these ranks."""

    def register(function: Step) -> Step:
        _STEPS.append((function, weight, ranks))
        return function

    return register


@cache
def steps(rank: int) -> tuple[Step, ...]:
    """All steps for a rank, each as often as its weight says."""
    return tuple(f for f, weight, ranks in _STEPS if rank in ranks for _ in range(weight))


# --- kernels


@step(22)
def conv(g: Grower, x: Live) -> None:
    """Any convolution of one group."""
    channels, kernel = g.pick(WIDTHS), g.pick((1, 3))
    stride = g.pick((1, 2)) if min(x.sizes) > 2 else 1
    fields: dict[str, Any] = {"strides": [stride] * x.rank}
    if g.chance(6):
        fields |= {"pads": [kernel // 2 * 2] * 2 * x.rank, "dilations": [2] * x.rank}
    y = g.b.conv(
        x.name, (x.channels, channels), kernel, bias=g.pick((True, False)), rank=x.rank, **fields
    )
    g.emit(y, channels, tuple(-(-size // stride) for size in x.sizes))


@step(3)
def grouped(g: Grower, x: Live) -> None:
    """Two or more groups; not depthwise."""
    groups = next((n for n in (4, 3, 2) if x.channels % n == 0 and x.channels > n), 1)
    channels = groups * g.pick((2, 3, 4))
    y = g.b.conv(x.name, (x.channels, channels), groups=groups, rank=x.rank)
    g.emit(y, channels, x.sizes)


@step(4)
def depthwise(g: Grower, x: Live) -> None:
    """One or several outputs per channel."""
    channels = x.channels * g.pick((1, 1, 1, 2, 3))
    if channels <= MOST_CHANNELS and x != g.live[0]:
        sizes = (x.channels, channels)
        y = g.b.conv(x.name, sizes, groups=x.channels, rank=x.rank, bias=g.pick((True, False)))
        g.emit(y, channels, x.sizes)


@step(3)
def transposed(g: Grower, x: Live) -> None:
    """A ConvTranspose to twice the size, of one group, of several, or depthwise."""
    if max(x.sizes) > 4:
        return
    divisors = [n for n in (2, 3, x.channels) if x.channels % n == 0]
    groups = g.pick([1, 1, *divisors])
    each = g.pick((2, 3)) if groups > 1 else g.pick(WIDTHS)
    shape = (x.channels, each, *[2] * x.rank)
    inputs = [x.name, g.b.weight(g.b.rng.standard_normal(shape) * 0.4, 1)]
    inputs += [g.b.normal(each * groups)] if g.pick((True, False)) else []
    fields = {"group": groups} if groups > 1 else {}
    y = g.b.add("ConvTranspose", *inputs, strides=[2] * x.rank, **fields)
    g.emit(y, each * groups, tuple(2 * size for size in x.sizes))


@step(14, (0,))
def gemm(g: Grower, x: Live) -> None:
    """A Gemm with any of its attributes."""
    channels, fields = g.pick(WIDTHS), {}
    if g.chance(3):
        fields = {"alpha": g.pick((0.5, 2.0)), "beta": g.pick((0.0, 0.5, 1.5))}
    y, turned, across = x.name, g.pick((True, False)), g.chance(4)
    if across:
        y, fields = g.b.add("Transpose", y, perm=[1, 0]), {**fields, "transA": 1}
    shape = (channels, x.channels) if turned else (x.channels, channels)
    values = g.b.rng.standard_normal(shape) * x.channels**-0.5
    inputs = [y, g.b.weight(values, 1 - int(turned))]
    if g.pick((True, True, False)):
        inputs.append(g.b.normal(*g.pick(((channels,), (1, channels), (1,), ()))))
    g.emit(g.b.add("Gemm", *inputs, **fields, **({"transB": 1} if turned else {})), channels, ())


@step(6, (0,))
def matmul(g: Grower, x: Live) -> None:
    """A MatMul, with an Add for a bias or without."""
    channels = g.pick(WIDTHS)
    values = g.b.rng.standard_normal((x.channels, channels)) * x.channels**-0.5
    y = g.b.add("MatMul", x.name, g.b.weight(values, 1))
    if g.pick((True, False)):
        y = g.b.add("Add", *g.pick(((y, g.b.normal(channels)), (g.b.normal(channels), y))))
    g.emit(y, channels, ())


# --- one tensor in, one of the same form out


@step(7, ANY)
def unary(g: Grower, x: Live) -> None:
    """An activation."""
    ops = ["Relu", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softplus", "Identity", "Elu"]
    ops += ["HardSigmoid", "Softsign", "Abs", "Neg", "Erf", "Selu", "Dropout", "Clip"]
    ops += ["HardSwish"] if g.b.opset >= 14 else []
    if g.double:  # ONNX Runtime has kernels for these only
        ops = ["Relu", "Sigmoid", "Tanh", "Identity", "Abs", "Neg"]
    op = g.pick(ops)
    bounds = [g.b.store(np.float32(v)) for v in (-1.0, 2.0)] if op == "Clip" else []
    g.same(x, g.b.add(op, x.name, *bounds))


@step(5, ANY)
def norm(g: Grower, x: Live) -> None:
    """A BatchNormalization."""
    g.same(x, g.b.norm(x.name, x.channels))


@step(1)
def instance_norm(g: Grower, x: Live) -> None:
    """An InstanceNormalization."""
    if x.pixels >= 4:
        vectors = g.b.uniform(x.channels), g.b.normal(x.channels)
        g.same(x, g.b.add("InstanceNormalization", x.name, *vectors, epsilon=0.1))


@step(6, ANY)
def constant(g: Grower, x: Live) -> None:
    """A constant on either side."""
    op = g.pick(("Add", "Add", "Mul", "Mul", "Sub", "Div", "Max", "Min", "Pow"))
    y = x.name
    if op == "Pow":
        g.same(x, g.b.add(op, g.b.add("Sigmoid", y), g.per_channel(x)))
        return
    if op == "Div" and g.pick((True, False)):
        y = g.b.add("Add", g.b.add("Sigmoid", y), g.per_channel(x))
        g.same(x, g.b.add(op, g.per_channel(x), y))
        return
    sides = (y, g.per_channel(x))
    g.same(x, g.b.add(op, *(sides if op == "Div" else g.pick((sides, sides[::-1])))))


@step(2, ANY)
def prelu(g: Grower, x: Live) -> None:
    """Slopes per channel or one for all."""
    if not g.double:
        shape = g.pick(((x.channels, *[1] * x.rank), (1,) * (x.rank + 1)))
        g.same(x, g.b.add("PRelu", x.name, g.b.uniform(*shape)))


@step(2, ANY)
def where(g: Grower, x: Live) -> None:
    """One of two, by a stored or a computed condition."""
    if g.pick((True, False)):
        shape = (x.channels, *[1] * x.rank)
        condition = g.b.raw(g.b.rng.random(shape) < 0.5)
        other = g.b.add("Tanh", x.name)
    else:
        condition = g.b.add("Greater", x.name, g.per_channel(x, np.zeros(1)))
        if g.pick((True, False)):
            small = g.b.add("Less", x.name, g.per_channel(x))
            condition = g.b.add(g.pick(("And", "Or", "Xor")), condition, small)
        other = g.b.add("Mul", x.name, g.per_channel(x))
    g.same(x, g.b.add("Where", condition, *g.pick(((x.name, other), (other, x.name)))))


@step(1, ANY)
def rounded(g: Grower, x: Live) -> None:
    """An activation that is quantised and dequantised."""
    if g.single:
        # With signed ones of opset 21 an optimisation of ONNX Runtime's mixes up the types.
        zero = np.uint8(130) if g.b.opset > 18 else np.int8(3)
        parameters = g.b.raw(np.float32(0.05)), g.b.raw(zero)
        y = g.b.add("QuantizeLinear", x.name, *parameters)
        g.same(x, g.b.add("DequantizeLinear", y, *parameters))


@step(3)
def gate(g: Grower, x: Live) -> None:
    """A gate per channel: through convolutions, Gemms or nothing."""
    kind = g.pick(("conv", "gemm", "mean"))
    if kind == "gemm":
        y = g.conv_to(g.as_vector(x), g.pick((2, 3)))
        y = g.conv_to(Live(g.b.relu(y.name), y.channels, ()), x.channels)
        y = Live(g.b.add(g.pick(("Sigmoid", "HardSigmoid")), y.name), x.channels, ())
        g.same(x, g.b.add("Mul", x.name, g.spread(y, x.rank)))
        return
    y = Live(g.b.add("GlobalAveragePool", x.name), x.channels, (1,) * x.rank)
    if kind == "conv":
        y = g.conv_to(y, 2)
        y = g.conv_to(Live(g.b.relu(y.name), 2, y.sizes), x.channels)
    gates = g.b.add("Sigmoid", y.name)
    if g.chance(4):
        gates = g.b.add("Expand", gates, g.b.add("Shape", x.name))
    g.same(x, g.b.add("Mul", *g.pick(((x.name, gates), (gates, x.name)))))


@step(2)
def modulated(g: Grower, x: Live) -> None:
    """Scale and shift from another tensor's means."""
    said = g.conv_to(g.as_vector(g.pick(g.live)), x.channels)
    y = g.b.add(g.pick(("Add", "Sub", "Max")), x.name, g.spread(said, x.rank))
    g.same(x, y)


# --- beside the channels


@step(4)
def pool(g: Grower, x: Live) -> None:
    """Half the size."""
    if min(x.sizes) > 2:
        op, twos = g.pick(("MaxPool", "AveragePool", "LpPool")), [2] * x.rank
        y = g.b.add(op, x.name, kernel_shape=twos, strides=twos)
        g.emit(y, x.channels, tuple(size // 2 for size in x.sizes))


@step(2)
def resize(g: Grower, x: Live) -> None:
    """Twice the size, by scales or by sizes from wherever they come."""
    if max(x.sizes) > 4:
        return
    sizes, ones = tuple(2 * size for size in x.sizes), [1.0, 1.0]
    kinds = ["scales", "computed"] + (["axes"] if g.b.opset >= 18 else [])
    kinds += ["stored"] if g.batch != "N" else []
    roi = none = g.b.raw(np.zeros(0, np.float32)) if g.b.opset < 13 else ""
    kind = g.pick(kinds)
    fields: dict[str, Any] = {"mode": g.pick(("nearest", "linear"))} if x.rank == 2 else {}
    if kind == "scales":
        inputs = [g.b.raw(np.float32(ones + [2.0] * x.rank))]
    elif kind == "axes":
        inputs = ["", g.b.store(list(sizes))]
        fields |= {"axes": list(range(2, x.rank + 2))}
    elif kind == "stored":
        inputs = [none, g.b.store([int(g.batch), x.channels, *sizes])]
    else:
        front = g.b.add("Concat", g.size(x.name, 0), g.size(x.name, 1), axis=0)
        ends = g.b.add("Concat", front, g.b.store(list(sizes)), axis=0)
        inputs = [none, ends]
    g.emit(g.b.add("Resize", x.name, roi, *inputs, **fields), x.channels, sizes)


@step(2)
def padded(g: Grower, x: Live) -> None:
    """A border, constant or mirrored."""
    before = [0, 0, *(g.pick((0, 1)) for _ in x.sizes)]
    behind = [0, 0, *(g.pick((0, 1)) for _ in x.sizes)]
    sizes = tuple(a + b + c for a, b, c in zip(x.sizes, before[2:], behind[2:], strict=True))
    if max(sizes) > 17 or min(x.sizes) < 2:
        return
    kind = g.pick(("constant", "value", "reflect", "edge"))
    value = [g.b.store(np.float32(0.5))] if kind == "value" else []
    mode = "constant" if kind == "value" else kind
    y = g.b.add("Pad", x.name, g.b.store(before + behind), *value, mode=mode)
    g.emit(y, x.channels, sizes)


@step(1)
def softmax_beside(g: Grower, x: Live) -> None:
    """A Softmax over pixels."""
    y = g.b.add("Softmax", g.reshape(x.name, x.channels, x.pixels), axis=2)
    g.same(x, g.reshape(y, x.channels, *x.sizes))


@step(1)
def reduced(g: Grower, x: Live) -> None:
    """One axis less, then what is left spreads over the picture again."""
    op = g.pick(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"))
    axis = g.pick(range(2, x.rank + 2))
    if g.pick((True, False)):
        y = g.axes(op, x.name, [axis], keepdims=1)
    else:
        y = g.axes("Unsqueeze", g.axes(op, x.name, [axis], keepdims=0), [axis])
    g.same(x, g.b.add("Add", x.name, g.b.add("Tanh", y)))


@step(3)
def reshaped(g: Grower, x: Live) -> None:
    """To rows of pixels and back."""
    kind = g.pick(("stored", "stored", "zeros", "computed"))
    if kind == "zeros":
        y = g.b.add("Reshape", x.name, g.b.store([0, 0, -1]))
    elif kind == "computed":
        front = g.b.add("Concat", g.size(x.name, 0), g.size(x.name, 1), axis=0)
        rest = g.size(x.name, 2)
        for axis in range(3, x.rank + 2):
            rest = g.b.add("Mul", rest, g.size(x.name, axis))
        y = g.b.add("Reshape", x.name, g.b.add("Concat", front, rest, axis=0))
    else:
        y = g.reshape(x.name, x.channels, x.pixels)
    y = g.b.add("Sigmoid", y)
    g.same(x, g.reshape(y, x.channels, *x.sizes))


@step(1)
def other_rank(g: Grower, x: Live) -> None:
    """A picture as a row, or a row as a picture."""
    if x.rank == 1:
        axis = g.pick((2, -1))
        y = g.axes("Unsqueeze", x.name, [axis])
        if g.pick((True, False)):
            g.emit(y, x.channels, (1, *x.sizes) if axis == 2 else (*x.sizes, 1))
        else:
            g.same(x, g.axes("Squeeze", g.b.relu(y), [axis]))
    else:
        g.emit(g.reshape(x.name, x.channels, x.pixels), x.channels, (x.pixels,))


@step(3)
def flattened(g: Grower, x: Live) -> None:
    """Through a layer that sees every pixel, and back."""
    if x.pixels > 16:
        return
    width, channels = x.channels * x.pixels, g.pick(WIDTHS)
    match g.pick(("flatten", "reshape", "axis")):
        case "flatten":
            y = g.b.add("Flatten", x.name)
        case "axis":
            y = g.b.add("Flatten", x.name, axis=-x.rank - 1)
        case _:
            y = g.reshape(x.name, width)
    wide = channels * g.pick((1, 4)) if x.rank == 2 else channels
    y = g.b.relu(g.b.gemm(y, (width, wide), transposed=g.pick((True, False))))
    if wide == channels:
        vector = Live(y, channels, ())
        g.emit(g.spread(vector, x.rank), channels, (1,) * x.rank)
    else:
        g.emit(g.reshape(y, channels, 2, 2), channels, (2, 2))


@step(1, (0,))
def unfolded(g: Grower, x: Live) -> None:
    """A vector as a picture, as generators begin."""
    if not g.double:
        wide = g.conv_to(x, 4 * g.pick((3, 4)))
        g.emit(g.reshape(wide.name, wide.channels // 4, 2, 2), wide.channels // 4, (2, 2))


# --- channels last


@step(5)
def channels_last(g: Grower, x: Live) -> None:
    """To channels last and back, with something in between."""
    y = g.b.add("Transpose", x.name, perm=[0, *range(2, x.rank + 2), 1])
    y, channels = g.pick(LAST_STEPS)(g, y, x)
    back = [0, x.rank + 1, *range(1, x.rank + 1)]
    g.emit(g.b.add("Transpose", y, perm=back), channels, x.sizes)


def _last_constants(g: Grower, y: str, x: Live) -> tuple[str, int]:
    y = g.b.add("Mul", y, g.b.uniform(x.channels))
    return g.b.add("Add", g.b.normal(*g.pick(((x.channels,), (1, x.channels)))), y), x.channels


def _last_matmul(g: Grower, y: str, x: Live) -> tuple[str, int]:
    channels = g.pick(WIDTHS)
    values = g.b.rng.standard_normal((x.channels, channels)) * x.channels**-0.5
    y = g.b.add("MatMul", y, g.b.weight(values, 1))
    return g.b.add("Add", y, g.b.normal(channels)), channels


def _last_gemm(g: Grower, y: str, x: Live) -> tuple[str, int]:
    channels = g.pick(WIDTHS)
    y = g.b.add("Reshape", y, g.b.store([-1, x.channels]))
    y = g.b.relu(g.b.gemm(y, (x.channels, channels)))
    return g.b.add("Reshape", y, g.b.store([-1, *x.sizes, channels])), channels


def _last_ends(g: Grower, y: str, x: Live) -> tuple[str, int]:
    """A feed-forward block with its skip."""
    wide = 2 * x.channels
    values = g.b.rng.standard_normal((x.channels, wide)) * x.channels**-0.5
    inner = g.b.add("MatMul", y, g.b.weight(values, 1))
    inner = g.b.add("Add", inner, g.b.normal(wide))
    inner = g.b.add("Mul", inner, g.b.add("Sigmoid", inner))
    values = g.b.rng.standard_normal((wide, x.channels)) * wide**-0.5
    return g.b.add("Add", y, g.b.add("MatMul", inner, g.b.weight(values, 1))), x.channels


def _last_split(g: Grower, y: str, x: Live) -> tuple[str, int]:
    """A gated linear unit."""
    values = g.b.rng.standard_normal((x.channels, 2 * x.channels)) * x.channels**-0.5
    y = g.b.add("MatMul", y, g.b.weight(values, 1))
    one, other = g.parted(y, [x.channels, x.channels], g.pick((-1, x.rank + 1)))
    return g.b.add("Mul", one, g.b.add("Sigmoid", other)), x.channels


def _last_unary(g: Grower, y: str, x: Live) -> tuple[str, int]:
    return g.b.add(g.pick(("Relu", "Softplus", "Tanh")), y), x.channels


LAST_STEPS = (*(_last_constants, _last_matmul, _last_gemm, _last_ends, _last_split, _last_unary),)


# --- channels that move


def _widths(g: Grower, x: Live) -> list[int]:
    """Two or three parts, equal where they can be, or not."""
    parts = g.pick((2, 2, 3))
    if x.channels % parts == 0 and x.channels > parts and g.pick((True, True, False)):
        return [x.channels // parts] * parts
    first = g.pick(range(2, x.channels - 1))
    return [first, x.channels - first]


@step(3, ANY)
def split(g: Grower, x: Live) -> None:
    """Parts of the channels; some are worked on, all come together again or go their ways."""
    if x.channels < 4:
        return
    widths = _widths(g, x)
    names = g.parted(x.name, widths, g.pick((1, -1 - x.rank)))
    parts = [Live(name, width, x.sizes) for name, width in zip(names, widths, strict=True)]
    kind = g.pick(("concat", "gated", "loose"))
    if kind == "gated" and len(set(widths)) == 1:
        g.same(parts[0], g.b.add("Mul", names[0], g.b.add("Sigmoid", names[1])))
        if len(parts) > 2:
            g.same(parts[2], g.b.relu(names[2]))
    elif kind == "loose":
        for part in parts:
            g.same(part, g.b.relu(part.name))
    else:
        done = [g.conv_to(parts[0], g.pick(WIDTHS)), *parts[1:]]
        y = g.b.add("Concat", *(part.name for part in done), axis=1)
        g.emit(y, sum(part.channels for part in done), x.sizes)


@step(3, ANY)
def sliced(g: Grower, x: Live) -> None:
    """A run of channels by stored bounds of any sign."""
    if x.channels < 3:
        return
    start = g.pick(range(x.channels - 1))
    stop = g.pick(range(start + 2, x.channels + 1))
    stride = g.pick((1, 1, 1, 1, 1, 2)) if stop - start > 1 else 1
    start = g.pick((start, start - x.channels))
    end = g.pick((stop, stop - x.channels)) if stop < x.channels else g.pick((stop, LAST))
    bounds = [[start], [end], [g.pick((1, -1 - x.rank))], [stride]]
    y = g.slice(x.name, *bounds[: 3 + (stride > 1)])
    begin = start % x.channels
    g.emit(y, len(range(begin, stop, stride)), x.sizes)


@step(2, ANY)
def chunked(g: Grower, x: Live) -> None:
    """Halves by bounds that are computed from a Shape, as TorchScript writes a chunk."""
    if x.channels % 2 or x.channels < 4:
        return
    count = g.b.add("Gather", g.b.add("Shape", x.name), g.b.store(np.int64(1)), axis=0)
    if g.pick((True, False)):
        count = g.b.add("Add", count, g.b.store(np.int64(1)))
    half = g.b.add("Div", count, g.b.store(np.int64(2)))
    ends = [g.b.add("Mul", half, g.b.store(np.int64(k))) for k in range(3)]
    ends = [g.axes("Unsqueeze", end, [0]) for end in ends]
    axis = g.b.store([1])
    one, other = (g.b.add("Slice", x.name, ends[k], ends[k + 1], axis) for k in range(2))
    half_as_wide = Live(x.name, x.channels // 2, x.sizes)
    if g.pick((True, False)):
        g.same(half_as_wide, g.b.add("Mul", one, g.b.add("Sigmoid", other)))
    else:
        y = g.conv_to(Live(other, x.channels // 2, x.sizes), x.channels // 2).name
        g.same(x, g.b.add("Concat", one, y, axis=1))


@step(2, ANY)
def gathered(g: Grower, x: Live) -> None:
    """Channels in another order, some of them, or some twice."""
    order = list(g.b.rng.permutation(x.channels))
    chosen = g.pick((order, order[: -(-x.channels // 2)], sorted(order), [*order, order[0]]))
    if g.chance(4):
        chosen = [index - x.channels for index in chosen]
    y = g.b.add("Gather", x.name, g.b.store(np.asarray(chosen, np.int64)), axis=1)
    g.emit(y, len(chosen), x.sizes)


@step(3)
def shuffled(g: Grower, x: Live) -> None:
    """A channel shuffle, its shapes stored or computed."""
    groups = next((n for n in (2, 3) if x.channels % n == 0), 0)
    if x.channels <= 2 * groups or not groups:
        return
    inner = x.channels // groups
    turn = [0, 2, 1, *range(3, x.rank + 3)]
    if g.pick((True, True, False)):
        y = g.reshape(x.name, groups, inner, *x.sizes)
        y = g.reshape(g.b.add("Transpose", y, perm=turn), x.channels, *x.sizes)
    else:
        batch, width = g.size(x.name, 0), g.size(x.name, 1)
        spatial = [g.size(x.name, axis) for axis in range(2, x.rank + 2)]
        each = g.b.add("Div", width, g.b.store([groups]))
        sizes = g.b.add("Concat", batch, g.b.store([groups]), each, *spatial, axis=0)
        y = g.b.add("Transpose", g.b.add("Reshape", x.name, sizes), perm=turn)
        middle = g.pick((width, g.b.store([-1])))
        y = g.b.add("Reshape", y, g.b.add("Concat", batch, middle, *spatial, axis=0))
    g.same(x, y)


@step(2, (2,))
def rearranged(g: Grower, x: Live) -> None:
    """Channels to pixels or pixels to channels."""
    even = all(size % 2 == 0 for size in x.sizes) and 4 * x.channels <= MOST_CHANNELS
    if even and (max(x.sizes) > 4 or g.pick((True, False))):
        y = g.b.add("SpaceToDepth", x.name, blocksize=2)
        g.emit(y, 4 * x.channels, tuple(size // 2 for size in x.sizes))
    elif max(x.sizes) <= 4:
        wide = x if x.channels % 4 == 0 else g.conv_to(x, 4 * g.pick((2, 3)))
        fields = {"mode": g.pick(("DCR", "CRD"))} if g.pick((True, False)) else {}
        y = g.b.add("DepthToSpace", wide.name, blocksize=2, **fields)
        g.emit(y, wide.channels // 4, tuple(2 * size for size in x.sizes))


@step(1)
def more_channels(g: Grower, x: Live) -> None:
    """Channels of zeros in front or behind, as some shortcuts have them."""
    front, behind = g.pick(((0, 2), (1, 1), (2, 0)))
    none = [0] * x.rank
    y = g.b.add("Pad", x.name, g.b.store([0, front, *none, 0, behind, *none]))
    g.emit(y, x.channels + 2, x.sizes)


# --- several in


def _partner(g: Grower, x: Live) -> Live:
    """Another tensor of the same form, or a projection."""
    form = (x.channels, x.sizes)
    others = [o for o in g.live if (o.channels, o.sizes) == form and o != x]
    if others and g.pick((True, True, False)):
        return Live(g.pick(g.unread(others) or others).name, *form)
    beside = [o for o in g.live if o.sizes == x.sizes]
    return g.conv_to(g.pick(beside), x.channels)


@step(8, ANY)
def join(g: Grower, x: Live) -> None:
    """A sum, product or choice with another tensor."""
    other = _partner(g, x).name
    ops = ("Add", "Add", "Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Where", "Mean")
    op = g.pick(ops[:4] if g.double else ops)
    if op == "Mul":
        other = g.b.add("Tanh", other)
    if op == "Div":
        other = g.b.add("Softplus", g.b.add("Abs", other))
    sides = [x.name, other] if op == "Div" else list(g.pick(((x.name, other), (other, x.name))))
    if op in ("Sum", "Mean", "Max") and g.chance(3):
        sides.append(_partner(g, x).name)
    if op == "Where":
        sides = [g.b.add("Less", *sides), *sides]
    g.same(x, g.b.add(op, *sides))


@step(5, ANY)
def concat(g: Grower, x: Live) -> None:
    """Side by side with others of the same size, also with itself or a constant."""
    others = [other for other in g.live if other.sizes == x.sizes]
    parts = [x, g.pick(g.unread(others) or others), g.pick(others)][: g.pick((2, 2, 3))]
    if g.chance(8) and g.batch != "N":
        parts.append(Live(g.b.normal(int(g.batch), 2, *x.sizes), 2, x.sizes))
    channels = sum(part.channels for part in parts)
    if channels <= MOST_CHANNELS:
        y = g.b.add("Concat", *(part.name for part in parts), axis=g.pick((1, -1 - x.rank)))
        g.emit(y, channels, x.sizes)


@step(1, ANY)
def union(g: Grower, x: Live) -> None:
    """Two Concats whose parts overlap otherwise, added."""
    first = g.conv_to(x, g.pick(WIDTHS))
    channels = x.channels + first.channels
    left = g.pick(range(1, channels))
    one, other = g.conv_to(x, left), g.conv_to(first, channels - left)
    sums = [g.b.add("Concat", a.name, b.name, axis=1) for a, b in ((x, first), (one, other))]
    if channels <= MOST_CHANNELS:
        g.emit(g.b.add("Add", *sums), channels, x.sizes)


@step(1)
def concat_beside(g: Grower, x: Live) -> None:
    """One below the other."""
    if x.sizes[0] <= 4:
        y = g.b.add("Concat", x.name, _partner(g, x).name, axis=2)
        g.emit(y, x.channels, (2 * x.sizes[0], *x.sizes[1:]))


@step(2)
def u_net(g: Grower, x: Live) -> None:
    """Down, up and side by side with what was before."""
    if any(size % 2 or size > 8 for size in x.sizes):
        return
    inner, twos = g.pick((2, 3, 4)), [2] * x.rank
    y = g.b.add("MaxPool", x.name, kernel_shape=twos, strides=twos)
    half = tuple(size // 2 for size in x.sizes)
    y = g.b.relu(g.conv_to(Live(y, x.channels, half), inner, 3).name)
    if g.pick((True, False)):
        kernel = g.b.weight(g.b.rng.standard_normal((inner, inner, *twos)) * 0.4, 1)
        y = g.b.add("ConvTranspose", y, kernel, strides=twos)
    else:
        roi = g.b.store(np.zeros(0, np.float32)) if g.b.opset < 13 else ""
        scales = g.b.raw(np.float32([1, 1, *twos]))
        y = g.b.add("Resize", y, roi, scales, mode="nearest")
    y = g.b.add("Concat", *g.pick(((x.name, y), (y, x.name))), axis=1)
    g.emit(y, x.channels + inner, x.sizes)


# --- operators that see all channels at once


@step(2)
def mixer(g: Grower, x: Live) -> None:
    """What no or nearly no rule can let channels through."""
    g.pick(MIXERS)(g, x)


def _softmax(g: Grower, x: Live) -> None:
    g.same(x, g.b.add("Softmax", x.name, axis=1))


def _response(g: Grower, x: Live) -> None:
    if x.rank == 2:
        g.same(x, g.b.add("LRN", x.name, size=3))


def _spatial_gate(g: Grower, x: Live) -> None:
    """A map from the mean and the maximum over channels gates them all."""
    maps = [g.axes(op, x.name, [1], keepdims=1) for op in ("ReduceMean", "ReduceMax")]
    y = g.conv_to(Live(g.b.add("Concat", *maps, axis=1), 2, x.sizes), 1, 3)
    g.same(x, g.b.add("Mul", x.name, g.b.add("Sigmoid", y.name)))


def _layer_norm(g: Grower, x: Live) -> None:
    if g.b.opset < 17:
        return
    y = g.b.add("Transpose", x.name, perm=[0, *range(2, x.rank + 2), 1])
    vectors = g.b.uniform(x.channels), g.b.normal(x.channels)
    y = g.b.add("LayerNormalization", y, *vectors, axis=-1, epsilon=0.1)
    g.same(x, g.b.add("Transpose", y, perm=[0, x.rank + 1, *range(1, x.rank + 1)]))


def _group_norm(g: Grower, x: Live) -> None:
    if x.channels % 2 == 0 and x.pixels > 1:
        y = g.b.add("Reshape", x.name, g.b.store([0, 2, -1]))
        y = g.b.add("InstanceNormalization", y, g.b.uniform(2), g.b.normal(2), epsilon=0.1)
        g.same(x, g.reshape(y, x.channels, *x.sizes))


def _attention(g: Grower, x: Live) -> None:
    """Every pixel looks at every other."""
    inner = 4
    rows = [g.conv_to(x, width).name for width in (inner, inner, x.channels)]
    shapes = [(inner, x.pixels), (inner, x.pixels), (x.channels, x.pixels)]
    query, key, value = (g.reshape(y, *s) for y, s in zip(rows, shapes, strict=True))
    scores = g.b.add("MatMul", g.b.add("Transpose", query, perm=[0, 2, 1]), key)
    y = g.b.add("MatMul", value, g.b.add("Softmax", scores, axis=2))
    g.same(x, g.b.add("Add", x.name, g.reshape(y, x.channels, *x.sizes)))


def _captured(g: Grower, x: Live) -> None:
    """Both bodies of an If read the tensor."""
    large = g.b.add("ReduceMax", x.name, keepdims=0)
    large = g.b.add("Greater", large, g.b.store(np.float32(0.0)))
    number, bodies = len(g.b.nodes), {}
    for branch, op in (("then_branch", "Neg"), ("else_branch", "Abs")):
        end = helper.make_tensor_value_info(f"end{number}{op}", g.b.elem_type, None)
        body = helper.make_node(op, [x.name], [end.name], name=f"inside{number}{op}")
        bodies[branch] = helper.make_graph([body], branch, [], [end])
    g.same(x, g.b.add("If", large, **bodies))


def _dynamic(g: Grower, x: Live) -> None:
    """A convolution whose kernel is computed from the data."""
    if x.rank != 2 or x.channels > 8:
        return
    y = g.conv_to(g.as_vector(x), x.channels)
    kernel = g.axes("ReduceMean", y.name, [0], keepdims=1)
    kernel = g.b.add("Reshape", g.b.add("Sigmoid", kernel), g.b.store([x.channels, 1, 1, 1]))
    g.same(x, g.b.add("Conv", x.name, kernel, group=x.channels))


MIXERS: tuple[Callable[[Grower, Live], None], ...] = (
    *(_softmax, _response, _spatial_gate, _layer_norm, _group_norm, _attention),
    *(_captured, _dynamic),
)


@step(1)
def feature_map(g: Grower, x: Live) -> None:
    """A second output: a map, or scores."""
    if len(g.outputs) < 2:
        last = g.conv_to(x, 2) if g.chance(4) else g.conv_to(g.as_vector(x), 2)
        g.outputs.append(last.name)


# --- the end


def _end_pool(g: Grower, x: Live) -> str:
    return g.b.gemm(g.as_vector(x).name, (x.channels, 3))


def _end_flat(g: Grower, x: Live) -> str:
    width = x.channels * x.pixels
    y = g.b.add("Flatten", x.name) if g.pick((True, False)) else g.reshape(x.name, width)
    return g.b.gemm(y, (width, 3), transposed=g.pick((True, False)))


def _end_matmul(g: Grower, x: Live) -> str:
    y = g.b.add("MatMul", g.as_vector(x).name, g.b.normal(x.channels, 3, scale=x.channels**-0.5))
    return g.b.add("Softmax", y, axis=1) if g.pick((True, False)) else y


def _end_map(g: Grower, x: Live) -> str:
    return g.conv_to(x, 2).name


def _end_recurrent(g: Grower, x: Live) -> str:
    """A GRU or an LSTM over the pixels."""
    if not g.single or not x.rank:
        return _end_pool(g, x)
    y = x.name if x.rank == 1 else g.reshape(x.name, x.channels, x.pixels)
    y = g.b.add("Transpose", y, perm=[2, 0, 1])
    op, gates = g.pick((("GRU", 3), ("LSTM", 4)))
    directions = g.pick((1, 2))
    shapes = [(gates * 3, x.channels), (gates * 3, 3), (2 * gates * 3,)]
    inputs = [g.b.normal(directions, *shape, scale=0.3) for shape in shapes]
    fields = {"direction": "bidirectional"} if directions == 2 else {}
    every = g.b.add(op, y, *inputs[: g.pick((2, 3))], outputs=2, hidden_size=3, **fields)
    if g.pick((True, False)):  # the last state of each direction
        last = g.b.add("Transpose", f"{every}_1", perm=[1, 0, 2])
    else:  # the mean over time
        last = g.axes("ReduceMean", every, [0], keepdims=0)
        last = g.b.add("Transpose", last, perm=[1, 0, 2])
    return g.b.gemm(g.b.add("Flatten", last), (3 * directions, 3))


ENDS: tuple[Callable[[Grower, Live], str], ...] = (
    *[_end_pool, _end_flat, _end_matmul] * 4,
    *(_end_map, _end_recurrent, _end_recurrent),
)


# --- whole nets, and what must hold for them ----------------------------------------------


def seeded(seed: int, least: int = 20, most: int = 55) -> Model:
    """The random net of this number."""
    rng = np.random.default_rng(seed)
    grower = Grower(lambda options: options[int(rng.integers(len(options)))])
    return truly_recorded(grower.grow(int(rng.integers(least, most + 1))))


def truly_recorded(model: Model) -> Model:
    """The net, without recorded shapes where onnx's inference has made wrong ones."""
    try:
        wrong = not records_hold(model, samples(model, 2))
    except Exception:  # it does not run at all; those of ONNX Runtime have no common base
        return model
    if wrong:
        del model.graph.value_info[:]
    return model


def records_hold(model: Model, feeds: dict[str, Array]) -> bool:
    """Whether recorded shapes are those of a run, as far as they are numbers."""
    recorded = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info}
    arrays = run(model, feeds, list(recorded), optimised=False)
    return all(
        len(dims) == array.ndim
        and all(dim.dim_value in (0, size) for dim, size in zip(dims, array.shape, strict=True))
        for dims, array in zip(recorded.values(), arrays, strict=True)
    )


def runs(model: Model) -> bool:
    """Whether ONNX Runtime computes the same with its optimisations and without, all finite."""
    feeds = samples(model, 2)
    try:
        onnx.checker.check_model(model, full_check=True)
        plain, optimised = (run(model, feeds, optimised=level) for level in (False, True))
        require_close(optimised, plain, tolerances(model)[1])
    except Exception:  # those of onnx and of ONNX Runtime have no common base
        return False
    sizes = [float(np.abs(array).max(initial=0)) for array in plain]
    return bool(np.isfinite(sizes).all() and max(sizes) <= LARGEST)


def check(
    model: Model, seed: int, absent: Absent, choices: int = 1, wishes: Wishes | None = None
) -> Bench:
    """Masked ≡ removed on this model, with optimisations and without; its bench.

    Without wishes, every second pair of seeds has means over the channels that are left.
    """
    data, wishes = samples(model, 4, seed), wishes or Wishes(approximate=seed % 4 > 1)
    bench = open_bench(model, data, wishes=wishes, absent=absent, provider="cpu")
    masked = masked_model(bench.graph, bench.groups, bench.shifts)
    feeds = samples(model, 2, seed + 1)
    ones = {mask_name(g.name): np.ones(g.players, np.float32) for g in bench.groups}
    expected = run(model, feeds, optimised=False)
    require_close(run(masked, {**feeds, **ones}, optimised=False), expected, tolerances(model)[0])
    for number in range(choices):
        plan = make_plan(bench, choice(bench.groups, seed + number))
        pruned = remove(bench.model.proto, bench.model.sha256, plan)
        onnx.checker.check_model(pruned, full_check=True)
        masks = {mask_name(part.group.name): part.kept.astype(np.float32) for part in plan.groups}
        expected = run(masked, {**feeds, **masks}, optimised=False)
        for optimised, tolerance in enumerate(tolerances(model)):
            found = run(pruned, feeds, optimised=bool(optimised))
            require_close(found, expected, tolerance)
        verify(bench.graph, bench.model, pruned, plan, bench.calibration)
    return bench


def tolerances(model: Model) -> tuple[float, float]:
    """How far results may be apart without ONNX Runtime's optimisations, and with them.

    With them it multiplies by dequantised matrices in 8 bits, where a rounding that tips over is
    seen at the outputs, and by single precision where it fuses factors of doubles.
    """
    kind = model.graph.input[0].type.tensor_type.elem_type
    least = TOLERANCE[np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name]
    found = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" in found:
        return 5e-2, 5e-2
    return least, max(least, 1e-6, 2e-2 * ("DequantizeLinear" in found))


def require_close(found: Sequence[Array], expected: Sequence[Array], tolerance: float) -> None:
    """Equal shapes, and values equal within rounding at each tensor's own scale."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape, f"shape {one.shape} instead of {other.shape}"
        assert one.dtype == other.dtype, f"dtype {one.dtype} instead of {other.dtype}"
        scale = max(float(np.abs(other).max(initial=0)), 1e-3)
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)
        assert apart / scale <= tolerance, f"differs by {apart / scale:.1e}"


def convolutions(bench: Bench) -> Iterator[tuple[onnx.NodeProto, bool]]:
    """All nodes that convolve, and whether some channel of theirs can leave."""
    owned = {cut.tensor for group in bench.groups for cut in group.shapes if (cut.owner >= 0).any()}
    for node in bench.model.proto.graph.node:
        if "Conv" in node.op_type:
            yield node, node.output[0] in owned


def reasons(bench: Bench, node: onnx.NodeProto) -> list[tuple[str, str]]:
    """Operators that hold a node's channels, with what they say."""
    return [(s.op_type, s.reason) for s in bench.coupling.skipped if node.name in s.members]
