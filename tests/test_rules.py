"""Every rule: what an operator makes of fewer channels is its full output without them.

For each operator a small net is cut at random, run in ONNX Runtime without optimisations,
and every tensor that became narrower is compared with the original's, compressed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_shapprune.passes.rules
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.passes.rules import NUMBER_RULES, PRODUCERS, RULES
from onnx_shapprune.types import ChannelGroup, GroupPlan, Plan, Skipped
from zoo import Array, Builder, Model, run, samples

CHANNELS, SIZE = 6, 4
NEWEST = 22

Step = Callable[[Builder, str], str]
"""Puts the operator behind a tensor [2, CHANNELS, SIZE, SIZE]; its output."""


@dataclass(frozen=True)
class Case:
    """One operator in one form; ``width`` is that of the Gemm behind it, 0: a Conv follows.

    ``channels`` is what the operator gives to the Conv.
    """

    step: Step
    width: int = 0
    opset: int = NEWEST
    channels: int = CHANNELS
    checked: bool = True


CASES: dict[str, Case] = {}


def case(
    name: str, width: int = 0, opset: int = NEWEST, channels: int = CHANNELS
) -> Callable[[Step], Step]:
    """Register a case; its name starts with the operator's."""

    def register(step: Step) -> Step:
        CASES[name] = Case(step, width, opset, channels)
        return step

    return register


def operator(name: str) -> str:
    """The operator that a case is about."""
    return name.split(maxsplit=1)[0]


# --- pointwise -------------------------------------------------------------------------

DOMAINS = {  # what stands in front, so that all values are finite
    "Log": "Sigmoid",
    "Sqrt": "Sigmoid",
    "Acos": "Sigmoid",
    "Asin": "Sigmoid",
    "Atanh": "Tanh",
    "Acosh": "Exp",
    "Reciprocal": "Exp",
}
BOOLEAN = {"IsInf", "IsNaN", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
LOGICAL = {"And", "Or", "Xor"}
UNARY = [
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf"),
    *("IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
    *("ThresholdedRelu", "com.microsoft.Gelu", "com.microsoft.QuickGelu"),
]
BINARY = [
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "PRelu"),
    *("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
]


def as_float(b: Builder, op: str, y: str) -> str:
    """A result that is a truth value as a number."""
    return b.add("Cast", y, to=TensorProto.FLOAT) if op in BOOLEAN | LOGICAL else y


def truth(b: Builder, y: str) -> str:
    """A tensor, or a stored constant, as truth values."""
    stored = next((tensor for tensor in b.stored if tensor.name == y), None)
    if stored is None:
        return b.add("Greater", y, b.store(np.float32(0.5)))
    return b.store(onnx.numpy_helper.to_array(stored) > 1)


def add(b: Builder, op: str, *inputs: str, **settings: object) -> str:
    """A node of an operator that may be named with its domain."""
    domain, _, name = op.rpartition(".")
    return b.add(name, *inputs, domain=domain, **settings)


def unary_step(op: str) -> Step:
    """The operator behind whatever makes its domain."""

    def step(b: Builder, x: str) -> str:
        return as_float(b, op, add(b, op, b.add(DOMAINS.get(op, "Identity"), x)))

    return step


def binary_step(op: str, second: Step, *, swapped: bool = False) -> Step:
    """The operator on a tensor and a second one, made from it or stored."""

    def step(b: Builder, x: str) -> str:
        one, other = b.add("Exp", x), second(b, x)
        if op in LOGICAL:
            one = b.add("Greater", one, b.store(np.float32(0.9)))
            other = truth(b, other)
        settings = {"fmod": 1} if op == "Mod" else {}
        pair = (other, one) if swapped else (one, other)
        return as_float(b, op, b.add(op, *pair, **settings))

    return step


for _op in UNARY:
    CASES[_op] = Case(unary_step(_op))
CASES["Swish"] = Case(unary_step("Swish"), opset=24)
for _op in BINARY:
    CASES[f"{_op} with a constant per channel"] = Case(
        binary_step(_op, lambda b, x: b.uniform(CHANNELS, 1, 1))
    )
    CASES[f"{_op} with a number"] = Case(binary_step(_op, lambda b, x: b.uniform(1)))
    CASES[f"{_op} with a branch"] = Case(binary_step(_op, lambda b, x: b.add("Sigmoid", x)))
for _op in ("Sub", "Div", "Pow", "Less"):
    CASES[f"{_op} from a constant per channel"] = Case(
        binary_step(_op, lambda b, x: b.uniform(1, CHANNELS, 1, 1), swapped=True)
    )


@case("Add with a constant that is computed")
def _(b: Builder, x: str) -> str:
    return b.add("Add", x, b.add("Abs", b.normal(CHANNELS, 1, 1)))


@case("Add with a full constant")
def _(b: Builder, x: str) -> str:
    return b.add("Add", x, b.normal(2, CHANNELS, SIZE, SIZE))


@case("Add with a constant of one row")
def _(b: Builder, x: str) -> str:
    return b.add("Add", x, b.normal(SIZE))


@case("Add with a constant of higher rank", opset=17)
def _(b: Builder, x: str) -> str:
    return b.add("Squeeze", b.add("Add", x, b.normal(1, 1, CHANNELS, 1, 1)), b.store([0]))


@case("Mul with a pooled branch")
def _(b: Builder, x: str) -> str:
    return b.add("Mul", b.add("GlobalAveragePool", x), x)


@case("Add with a branch of lower rank", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    one = b.add("ReduceMean", x, b.store([2, 3]), keepdims=0)
    other = b.add("ReduceMax", x, b.store([0, 2, 3]), keepdims=0)
    return b.add("Add", one, other)


@case("Sum of three")
def _(b: Builder, x: str) -> str:
    return b.add("Sum", x, b.normal(CHANNELS, 1, 1), b.add("Tanh", x))


@case("Where on a branch")
def _(b: Builder, x: str) -> str:
    positive = b.add("Greater", x, b.store(np.float32(0)))
    return b.add("Where", positive, x, b.normal(CHANNELS, 1, 1))


@case("Where on a constant")
def _(b: Builder, x: str) -> str:
    chosen = b.store(np.arange(CHANNELS).reshape(-1, 1, 1) % 2 == 0)
    return b.add("Where", chosen, x, b.add("Neg", x))


@case("Not")
def _(b: Builder, x: str) -> str:
    y = b.add("Not", b.add("Greater", x, b.store(np.float32(0))))
    return b.add("Cast", y, to=TensorProto.FLOAT)


@case("BitwiseNot")
def _(b: Builder, x: str) -> str:
    y = b.add("BitwiseNot", b.add("Cast", x, to=TensorProto.INT32))
    return b.add("Cast", y, to=TensorProto.FLOAT)


@case("Cast")
def _(b: Builder, x: str) -> str:
    return b.add("Cast", b.add("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)


@case("CastLike", opset=19)
def _(b: Builder, x: str) -> str:
    """From one operand of a sum to the type of the other, as one exporter writes numbers."""
    half = b.add("CastLike", b.store(np.int64(2)), x)
    return b.add("Mul", b.add("CastLike", b.add("Cast", x, to=TensorProto.DOUBLE), half), half)


@case("Clip")
def _(b: Builder, x: str) -> str:
    return b.add("Clip", x, b.store(np.float32(-0.5)), b.store(np.float32(0.5)))


@case("Dropout")
def _(b: Builder, x: str) -> str:
    y = b.add("Dropout", x, outputs=2)
    mask = b.add("Cast", b.nodes[-1].output[1], to=TensorProto.FLOAT)
    return b.add("Mul", y, mask)


# --- normalisation and kernels ---------------------------------------------------------


@case("BatchNormalization")
def _(b: Builder, x: str) -> str:
    return b.norm(x, CHANNELS)


@case("InstanceNormalization")
def _(b: Builder, x: str) -> str:
    return b.add("InstanceNormalization", x, b.uniform(CHANNELS), b.normal(CHANNELS))


@case("Conv depthwise")
def _(b: Builder, x: str) -> str:
    return b.depthwise(x, CHANNELS)


@case("Conv depthwise with multiplier")
def _(b: Builder, x: str) -> str:
    y = b.depthwise(x, CHANNELS, 2)
    return b.conv(y, (2 * CHANNELS, CHANNELS))


@case("Conv grouped")
def _(b: Builder, x: str) -> str:
    return b.conv(x, (CHANNELS, CHANNELS), groups=3)


@case("Conv")
def _(b: Builder, x: str) -> str:
    return b.conv(x, (CHANNELS, CHANNELS), strides=[2, 2], dilations=[2, 2], pads=[2] * 4)


@case("Conv over an axis of other channels")
def _(b: Builder, x: str) -> str:
    other = b.conv(b.input(2, 3, SIZE, SIZE, name="z"), (3, SIZE))
    return b.add("Add", x, b.conv(b.add("Transpose", other, perm=[0, 2, 3, 1]), (SIZE, CHANNELS)))


@case("ConvTranspose")
def _(b: Builder, x: str) -> str:
    kernel, bias = b.normal(CHANNELS, CHANNELS, 2, 2), b.normal(CHANNELS)
    return b.add("ConvTranspose", x, kernel, bias, strides=[2, 2])


@case("MatMul over the width")
def _(b: Builder, x: str) -> str:
    return b.add("MatMul", x, b.normal(SIZE, 5))


@case("MatMul over the channels")
def _(b: Builder, x: str) -> str:
    y = b.add("MatMul", b.add("Transpose", x, perm=[0, 2, 3, 1]), b.normal(CHANNELS, CHANNELS))
    return b.add("Transpose", y, perm=[0, 3, 1, 2])


@case("Gemm transA", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Transpose", b.add("Flatten", b.add("GlobalMaxPool", x)), perm=[1, 0])
    return b.add("Gemm", rows, b.normal(CHANNELS, 5), b.normal(1, 5), transA=1)


@case("Gemm without bias", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.add("Gemm", rows, b.normal(5, CHANNELS), transB=1, alpha=0.5)


@case("Gemm with a bias per row", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.add("Gemm", rows, b.normal(CHANNELS, 5), b.normal(2, 1), beta=2.0)


@case("Gemm with a bias per element", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.add("Gemm", rows, b.normal(CHANNELS, 5), b.normal(2, 5))


@case("Gemm with one number as bias", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.add("Gemm", rows, b.normal(CHANNELS, 5), b.store(np.float32(0.5)))


# --- pools, reductions, borders, sizes -------------------------------------------------

for _op in ("MaxPool", "AveragePool", "LpPool"):
    CASES[_op] = Case(lambda b, x, op=_op: b.add(op, x, kernel_shape=[2, 2], strides=[2, 2]))
for _op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    CASES[_op] = Case(lambda b, x, op=_op: b.add(op, x), opset=17)

REDUCTIONS = [
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
]
for _op in REDUCTIONS:
    CASES[_op] = Case(lambda b, x, op=_op: b.add(op, b.add("Exp", x), b.store([3])))
    CASES[f"{_op} dropping axes"] = Case(
        lambda b, x, op=_op: b.add(op, b.add("Exp", x), b.store([-1, 2]), keepdims=0), CHANNELS
    )


@case("ReduceMean with axes as attribute", opset=13)
def _(b: Builder, x: str) -> str:
    return b.add("ReduceMean", x, axes=[2, 3])


@case("ReduceMean over nothing")
def _(b: Builder, x: str) -> str:
    return b.add("ReduceMean", x, noop_with_empty_axes=1)


@case("ReduceMax before the channels", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", x, perm=[2, 3, 0, 1])
    return b.add("ReduceMax", y, b.store([0, 1]), keepdims=0)


@case("Pad")
def _(b: Builder, x: str) -> str:
    return b.add("Pad", x, b.store([0, 0, 1, 0, 0, 0, 2, -1]), mode="constant")


@case("Pad with pads as attribute", opset=9)
def _(b: Builder, x: str) -> str:
    return b.add("Pad", x, pads=[0, 0, 1, 0, 0, 0, 2, 1], mode="reflect")


@case("Pad with computed constant pads")
def _(b: Builder, x: str) -> str:
    pads = b.add("Concat", b.store([0, 0, 1, 1]), b.store([0, 0, 1, 1]), axis=0)
    return b.add("Pad", x, pads)


@case("Resize by scales")
def _(b: Builder, x: str) -> str:
    return b.add("Resize", x, "", b.store(np.float32([1, 1, 2, 1.5])), mode="linear")


@case("Resize to sizes")
def _(b: Builder, x: str) -> str:
    return b.add("Resize", x, "", "", b.store([2, CHANNELS, 7, 5]), mode="nearest")


@case("Resize of opset 10", opset=10)
def _(b: Builder, x: str) -> str:
    return b.add("Resize", x, b.store(np.float32([1, 1, 2, 2])))


@case("Upsample", opset=9)
def _(b: Builder, x: str) -> str:
    return b.add("Upsample", x, b.store(np.float32([1, 1, 2, 2])))


@case("Upsample with scales as attribute", opset=8)
def _(b: Builder, x: str) -> str:
    return b.add("Upsample", x, scales=[1.0, 1.0, 2.0, 2.0])


# --- layout ----------------------------------------------------------------------------


@case("Transpose")
def _(b: Builder, x: str) -> str:
    y = b.add("Relu", b.add("Transpose", x, perm=[2, 0, 3, 1]))
    return b.add("Transpose", y, perm=[1, 3, 2, 0])


@case("Transpose without perm", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("ReduceMean", b.add("Transpose", x), b.store([0, 1]), keepdims=0)
    return b.add("Transpose", y)


@case("Squeeze", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    return b.add("Squeeze", b.add("GlobalMaxPool", x), b.store([-1, 2]))


@case("Squeeze with axes as attribute", width=CHANNELS, opset=9)
def _(b: Builder, x: str) -> str:
    return b.add("Squeeze", b.add("GlobalMaxPool", x), axes=[2, 3])


@case("Squeeze before the channels", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", b.add("GlobalMaxPool", x), perm=[2, 3, 0, 1])
    return b.add("Squeeze", y, b.store([0, 1]))


@case("Unsqueeze")
def _(b: Builder, x: str) -> str:
    y = b.add("Unsqueeze", x, b.store([0, -1]))
    return b.add("Squeeze", b.add("Relu", y), b.store([0, 5]))


@case("Concat along the channels", width=0)
def _(b: Builder, x: str) -> str:
    y = b.add("Concat", b.normal(2, 3, SIZE, SIZE), x, b.add("Tanh", x), axis=-3)
    return b.conv(y, (2 * CHANNELS + 3, CHANNELS))


@case("Concat beside the channels")
def _(b: Builder, x: str) -> str:
    return b.add("Concat", x, b.add("Tanh", x), axis=2)


@case("Expand")
def _(b: Builder, x: str) -> str:
    return b.add("Expand", b.add("GlobalMaxPool", x), b.store([1, CHANNELS, SIZE, 1]))


@case("Expand to a shape of lower rank")
def _(b: Builder, x: str) -> str:
    return b.add("Expand", b.add("GlobalMaxPool", x), b.store([1, SIZE, SIZE]))


@case("Expand to a shape of higher rank")
def _(b: Builder, x: str) -> str:
    y = b.add("Expand", x, b.store([3, 1, CHANNELS, 1, 1]))
    return b.add("ReduceMax", y, b.store([0]), keepdims=0)


@case("Expand to the shape of another")
def _(b: Builder, x: str) -> str:
    return b.add("Expand", b.add("GlobalMaxPool", x), b.add("Shape", x))


@case("Flatten", width=CHANNELS * SIZE * SIZE)
def _(b: Builder, x: str) -> str:
    return b.add("Flatten", x)


@case("Flatten with the channels last", width=CHANNELS * SIZE * SIZE)
def _(b: Builder, x: str) -> str:
    return b.add("Flatten", b.add("Transpose", x, perm=[0, 2, 3, 1]), axis=1)


@case("Flatten of everything", width=2 * CHANNELS * SIZE * SIZE)
def _(b: Builder, x: str) -> str:
    return b.add("Flatten", x, axis=0)


@case("Flatten counted from the end", width=CHANNELS * SIZE * SIZE)
def _(b: Builder, x: str) -> str:
    return b.add("Flatten", x, axis=-3)


RESHAPES = {
    "to zero and rest": ([0, -1], CHANNELS * SIZE**2),
    "to rest and width": ([-1, CHANNELS * SIZE**2], CHANNELS * SIZE**2),
    "to numbers": ([2, CHANNELS * SIZE**2], CHANNELS * SIZE**2),
    "to one row": ([1, -1], 2 * CHANNELS * SIZE**2),
    "that splits the picture": ([0, 0, 2, -1], 0),
    "that splits the picture by numbers": ([2, CHANNELS, 2, 8], 0),
    "that leaves the channels open": ([2, -1, 2, 8], 0),
}
for _name, (_shape, _width) in RESHAPES.items():
    CASES[f"Reshape {_name}"] = Case(
        lambda b, x, shape=_shape: b.add("Reshape", x, b.store(shape)), _width
    )


@case("Reshape with ones around the channels")
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", x, b.store([2, 1, CHANNELS, 1, -1]))
    return b.add("Reshape", b.add("Relu", y), b.store([2, CHANNELS, 1, SIZE * SIZE]))


@case("Reshape of rows with the channels last", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", x, perm=[0, 2, 3, 1])
    return b.add("Reshape", y, b.store([-1, CHANNELS]))


# --- shape arithmetic ------------------------------------------------------------------


@case("Shape of everything")
def _(b: Builder, x: str) -> str:
    return b.add("Reshape", b.add("Relu", x), b.add("Shape", b.add("Tanh", x)))


@case("Shape from start to end")
def _(b: Builder, x: str) -> str:
    front = b.add("Shape", x, start=0, end=-2)
    return b.add("Reshape", x, b.add("Concat", front, b.store([2, 8]), axis=0))


@case("Gather of a width")
def _(b: Builder, x: str) -> str:
    width = b.add("Gather", b.add("Shape", x), b.store([-3]), axis=0)
    return b.add("Reshape", x, b.add("Concat", b.store([2]), width, b.store([2, 8]), axis=0))


@case("Gather of one number, Unsqueeze")
def _(b: Builder, x: str) -> str:
    width = b.add("Gather", b.add("Shape", x), b.store(np.int64(1)), axis=0)
    width = b.add("Unsqueeze", width, b.store([0]))
    return b.add("Reshape", x, b.add("Concat", b.store([2]), width, b.store([2, 8]), axis=0))


@case("Slice of sizes")
def _(b: Builder, x: str) -> str:
    front = b.add("Slice", b.add("Shape", x), b.store([0]), b.store([2]), b.store([0]))
    sizes = b.add("Concat", front, b.store([7, 5]), axis=0)
    return b.add("Resize", x, "", "", sizes, mode="nearest")


@case("Slice of sizes backwards")
def _(b: Builder, x: str) -> str:
    back = b.add("Transpose", x, perm=[3, 2, 1, 0])
    bounds = [b.store([-1]), b.store([-(2**31)]), b.store([0]), b.store([-1])]
    sizes = b.add("Slice", b.add("Shape", back), *bounds)
    return b.add("Reshape", x, sizes)


@case("Concat of sizes")
def _(b: Builder, x: str) -> str:
    sizes = b.add("Shape", x)
    one, two = (b.add("Gather", sizes, b.store([k]), axis=0) for k in (0, 1))
    return b.add("Reshape", x, b.add("Concat", one, two, b.store([4, 4]), axis=0))


@case("Concat of a batch and a stored width")
def _(b: Builder, x: str) -> str:
    batch = b.add("Gather", b.add("Shape", x), b.store([0]), axis=0)
    sizes = b.add("Concat", batch, b.store([CHANNELS, 2, 8]), axis=0)
    return b.add("Reshape", x, sizes)


@case("Cast and Identity of sizes")
def _(b: Builder, x: str) -> str:
    sizes = b.add("Cast", b.add("Shape", x), to=TensorProto.INT32)
    return b.add("Reshape", x, b.add("Identity", b.add("Cast", sizes, to=TensorProto.INT64)))


@case("Squeeze and Unsqueeze of sizes")
def _(b: Builder, x: str) -> str:
    width = b.add("Squeeze", b.add("Gather", b.add("Shape", x), b.store([1]), axis=0))
    width = b.add("Unsqueeze", width, b.store([0]))
    return b.add("Reshape", x, b.add("Concat", b.store([2]), width, b.store([2, 8]), axis=0))


@case("Add, Sub, Mul, Div and Floor of sizes")
def _(b: Builder, x: str) -> str:
    """A width by a detour, as exporters compute the size of a part."""
    width = b.add("Gather", b.add("Shape", x), b.store(np.int64(1)), axis=0)
    odd = b.add("Add", b.add("Mul", width, b.store(np.int64(2))), b.store(np.int64(1)))
    half = b.add("Div", b.add("Sub", odd, b.store(np.int64(0))), b.store(np.int64(2)))
    half = b.add("Cast", b.add("Floor", b.add("Cast", half, to=1)), to=TensorProto.INT64)
    width = b.add("Unsqueeze", half, b.store([0]))
    return b.add("Reshape", x, b.add("Concat", b.store([2]), width, b.store([2, 8]), axis=0))


@case("Min, Max, Neg, Ceil, Sqrt of sizes")
def _(b: Builder, x: str) -> str:
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    square = b.add("Cast", b.add("Mul", width, width), to=TensorProto.FLOAT)
    root = b.add("Cast", b.add("Ceil", b.add("Sqrt", square)), to=TensorProto.INT64)
    width = b.add("Min", b.add("Max", root, b.store([1])), b.store([99]))
    width = b.add("Neg", b.add("Neg", width))
    return b.add("Reshape", x, b.add("Concat", b.store([2]), width, b.store([2, 8]), axis=0))


@case("Expand to sizes by ConstantOfShape, Equal and Where")
def _(b: Builder, x: str) -> str:
    """The detour that an exporter takes to expand to the shape of another tensor."""
    sizes = b.add("Concat", b.store([-1, -1]), b.store([4, 4]), axis=0)
    ones = b.add("ConstantOfShape", b.store([4]), value=numpy_helper.from_array(np.int64([1])))
    kept = b.add("Equal", sizes, b.add("Mul", ones, b.store([-1])))
    row = b.add("ReduceMean", x, b.store([2]), keepdims=1)
    return b.add("Expand", row, b.add("Where", kept, ones, sizes))


@case("Reshape by a product of sizes", width=CHANNELS * SIZE * SIZE)
def _(b: Builder, x: str) -> str:
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    rows = b.add("Concat", b.store([2]), b.add("Mul", width, b.store([SIZE * SIZE])), axis=0)
    return b.add("Reshape", x, rows)


@case("Reshape of what has no channels to their shape")
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", b.normal(2, CHANNELS * SIZE**2), b.add("Shape", x))
    return b.add("Mul", x, b.add("ReduceMean", y, keepdims=0))


@case("Div by a number of channels", channels=1)
def _(b: Builder, x: str) -> str:
    """A mean over channels, written as a sum: it keeps their number."""
    width = b.add("Cast", b.add("Gather", b.add("Shape", x), b.store([1]), axis=0), to=1)
    return b.add("Div", b.add("ReduceSum", x, b.store([1])), width)


@case("Mul by a number of channels")
def _(b: Builder, x: str) -> str:
    """The number stays what it was: masked channels still count."""
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    return b.add("Div", x, b.add("Sqrt", b.add("Cast", width, to=TensorProto.FLOAT)))


# --- parts of the channels ----------------------------------------------------------------


def rejoined(b: Builder, parts: list[str], turn: int = 1) -> str:
    """The parts with different functions on them, in another order."""
    made = [b.add(op, y) for op, y in zip(("Relu", "Tanh", "Sigmoid"), parts, strict=False)]
    return b.add("Concat", *made[turn:], *made[:turn], axis=1)


@case("Split by stored sizes")
def _(b: Builder, x: str) -> str:
    b.add("Split", x, b.store([1, 2, 3]), outputs=3, axis=1)
    return rejoined(b, list(b.nodes[-1].output))


@case("Split by an attribute", opset=11)
def _(b: Builder, x: str) -> str:
    b.add("Split", x, outputs=2, axis=1, split=[2, 4])
    return rejoined(b, list(b.nodes[-1].output))


@case("Split in equal parts", opset=17)
def _(b: Builder, x: str) -> str:
    b.add("Split", x, outputs=2, axis=-3)
    return rejoined(b, list(b.nodes[-1].output))


@case("Split by number")
def _(b: Builder, x: str) -> str:
    b.add("Split", x, outputs=3, axis=1, num_outputs=3)
    return rejoined(b, list(b.nodes[-1].output))


@case("Split of another axis")
def _(b: Builder, x: str) -> str:
    b.add("Split", x, b.store([1, 3]), outputs=2, axis=2)
    return b.add("Concat", *list(b.nodes[-1].output)[::-1], axis=2)


def sliced(b: Builder, x: str, start: int, end: int, axis: int = 1) -> str:
    return b.add("Slice", x, b.store([start]), b.store([end]), b.store([axis]))


@case("Slice from the front and to the end")
def _(b: Builder, x: str) -> str:
    return rejoined(b, [sliced(b, x, 0, 2), sliced(b, x, 2, 2**63 - 1)])


@case("Slice counted from the end")
def _(b: Builder, x: str) -> str:
    return rejoined(b, [sliced(b, x, -2, 6), sliced(b, x, -99, -2)])


@case("Slice in the middle", channels=3)
def _(b: Builder, x: str) -> str:
    return sliced(b, x, 1, 4, -3)


@case("Slice of all axes", channels=4)
def _(b: Builder, x: str) -> str:
    steps = b.store([1, 1, 1, 2])
    return b.add("Slice", x, b.store([0, 1, 0, 0]), b.store([2, 5, 4, 4]), "", steps)


@case("Slice by attributes", opset=9, channels=3)
def _(b: Builder, x: str) -> str:
    return b.add("Slice", x, starts=[1, 0], ends=[-2, 4], axes=[1, 2])


@case("Slice at half of the width")
def _(b: Builder, x: str) -> str:
    """Bounds computed from the width, as of a chunk."""
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    half = b.add("Div", b.add("Add", width, b.store([1])), b.store([2]))
    one = b.add("Slice", x, b.store([0]), half, b.store([1]))
    other = b.add("Slice", x, half, b.add("Mul", half, b.store([2])), b.store([1]))
    return rejoined(b, [one, other])


@case("Gather of channels")
def _(b: Builder, x: str) -> str:
    return b.add("Gather", x, b.store([3, 0, 5, 1, 4, 2]), axis=1)


@case("Gather of some channels twice", channels=4)
def _(b: Builder, x: str) -> str:
    return b.add("Gather", x, b.store([-1, 0, 2, 2]), axis=1)


@case("Gather of one channel")
def _(b: Builder, x: str) -> str:
    gate = b.add("Gather", x, b.store(np.int64(2)), axis=1)
    gate = b.add("Unsqueeze", gate, b.store([1]))
    return b.add("Mul", x, b.add("Sigmoid", b.add("Identity", gate)))


@case("Gather in front of the channels", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", x, perm=[0, 2, 3, 1])
    y = b.add("Gather", y, b.store(np.int64(1)), axis=1)
    return b.add("Reshape", y, b.store([-1, CHANNELS]))


# --- channels into blocks -----------------------------------------------------------------


@case("Reshape that shuffles")
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", x, b.store([0, 2, 3, 4, 4]))
    y = b.add("Transpose", y, perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", y, b.store([0, CHANNELS, 4, 4]))


@case("Reshape that shuffles by numbers of its own")
def _(b: Builder, x: str) -> str:
    sizes = b.add("Shape", x)
    batch, width = (b.add("Gather", sizes, b.store([k]), axis=0) for k in (0, 1))
    third = b.add("Div", width, b.store([3]))
    y = b.add("Concat", batch, b.store([3]), third, b.store([4, 4]), axis=0)
    y = b.add("Transpose", b.add("Reshape", x, y), perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", y, b.add("Concat", batch, width, b.store([4, 4]), axis=0))


@case("Reshape of a row back into a picture")
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", x, b.store([0, -1]))
    return b.add("Reshape", b.add("Relu", y), b.store([0, CHANNELS, 4, 4]))


@case("InstanceNormalization of groups")
def _(b: Builder, x: str) -> str:
    """A group norm as an exporter writes it: whole groups can leave."""
    y = b.add("Reshape", x, b.store([0, 3, -1]))
    y = b.add("InstanceNormalization", y, b.uniform(3), b.normal(3))
    return b.add("Reshape", y, b.store([0, CHANNELS, 4, 4]))


@case("GroupNormalization")
def _(b: Builder, x: str) -> str:
    return b.add("GroupNormalization", x, b.uniform(CHANNELS), b.normal(CHANNELS), num_groups=3)


CASES["GroupNormalization with a scale per group"] = Case(
    lambda b, x: b.add("GroupNormalization", x, b.uniform(3), b.normal(3), num_groups=3),
    opset=18,
    checked=False,  # this version is deprecated, but there are models with it
)


@case("DepthToSpace", channels=3)
def _(b: Builder, x: str) -> str:
    return b.add("DepthToSpace", b.conv(x, (CHANNELS, 12)), blocksize=2)


@case("DepthToSpace by columns and rows", channels=3)
def _(b: Builder, x: str) -> str:
    return b.add("DepthToSpace", b.conv(x, (CHANNELS, 12)), blocksize=2, mode="CRD")


@case("Reshape of depth to space", channels=3)
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", b.conv(x, (CHANNELS, 12)), b.store([2, 3, 2, 2, 4, 4]))
    y = b.add("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
    return b.add("Reshape", y, b.store([2, 3, 8, 8]))


@case("SpaceToDepth", channels=4 * CHANNELS)
def _(b: Builder, x: str) -> str:
    return b.add("SpaceToDepth", x, blocksize=2)


@case("Tile of the picture")
def _(b: Builder, x: str) -> str:
    return b.add("Tile", x, b.store([1, 1, 2, 1]))


@case("Tile of the channels", channels=2 * CHANNELS)
def _(b: Builder, x: str) -> str:
    return b.add("Tile", x, b.store([1, 2, 1, 1]))


@case("Pad of the channels", channels=CHANNELS + 3)
def _(b: Builder, x: str) -> str:
    return b.add("Pad", x, b.store([0, 1, 0, 0, 0, 2, 1, 0]))


@case("Resize of chosen axes")
def _(b: Builder, x: str) -> str:
    return b.add("Resize", x, "", "", b.store([8, 8]), axes=[2, 3], mode="nearest")


@case("Resize of the channels' own axis to their number")
def _(b: Builder, x: str) -> str:
    sizes = b.store([8, CHANNELS])
    return b.add("Resize", x, "", "", sizes, axes=[3, 1], mode="nearest")


@case("GridSample", opset=16)
def _(b: Builder, x: str) -> str:
    return b.add("GridSample", x, b.normal(2, 3, 3, 2))


@case("RoiAlign", opset=16)
def _(b: Builder, x: str) -> str:
    boxes = b.store(np.float32([[0, 0, 2, 2], [1, 1, 3, 3]]))
    return b.add("RoiAlign", x, boxes, b.store([0, 1]), output_height=3, output_width=3)


@case("MaxRoiPool", opset=16)
def _(b: Builder, x: str) -> str:
    boxes = b.store(np.float32([[0, 0, 0, 2, 2], [1, 1, 1, 3, 3]]))
    return b.add("MaxRoiPool", x, boxes, pooled_shape=[2, 2])


# --- along other axes ---------------------------------------------------------------------

for _op in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"):
    CASES[f"{_op} of rows"] = Case(lambda b, x, op=_op: b.add(op, x, axis=-1))
CASES["Softmax before opset 13"] = Case(lambda b, x: b.add("Softmax", x, axis=2), opset=11)
CASES["LayerNormalization of rows"] = Case(
    lambda b, x: b.add("LayerNormalization", x, b.uniform(SIZE), b.normal(SIZE))
)
CASES["MeanVarianceNormalization"] = Case(
    lambda b, x: b.add("MeanVarianceNormalization", x),
    checked=False,  # shape inference does not know it
)
CASES["CumSum"] = Case(lambda b, x: b.add("CumSum", x, b.store(np.int64(2))))
CASES["RMSNormalization"] = Case(
    lambda b, x: b.add("RMSNormalization", x, b.uniform(SIZE)), opset=23
)
for _op in ("ArgMax", "ArgMin"):
    CASES[_op] = Case(
        lambda b, x, op=_op: b.add("Cast", b.add(op, x, axis=2), to=TensorProto.FLOAT)
    )


@case("ArgMax in front of the channels", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", b.add("ReduceMax", x, b.store([3])), perm=[0, 2, 1, 3])
    y = b.add("ArgMax", y, axis=1, keepdims=0)
    return b.add("Squeeze", b.add("Cast", y, to=TensorProto.FLOAT), b.store([2]))


@case("TopK")
def _(b: Builder, x: str) -> str:
    b.add("TopK", x, b.store([2]), outputs=2, axis=3)
    values, places = list(b.nodes[-1].output)
    return b.add("Add", values, b.add("Cast", places, to=TensorProto.FLOAT))


# --- where channels end -------------------------------------------------------------------

for _op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
    CASES[f"{_op} over the channels"] = Case(
        lambda b, x, op=_op: b.add(op, x, b.store([1]), keepdims=1), channels=1
    )


@case("MatMul of two activations", channels=1)
def _(b: Builder, x: str) -> str:
    rows = b.add("Transpose", x, perm=[0, 2, 3, 1])
    gram = b.add("MatMul", rows, b.add("Transpose", b.add("Relu", x), perm=[0, 2, 1, 3]))
    return b.add("ReduceMean", gram, b.store([1]))


@case("MatMul beside the channels")
def _(b: Builder, x: str) -> str:
    return b.add("MatMul", x, b.add("Transpose", b.add("Tanh", x), perm=[0, 1, 3, 2]))


@case("MatMul with a matrix in front")
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", x, b.store([2, CHANNELS, 16]))
    y = b.add("MatMul", b.normal(CHANNELS, CHANNELS), y)
    return b.add("Reshape", y, b.store([2, CHANNELS, 4, 4]))


@case("MatMul with a matrix beside the channels")
def _(b: Builder, x: str) -> str:
    return b.add("MatMul", b.normal(5, SIZE), x)


@case("MatMul of rows with an activation", width=SIZE)
def _(b: Builder, x: str) -> str:
    y = b.add("MatMul", x, b.input(2, 1, SIZE, 1, name="z"))
    y = b.add("Reshape", y, b.store([2, CHANNELS, SIZE]))
    return b.add("ReduceSum", b.add("Relu", y), b.store([1]), keepdims=0)


for _op, _gates in (("GRU", 3), ("LSTM", 4), ("RNN", 1)):

    @case(_op, width=10)
    def _(b: Builder, x: str, op: str = _op, gates: int = _gates) -> str:
        y = b.add("Transpose", b.add("ReduceMax", x, b.store([3]), keepdims=0), perm=[2, 0, 1])
        kernels = b.normal(2, gates * 5, CHANNELS), b.normal(2, gates * 5, 5)
        bias = b.normal(2, gates * 10)
        y = b.add(op, y, *kernels, bias, hidden_size=5, direction="bidirectional")
        y = b.add("ReduceMean", y, b.store([0]), keepdims=0)
        return b.add("Reshape", b.add("Transpose", y, perm=[1, 0, 2]), b.store([2, 10]))


@case("ConvTranspose in groups", channels=4)
def _(b: Builder, x: str) -> str:
    return b.add("ConvTranspose", x, b.normal(CHANNELS, 2, 2, 2), b.normal(4), group=2)


@case("ConvTranspose depthwise", channels=2 * CHANNELS)
def _(b: Builder, x: str) -> str:
    kernel = b.normal(CHANNELS, 2, 2, 2)
    return b.add("ConvTranspose", x, kernel, b.normal(2 * CHANNELS), group=CHANNELS)


# --- weights in other forms ---------------------------------------------------------------


def quantised(b: Builder, *shape: int) -> str:
    return b.store(b.rng.integers(-100, 100, shape).astype(np.int8))


@case("Conv with a kernel dequantised by channels")
def _(b: Builder, x: str) -> str:
    stored = quantised(b, CHANNELS, CHANNELS, 1, 1), b.uniform(CHANNELS), quantised(b, CHANNELS)
    return b.add("Conv", x, b.add("DequantizeLinear", *stored, axis=0))


@case("Conv with a kernel and a bias that ConstantOfShape fills")
def _(b: Builder, x: str) -> str:
    number = numpy_helper.from_array(np.float32([0.5]))
    shapes = b.store([CHANNELS, CHANNELS, 1, 1]), b.store([CHANNELS])
    return b.add("Conv", x, *(b.add("ConstantOfShape", shape, value=number) for shape in shapes))


@case("Conv with everything dequantised")
def _(b: Builder, x: str) -> str:
    kernel = b.add("DequantizeLinear", quantised(b, CHANNELS, CHANNELS, 1, 1), b.uniform(1))
    bias = b.store(b.rng.integers(-100, 100, CHANNELS).astype(np.int32))
    bias = b.add("DequantizeLinear", bias, b.uniform(CHANNELS), axis=0)
    return b.add("Conv", x, kernel, bias)


@case("Conv with a kernel that is cast, scaled and turned")
def _(b: Builder, x: str) -> str:
    kernel = b.add("Cast", quantised(b, 1, 1, CHANNELS, CHANNELS), to=TensorProto.FLOAT)
    kernel = b.add("Mul", kernel, b.uniform(CHANNELS))
    return b.add("Conv", x, b.add("Transpose", kernel, perm=[3, 2, 0, 1]))


@case("Conv with a fake-quantised kernel")
def _(b: Builder, x: str) -> str:
    scale = b.uniform(CHANNELS)
    zero = b.store(np.zeros(CHANNELS, np.int8))
    kernel = b.add("QuantizeLinear", b.normal(CHANNELS, CHANNELS, 1, 1), scale, zero, axis=0)
    return b.add("Conv", x, b.add("DequantizeLinear", kernel, scale, zero, axis=0))


def columns_of(b: Builder) -> tuple[str, str]:
    """A scale and a zero point per channel."""
    return b.uniform(CHANNELS), b.store(np.zeros(CHANNELS, np.int8))


def quantise(b: Builder, x: str, *, channels: bool = False) -> tuple[str, str, str]:
    """Quantised activations, with their scale and zero point."""
    scale = b.uniform(CHANNELS) if channels else b.store(np.float32(0.02))
    zeros = b.rng.integers(100, 140, CHANNELS).astype(np.uint8)
    zero = b.store(zeros if channels else np.uint8(zeros[0]))
    return b.add("QuantizeLinear", x, scale, zero, axis=1), scale, zero


@case("QuantizeLinear and DequantizeLinear")
def _(b: Builder, x: str) -> str:
    return b.add("DequantizeLinear", *quantise(b, x), axis=1)


@case("QuantizeLinear and DequantizeLinear by channels")
def _(b: Builder, x: str) -> str:
    return b.add("DequantizeLinear", *quantise(b, x, channels=True), axis=1)


@case("QLinearConv")
def _(b: Builder, x: str) -> str:
    weights = (
        quantised(b, CHANNELS, CHANNELS, 1, 1),
        b.uniform(CHANNELS),
        b.store(np.zeros(CHANNELS, np.int8)),
    )
    bias = b.store(b.rng.integers(-100, 100, CHANNELS).astype(np.int32))
    scale, zero = b.store(np.float32(3)), b.store(np.uint8(128))
    y = b.add("QLinearConv", *quantise(b, x), *weights, scale, zero, bias)
    return b.add("DequantizeLinear", y, scale, zero)


@case("QLinearConv depthwise")
def _(b: Builder, x: str) -> str:
    weights = quantised(b, CHANNELS, 1, 1, 1), b.uniform(1), b.store(np.zeros(1, np.int8))
    scale, zero = b.store(np.float32(3)), b.store(np.uint8(128))
    y = b.add("QLinearConv", *quantise(b, x), *weights, scale, zero, group=CHANNELS)
    return b.add("DequantizeLinear", y, scale, zero)


@case("ConvInteger")
def _(b: Builder, x: str) -> str:
    y, _, zero = quantise(b, x)
    kernel = b.store(b.rng.integers(0, 200, (CHANNELS, CHANNELS, 1, 1)).astype(np.uint8))
    y = b.add("ConvInteger", y, kernel, zero)
    return b.add("Mul", b.add("Cast", y, to=TensorProto.FLOAT), b.uniform(CHANNELS, 1, 1))


def rows_of(b: Builder, x: str) -> str:
    return b.add("ReduceMean", x, b.store([2, 3]), keepdims=0)


@case("MatMulInteger", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y, _, zero = quantise(b, rows_of(b, x))
    columns = quantised(b, CHANNELS, CHANNELS), zero, quantised(b, CHANNELS)
    y = b.add("MatMulInteger", y, *columns)
    return b.add("Cast", y, to=TensorProto.FLOAT)


@case("QLinearMatMul", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    columns = (
        quantised(b, CHANNELS, CHANNELS),
        b.uniform(CHANNELS),
        b.store(np.zeros(CHANNELS, np.int8)),
    )
    scale, zero = b.store(np.float32(3)), b.store(np.uint8(128))
    y = b.add("QLinearMatMul", *quantise(b, rows_of(b, x)), *columns, scale, zero)
    return b.add("DequantizeLinear", y, scale, zero)


# --- more ways to sum, and to pick ---------------------------------------------------------


@case("DeformConv", opset=19)
def _(b: Builder, x: str) -> str:
    offsets, mask = b.conv(x, (CHANNELS, 18)), b.add("Sigmoid", b.conv(x, (CHANNELS, 9)))
    kernel = b.kernel((CHANNELS, CHANNELS))
    return b.add("DeformConv", x, kernel, offsets, b.normal(CHANNELS), mask, pads=[1] * 4)


@case("DeformConv of a constant", opset=19)
def _(b: Builder, x: str) -> str:
    picture, kernel = b.normal(2, 3, SIZE, SIZE), b.kernel((3, CHANNELS), 1)
    offsets = b.add("Relu", b.conv(picture, (3, 2)))
    return b.add("Add", x, b.add("DeformConv", picture, kernel, offsets))


@case("Einsum over the channels", width=SIZE)
def _(b: Builder, x: str) -> str:
    gate = b.add("ReduceMean", x, b.store([2, 3]), keepdims=0)
    y = b.add("Einsum", x, gate, equation="nchw,nc->nhw")
    return b.add("ReduceMean", y, b.store([1]), keepdims=0)


@case("Einsum beside the channels")
def _(b: Builder, x: str) -> str:
    """As in a graph convolution: a stored matrix between the vertices."""
    y = b.add("Reshape", x, b.store([2, 2, 3, SIZE, SIZE]))
    y = b.add("Einsum", y, b.normal(2, SIZE, SIZE), equation="nkctv, kvw -> nkctw")
    return b.add("Reshape", y, b.store([2, CHANNELS, SIZE, SIZE]))


@case("Einsum with constants per channel")
def _(b: Builder, x: str) -> str:
    y = b.add("Einsum", b.normal(CHANNELS), x, b.normal(1, SIZE), equation="c,nchw,ch->nhwc")
    return b.add("Transpose", y, perm=[0, 3, 1, 2])


@case("Col2Im", channels=3)
def _(b: Builder, x: str) -> str:
    y = b.add("Reshape", b.conv(x, (CHANNELS, 12)), b.store([2, 12, SIZE * SIZE]))
    return b.add("Col2Im", y, b.store([8, 8]), b.store([2, 2]), strides=[2, 2])


def taken(b: Builder, sequence: str, count: int) -> list[str]:
    """All tensors of a sequence."""
    return [b.add("SequenceAt", sequence, b.store(np.int64(k))) for k in range(count)]


@case("SplitToSequence and SequenceAt by stored sizes")
def _(b: Builder, x: str) -> str:
    return rejoined(b, taken(b, b.add("SplitToSequence", x, b.store([1, 2, 3]), axis=1), 3))


@case("SplitToSequence in parts of one size")
def _(b: Builder, x: str) -> str:
    return rejoined(b, taken(b, b.add("SplitToSequence", x, b.store(np.int64(3)), axis=1), 2))


@case("SplitToSequence of another axis")
def _(b: Builder, x: str) -> str:
    parts = taken(b, b.add("SplitToSequence", x, b.store(np.int64(3)), axis=2), 2)
    return b.add("Concat", *parts[::-1], axis=2)


@case("SequenceAt counted from the end", channels=4)
def _(b: Builder, x: str) -> str:
    parts = b.add("SplitToSequence", x, b.store([2, 4]), axis=1)
    return b.add("SequenceAt", parts, b.store(np.int64(-1)))


@case("GatherND of channels", channels=3)
def _(b: Builder, x: str) -> str:
    """As an exporter writes a list of indices."""
    y = b.add("Transpose", x, perm=[1, 0, 2, 3])
    y = b.add("GatherND", y, b.store([[4], [0], [-1]]))
    return b.add("Transpose", y, perm=[1, 0, 2, 3])


@case("GatherND in front of the channels", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    y = b.add("Transpose", x, perm=[0, 2, 3, 1])
    return b.add("GatherND", y, b.store([[1, 2], [0, 3]]), batch_dims=1)


@case("Mod of sizes")
def _(b: Builder, x: str) -> str:
    """The bounds of a roll along the picture, computed from its size."""
    height = b.add("Gather", b.add("Shape", x), b.store([2]), axis=0)
    bound = b.add("Mod", b.store([1]), height)
    parts = (b.store([0]), bound), (bound, b.store([99]))
    return b.add("Concat", *(b.add("Slice", x, *p, b.store([2])) for p in parts[::-1]), axis=2)


@case("Mod of a width")
def _(b: Builder, x: str) -> str:
    """The bounds of a roll along the channels."""
    width = b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)
    bound = b.add("Mod", b.store([-2]), width)
    parts = (b.store([0]), bound), (bound, b.store([99]))
    return rejoined(b, [b.add("Slice", x, *p, b.store([1])) for p in parts])


@case("ConstantOfShape as wide as the channels")
def _(b: Builder, x: str) -> str:
    half = numpy_helper.from_array(np.float32([0.5]))
    return b.add("Max", x, b.add("ConstantOfShape", b.add("Shape", x), value=half))


@case("Expand of a number to the shape of another", channels=2 * CHANNELS)
def _(b: Builder, x: str) -> str:
    ones = b.add("Expand", b.store(np.float32(1)), b.add("Shape", x))
    return b.add("Concat", x, ones, axis=1)


@case("Expand of a norm to the shape of another")
def _(b: Builder, x: str) -> str:
    norm = b.add("Exp", b.normal(2, 1, SIZE, 1))
    return b.add("Div", x, b.add("Expand", norm, b.add("Shape", x)))


@case("Expand of what has no channels")
def _(b: Builder, x: str) -> str:
    """Its shape stays what it was."""
    y = b.add("Expand", b.normal(CHANNELS, 1, 1), b.add("Shape", x))
    return b.add("Mul", x, b.add("ReduceMean", y, keepdims=0))


# --- ONNX Runtime's own -------------------------------------------------------------------


for _op in ("BiasGelu", "FastGelu"):
    CASES[f"com.microsoft.{_op}"] = Case(
        lambda b, x, op=f"com.microsoft.{_op}": b.add(
            "Transpose",
            add(b, op, b.add("Transpose", x, perm=[0, 2, 3, 1]), b.normal(CHANNELS)),
            perm=[0, 3, 1, 2],
        )
    )


@case("com.microsoft.FusedConv")
def _(b: Builder, x: str) -> str:
    kernel, bias = b.kernel((CHANNELS, CHANNELS), 1), b.normal(CHANNELS)
    return add(b, "com.microsoft.FusedConv", x, kernel, bias, activation="Relu")


@case("com.microsoft.FusedConv with a sum")
def _(b: Builder, x: str) -> str:
    inputs = b.normal(2, 3, SIZE, SIZE), b.kernel((3, CHANNELS), 1), b.normal(CHANNELS), x
    return add(b, "com.microsoft.FusedConv", *inputs, activation="Relu")


@case("com.microsoft.FusedGemm", width=5)
def _(b: Builder, x: str) -> str:
    rows = b.add("Flatten", b.add("GlobalMaxPool", x))
    weights = b.normal(CHANNELS, 5), b.normal(5)
    return add(b, "com.microsoft.FusedGemm", rows, *weights, activation="Relu")


@case("com.microsoft.QuantizeLinear and com.microsoft.DequantizeLinear")
def _(b: Builder, x: str) -> str:
    scale, zero = b.uniform(CHANNELS), b.store(np.full(CHANNELS, 2**15, np.uint16))
    y = add(b, "com.microsoft.QuantizeLinear", x, scale, zero, axis=1)
    return add(b, "com.microsoft.DequantizeLinear", y, scale, zero, axis=1)


def result_type(b: Builder) -> tuple[str, str]:
    """Scale and zero point of a result."""
    return b.store(np.float32(0.03)), b.store(np.uint8(120))


def quantised_step(op: str, count: int, **settings: object) -> Step:
    """A quantised operator on ``count`` tensors, and back to floats."""

    def step(b: Builder, x: str) -> str:
        branches = [b.add(each, x) for each in ("Relu", "Tanh")[:count]]
        operands = [name for y in branches for name in quantise(b, y)]
        y = add(b, f"com.microsoft.{op}", *operands, *result_type(b), **settings)
        return b.add("DequantizeLinear", y, *result_type(b))

    return step


QUANTISED = {
    "QLinearAdd": quantised_step("QLinearAdd", 2),
    "QLinearMul": quantised_step("QLinearMul", 2),
    "QLinearLeakyRelu": quantised_step("QLinearLeakyRelu", 1, alpha=0.1),
    "QLinearSigmoid": quantised_step("QLinearSigmoid", 1),
    "QLinearSoftmax of rows": quantised_step("QLinearSoftmax", 1, axis=-1, opset=13),
    "QLinearSoftmax of rows and columns": quantised_step("QLinearSoftmax", 1, axis=2, opset=12),
    "QLinearGlobalAveragePool": quantised_step("QLinearGlobalAveragePool", 1, channels_last=0),
    "QLinearAveragePool": quantised_step("QLinearAveragePool", 1, kernel_shape=[2, 2]),
}
for _name, _step in QUANTISED.items():
    CASES[f"com.microsoft.{_name}"] = Case(_step)


@case("com.microsoft.QLinearAveragePool with the channels last")
def _(b: Builder, x: str) -> str:
    step = quantised_step("QLinearAveragePool", 1, kernel_shape=[2, 2], channels_last=1)
    return b.add("Transpose", step(b, b.add("Transpose", x, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2])


@case("com.microsoft.QLinearMul with a constant per channel")
def _(b: Builder, x: str) -> str:
    stored = b.store(b.rng.integers(0, 255, (CHANNELS, 1, 1)).astype(np.uint8)), *result_type(b)
    y = add(b, "com.microsoft.QLinearMul", *stored, *quantise(b, x), *result_type(b))
    return b.add("DequantizeLinear", y, *result_type(b))


@case("com.microsoft.QLinearWhere")
def _(b: Builder, x: str) -> str:
    positive = b.add("Greater", x, b.store(np.float32(0)))
    other = quantise(b, b.add("Neg", x))
    y = add(b, "com.microsoft.QLinearWhere", positive, *quantise(b, x), *other, *result_type(b))
    return b.add("DequantizeLinear", y, *result_type(b))


@case("com.microsoft.QLinearConcat along the channels", channels=2 * CHANNELS)
def _(b: Builder, x: str) -> str:
    operands = *quantise(b, x), *quantise(b, b.add("Tanh", x))
    y = add(b, "com.microsoft.QLinearConcat", *result_type(b), *operands, axis=1)
    return b.add("DequantizeLinear", y, *result_type(b))


@case("com.microsoft.QLinearConcat beside the channels")
def _(b: Builder, x: str) -> str:
    operands = *quantise(b, x), *quantise(b, b.add("Tanh", x))
    y = add(b, "com.microsoft.QLinearConcat", *result_type(b), *operands, axis=3)
    return b.add("DequantizeLinear", y, *result_type(b))


@case("com.microsoft.QGemm", width=CHANNELS)
def _(b: Builder, x: str) -> str:
    columns = quantised(b, CHANNELS, CHANNELS), b.uniform(CHANNELS), quantised(b, CHANNELS)
    bias = b.store(b.rng.integers(-100, 100, CHANNELS).astype(np.int32))
    scale, zero = b.store(np.float32(3)), b.store(np.uint8(128))
    operands = *quantise(b, rows_of(b, x)), *columns, bias, scale, zero
    y = add(b, "com.microsoft.QGemm", *operands)
    return b.add("DequantizeLinear", y, scale, zero)


# --- the check -------------------------------------------------------------------------


def net_of(name: str) -> Model:
    """Conv, the operator, Conv or Gemm."""
    case = CASES[name]
    b = Builder(opset=case.opset, ir=8)
    x = case.step(b, b.conv(b.input(2, 3, SIZE, SIZE), (3, CHANNELS)))
    sizes = (case.channels, 3)
    y = b.gemm(x, (case.width, 3)) if case.width else b.conv(x, sizes, 1, pads=[0] * 4)
    model = b.build(y)
    if case.checked:
        onnx.checker.check_model(model, full_check=True)
    return model


def graph_of(model: Model) -> Graph:
    """Index of a model; sizes that inference can't tell come from a run."""
    names = Graph(model, observed={}).open_tensors()
    return Graph(model, observed={n: a.shape for n, a in tensors(model, names, 0).items()})


def tensors(model: Model, names: list[str], seed: int) -> dict[str, Array]:
    """Named tensors of the model, no optimisations."""
    found = run(model, samples(model, 2, seed), names, optimised=False)
    return dict(zip(names, found, strict=True))


def plan_of(groups: tuple[ChannelGroup, ...], seed: int) -> Plan:
    """A random choice with at least one channel removed and one kept in each group."""
    rng = np.random.default_rng(seed)
    parts = []
    for group in groups:
        kept = rng.random(group.players) < 0.5
        first, second = rng.choice(group.players, 2, replace=False)
        kept[first], kept[second] = True, False
        parts.append(GroupPlan(group, kept))
    return Plan("", tuple(parts))


def cut_alone(model: Model, plan: Plan) -> Iterator[tuple[GroupPlan, Model]]:
    """Each group's part, and the model cut by it alone."""
    for part in plan.groups:
        yield part, remove(model, "", Plan("", (part,)))


@pytest.mark.parametrize("name", sorted(CASES))
def test_cutting_equals_compressing(name: str) -> None:
    model = net_of(name)
    groups = find_groups(graph_of(model)).groups
    assert any("Conv_0" in group.members for group in groups)
    for seed in range(2):
        for part, pruned in cut_alone(model, plan_of(groups, seed)):
            names = list(dict.fromkeys(shape.tensor for shape in part.group.shapes))
            before, after = tensors(model, names, seed), tensors(pruned, names, seed)
            for shape in part.group.shapes:
                positions = shape.kept_positions(part.kept)
                expected = before[shape.tensor].compress(positions, axis=shape.axis)
                np.testing.assert_allclose(after[shape.tensor], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CASES))
def test_pruned_net_runs_where_it_is_narrower(name: str) -> None:
    """The consumers fit too, and recorded shapes are not stale."""
    model = onnx.shape_inference.infer_shapes(net_of(name), data_prop=True)
    plan = plan_of(find_groups(graph_of(model)).groups, 1)
    pruned = remove(model, "", plan)
    if CASES[name].checked:
        onnx.checker.check_model(pruned, full_check=True)
    feeds = samples(model, 2)
    assert run(pruned, feeds)[0].shape == run(model, feeds)[0].shape


PLACES = {  # case: axis of the operator's output, and the player of each position on it
    "Relu": (1, np.arange(CHANNELS)),
    "Flatten": (1, np.repeat(np.arange(CHANNELS), SIZE**2)),
    "Flatten with the channels last": (1, np.tile(np.arange(CHANNELS), SIZE**2)),
    "Flatten of everything": (1, np.tile(np.repeat(np.arange(CHANNELS), SIZE**2), 2)),
    "Reshape to zero and rest": (1, np.repeat(np.arange(CHANNELS), SIZE**2)),
    "Reshape to one row": (1, np.tile(np.repeat(np.arange(CHANNELS), SIZE**2), 2)),
    "Reshape of rows with the channels last": (1, np.arange(CHANNELS)),
}


@pytest.mark.parametrize("name", sorted(PLACES))
def test_places_worked_out_by_hand(name: str) -> None:
    model = net_of(name)
    group = find_groups(Graph(model)).groups[0]
    end = model.graph.node[-1].input[0]
    found = next(shape for shape in group.shapes if shape.tensor == end)
    assert found.axis == PLACES[name][0]
    np.testing.assert_array_equal(found.owner, PLACES[name][1])


NEVER = {"LRN", "NonMaxSuppression", "DynamicQuantizeLinear"}
"""Operators whose rule is a refusal, with a better sentence than that of unknown ones."""


def test_every_rule_has_a_case() -> None:
    words = {word.strip(",") for name in CASES for word in name.split()}
    assert set(RULES) - words == NEVER
    assert {op for _, op, _ in REFUSALS.values()} >= NEVER
    assert words >= PRODUCERS | set(NUMBER_RULES)


# --- refusals --------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Callable[[], Model], str, str]] = {}
"""Name: the net, the operator that stands in the way, the reason."""


def refusal(op: str, reason: str) -> Callable[[Callable[[], Model]], Callable[[], Model]]:
    """Register a net that is refused."""

    def register(build: Callable[[], Model]) -> Callable[[], Model]:
        REFUSALS[build.__name__] = (build, op, reason)
        return build

    return register


def start(opset: int = 17, batch: int | str = 2) -> tuple[Builder, str]:
    """A builder with a convolution of CHANNELS channels."""
    b = Builder(opset=opset)
    return b, b.conv(b.input(batch, 3, SIZE, SIZE), (3, CHANNELS))


def refuse_step(
    name: str, op: str, reason: str, step: Step, opset: int = 17, batch: int | str = 2
) -> None:
    """Register a single operator behind a convolution."""

    def build() -> Model:
        b, x = start(opset, batch)
        return b.build(step(b, x))

    REFUSALS[name] = (build, op, reason)


refuse_step(
    "unknown operator",
    "Det",
    "no rule for this operator",
    lambda b, x: b.add("Det", x),
)
refuse_step(
    "another domain",
    "Inverse",
    "no rule for operators of domain 'com.microsoft'",
    lambda b, x: b.add("Inverse", x, domain="com.microsoft"),
)
refuse_step(
    "output", "Relu", "its channels are the model's output 't1'", lambda b, x: b.add("Relu", x)
)
refuse_step(
    "squeeze of anything",
    "Squeeze",
    "it drops whatever axes have length one",
    lambda b, x: b.add("Squeeze", x),
)
refuse_step(
    "reduction over the channels",
    "ReduceMean",
    "it reduces over the channels",
    lambda b, x: b.add("ReduceMean", x, axes=[1, 2]),
)
refuse_step(
    "reduction over everything",
    "ReduceMax",
    "it reduces over the channels",
    lambda b, x: b.add("ReduceMax", x),
)
refuse_step(
    "pad of chosen axes",
    "Pad",
    "only padding of all axes by stored numbers is supported",
    lambda b, x: b.add("Pad", x, b.store([1, 1]), "", b.store([3])),
    18,
)
refuse_step(
    "resize of the channels",
    "Resize",
    "it does not keep the number of channels",
    lambda b, x: b.add("Resize", x, "", b.store(np.float32([1, 2, 1, 1]))),
)
refuse_step(
    "resize to another number of channels",
    "Resize",
    "the number of channels in its shape is computed in a way not followed",
    lambda b, x: b.add("Resize", x, "", "", b.store([2, 3, 4, 4]), mode="nearest"),
)
refuse_step(
    "flatten of batch and channels",
    "Flatten",
    "it flattens the channels into the batch",
    lambda b, x: b.add("Flatten", x, axis=2),
)
refuse_step(
    "indices of a pool",
    "MaxPool",
    "the indices it returns count over all channels",
    lambda b, x: b.add("MaxPool", x, outputs=2, kernel_shape=[2, 2]) and "t1_1",
)
refuse_step(
    "pool over another axis",
    "GlobalMaxPool",
    "channels run along axis 3, it expects axis 1",
    lambda b, x: b.add("GlobalMaxPool", b.add("Transpose", x, perm=[0, 2, 3, 1])),
)
refuse_step(
    "kernel over the channels",
    "Conv",
    "channels run along axis 3, it expects axis 1",
    lambda b, x: b.conv(b.add("Transpose", x, perm=[0, 2, 3, 1]), (SIZE, 5)),
)
refuse_step(
    "batch of channels",
    "Gemm",
    "channels run along axis 0, it expects axis 1",
    lambda b, x: b.add("Gemm", b.add("ReduceMax", x, axes=[0, 3], keepdims=0), b.normal(SIZE, 5)),
)
refuse_step(
    "two different axes",
    "Add",
    "its inputs have their channels along different axes",
    lambda b, x: b.add("Add", b.add("GlobalMaxPool", x), b.add("Transpose", x, perm=[0, 2, 1, 3])),
)
refuse_step(
    "concat of two different axes",
    "Concat",
    "its inputs have their channels along different axes",
    lambda b, x: b.add(
        "Concat",
        b.add("Transpose", x, perm=[0, 2, 1, 3]),
        b.add("Transpose", x, perm=[0, 2, 3, 1]),
        axis=1,
    ),
)
refuse_step(
    "concat beside a constant",
    "Concat",
    "some of its inputs have channels that are not known",
    lambda b, x: b.add("Concat", x, b.normal(2, CHANNELS, SIZE, 2), axis=3),
)
refuse_step(
    "sum with an input",
    "Add",
    "channels meet those of 'z', which must stay or are not known",
    lambda b, x: b.add("Add", x, b.input(2, CHANNELS, SIZE, SIZE, name="z")),
)
refuse_step(
    "weight as input",
    "Conv",
    "its weight 'z' is a graph input",
    lambda b, x: b.add("Conv", x, b.input(5, CHANNELS, 1, 1, name="z")),
)
refuse_step(
    "MatMul with a stack",
    "MatMul",
    "its weight has rank 3, only matrices are supported",
    lambda b, x: b.add("MatMul", x, b.normal(CHANNELS, SIZE, 3)),
)


def _spread_over(op: str, **settings: object) -> Step:
    return lambda b, x: b.add(op, x, **settings)


def _width(b: Builder, x: str) -> str:
    """The number of channels, as a list of one."""
    return b.add("Gather", b.add("Shape", x), b.store([1]), axis=0)


def _place(b: Builder, x: str) -> str:
    """A number that is not known before the model runs."""
    return b.add("Cast", b.add("ReduceMax", x, keepdims=0), to=TensorProto.INT64)


def _list(b: Builder, x: str, count: int) -> str:
    """``count`` numbers that are not known before the model runs."""
    return b.add("Add", b.add("Unsqueeze", _place(b, x), b.store([0])), b.store([1] * count))


def quantised_row(b: Builder, x: str) -> str:
    x = b.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    return b.add("QuantizeLinear", x, b.uniform(1), b.store(np.zeros(1, np.uint8)))


def _series(b: Builder, x: str) -> str:
    """Rows of the picture as steps in time: [SIZE, 2, channels]."""
    return b.add("Transpose", b.add("ReduceMax", x, axes=[3], keepdims=0), perm=[2, 0, 1])


ALONG = "it works along the channels"
refuse_step("softmax", "Softmax", ALONG, _spread_over("Softmax", axis=1))
refuse_step("old softmax", "Softmax", ALONG, _spread_over("Softmax"), 11)
refuse_step("choice of a channel", "ArgMax", ALONG, _spread_over("ArgMax", axis=1))
refuse_step(
    "neighbours", "LRN", "each channel is normalised by its neighbours", _spread_over("LRN", size=3)
)
refuse_step(
    "boxes",
    "NonMaxSuppression",
    "its channels are boxes or scores to choose from",
    lambda b, x: b.add("NonMaxSuppression", b.add("Squeeze", x, b.store([3])), b.normal(2, 1, 4)),
)
refuse_step(
    "sums along a computed axis",
    "CumSum",
    "its axis is computed at run time",
    lambda b, x: b.add("CumSum", x, _place(b, x)),
)
refuse_step(
    "statistics over the channels",
    "LayerNormalization",
    "its statistics run over the channels",
    lambda b, x: b.add("LayerNormalization", x, b.uniform(SIZE, SIZE), axis=1),
)
refuse_step(
    "instances of all channels",
    "InstanceNormalization",
    "its statistics run over the channels",
    lambda b, x: b.add(
        "InstanceNormalization",
        b.add("Reshape", x, b.store([0, 1, -1])),
        b.uniform(1),
        b.normal(1),
    ),
)
refuse_step(
    "mean and variance over the channels",
    "MeanVarianceNormalization",
    "its statistics run over the channels",
    _spread_over("MeanVarianceNormalization", axes=[1, 2, 3]),
)
refuse_step(
    "range of all channels",
    "DynamicQuantizeLinear",
    "its scale is taken from the range of all channels",
    lambda b, x: b.add("DynamicQuantizeLinear", x, outputs=3),
)
refuse_step(
    "blocks",
    "QuantizeLinear",
    "it quantises in blocks",
    lambda b, x: b.add("QuantizeLinear", x, b.uniform(2, 3, 4, 4), axis=1, block_size=2),
    21,
)
refuse_step(
    "weights in blocks",
    "Conv",
    "its constant is quantised in blocks by 'DequantizeLinear_1'",
    lambda b, x: b.add(
        "Conv",
        x,
        b.add(
            "DequantizeLinear",
            quantised(b, 4, 6, 1, 1),
            b.uniform(4, 3, 1, 1),
            axis=1,
            block_size=2,
        ),
    ),
    21,
)
refuse_step(
    "rows with their own zero points",
    "MatMulInteger",
    "its input is quantised by rows",
    lambda b, x: b.add(
        "MatMulInteger", quantised_row(b, x), quantised(b, 6, 3), b.store(np.zeros(2, np.uint8))
    ),
)
refuse_step(
    "reflected channels",
    "Pad",
    "it pads the channels with each other",
    lambda b, x: b.add("Pad", x, b.store([0, 1, 0, 0, 0, 0, 0, 0]), mode="reflect"),
)
refuse_step(
    "negative pad",
    "Pad",
    "it cuts channels off",
    lambda b, x: b.add("Pad", x, b.store([0, -1, 0, 0, 0, 0, 0, 0])),
)
refuse_step(
    "offsets from channels",
    "DeformConv",
    "channels choose the places where it samples",
    lambda b, x: b.add(
        "DeformConv", b.input(2, 3, SIZE, SIZE, name="z"), b.kernel((3, 4), 1), b.conv(x, (6, 2))
    ),
    19,
)
refuse_step(
    "offsets for groups",
    "DeformConv",
    "groups of its channels have offsets of their own",
    lambda b, x: b.add(
        "DeformConv", x, b.kernel((6, 4), 1), b.normal(2, 4, SIZE, SIZE), offset_group=2
    ),
    19,
)
refuse_step(
    "places from channels",
    "GridSample",
    "channels choose the places where it samples",
    lambda b, x: b.add(
        "GridSample", x, b.add("Slice", x, b.store([0]), b.store([2]), b.store([3]))
    ),
)
refuse_step(
    "uneven parts",
    "Split",
    "it splits 6 channels into 4 parts that are not equal",
    lambda b, x: b.add("Split", x, outputs=4, axis=1, num_outputs=4),
    18,
)
refuse_step(
    "parts that miss some",
    "Split",
    "its parts [1, 2] are not all of its 6 channels",
    lambda b, x: b.add("Split", x, b.store([1, 2]), outputs=2, axis=1),
)
refuse_step(
    "parts of computed sizes",
    "Split",
    "its input 't4' is computed at run time",
    lambda b, x: b.add("Split", x, _list(b, x, 2), outputs=2, axis=1),
)
refuse_step(
    "steps",
    "Slice",
    "it takes channels in steps of 2",
    lambda b, x: b.add("Slice", x, *(b.store([k]) for k in (0, 6, 1, 2))),
)
refuse_step(
    "no channels",
    "Slice",
    "it takes no channels",
    lambda b, x: b.add("Slice", x, *(b.store([k]) for k in (4, 2, 1))),
)
refuse_step(
    "computed channels",
    "Gather",
    "it picks channels by computed indices",
    lambda b, x: b.add("Gather", x, _list(b, x, 2), axis=1),
)
refuse_step(
    "channels that choose",
    "Gather",
    "channels choose what it picks",
    lambda b, x: b.add("Gather", b.normal(9), b.add("Cast", x, to=TensorProto.INT64)),
)
refuse_step(
    "one by one",
    "Gather",
    "its channels are picked one by one",
    lambda b, x: b.add("Gather", x, b.store([[1, 2, 4], [0, 3, 5]]), axis=1),
)
refuse_step(
    "computed repeats",
    "Tile",
    "its repeats are computed at run time",
    lambda b, x: b.add("Tile", x, _list(b, x, 4)),
)
refuse_step(
    "single slices in a sequence",
    "SplitToSequence",
    "it splits off every position by itself",
    lambda b, x: b.add("SequenceAt", b.add("SplitToSequence", x, axis=1), b.store(np.int64(0))),
)
refuse_step(
    "last part of a sequence",
    "SplitToSequence",
    "the last part of its 6 channels is smaller than the others",
    lambda b, x: b.add(
        "SequenceAt",
        b.add("SplitToSequence", x, b.store(np.int64(4)), axis=1),
        b.store(np.int64(0)),
    ),
)
refuse_step(
    "computed place in a sequence",
    "SequenceAt",
    "it picks a tensor by a computed number",
    lambda b, x: b.add(
        "SequenceAt", b.add("SplitToSequence", x, b.store([2, 4]), axis=1), _place(b, x)
    ),
)
refuse_step(
    "channels and rows at once",
    "GatherND",
    "it picks along the channels and another axis at once",
    lambda b, x: b.add("GatherND", x, b.store([[0, 1, 2], [1, 5, 3]])),
)
refuse_step(
    "blocks of a computed size",
    "Col2Im",
    "the size of its blocks is computed at run time",
    lambda b, x: b.add(
        "Col2Im", b.add("Reshape", x, b.store([2, CHANNELS, 16])), b.store([4, 8]), _list(b, x, 2)
    ),
    18,
)
refuse_step(
    "mixed by a Reshape",
    "Reshape",
    "it mixes the channels: ['N', 6, 4, 4] to [3, 64]",
    lambda b, x: b.add("Reshape", x, b.store([3, 64])),
    batch="N",
)
refuse_step(
    "shape that is computed",
    "Reshape",
    "its shape is computed at run time",
    lambda b, x: b.add("Reshape", x, _list(b, x, 4)),
)
refuse_step(
    "the only channel",
    "Reshape",
    "it drops the only channel",
    lambda b, x: b.add("Reshape", b.conv(x, (CHANNELS, 1)), b.store([2, 16])),
)
refuse_step(
    "squeeze of the only channel",
    "Squeeze",
    "it drops the channel axis",
    lambda b, x: b.add("Squeeze", b.conv(x, (CHANNELS, 1)), b.store([1])),
)
refuse_step(
    "resize to a computed size",
    "Resize",
    "its sizes are computed at run time",
    lambda b, x: b.add("Resize", x, "", "", _list(b, x, 4)),
)
refuse_step(
    "product with a vector",
    "MatMul",
    "a product with a vector is not supported",
    lambda b, x: b.add("MatMul", x, b.input(SIZE, name="z")),
)
refuse_step(
    "sum over channels of one side",
    "MatMul",
    "it sums over channels that only one of its inputs has",
    lambda b, x: b.add("MatMul", b.add("Transpose", x, perm=[0, 2, 3, 1]), b.input(6, 5, name="z")),
)
refuse_step(
    "letters without a result",
    "Einsum",
    "its equation has dots, no result, or a letter twice in one term",
    lambda b, x: b.add("Einsum", x, x, equation="nchw,nchw"),
)
refuse_step(
    "letters of two axes",
    "Einsum",
    "its inputs have their channels along different axes",
    lambda b, x: b.add("Einsum", x, x, equation="nchw,ndhw->ncd"),
)
refuse_step(
    "states from channels",
    "GRU",
    "only its first input may carry channels",
    lambda b, x: b.add(
        "GRU",
        *(_series(b, x), b.normal(1, 9, CHANNELS), b.normal(1, 9, 3)),
        *("", "", _series(b, b.add("GlobalMaxPool", b.conv(x, (CHANNELS, 3))))),
        hidden_size=3,
    ),
)
refuse_step(
    "arithmetic with the width and something",
    "Mul",
    "computes with the number of channels",
    lambda b, x: b.add("Mul", _width(b, x), b.add("Shape", b.input("Q", name="z"))),
)
refuse_step(
    "list of unknown length",
    "Mul",
    "shape arithmetic on a list of unknown length",
    lambda b, x: b.add("Mul", _width(b, x), b.add("Cast", b.input("Q", name="z"), to=7)),
)
refuse_step(
    "constant of a product of sizes",
    "ConstantOfShape",
    "makes a constant of a computed shape",
    lambda b, x: b.add("ConstantOfShape", b.add("Concat", *[_width(b, x)] * 2, axis=0)),
)
refuse_step(
    "remainder in another way",
    "Mod",
    "takes remainders with the sign of the dividend",
    lambda b, x: b.add("Mod", _width(b, x), b.store([4]), fmod=1),
)
refuse_step(
    "choice by the width",
    "Where",
    "computes with the number of channels",
    lambda b, x: b.add("Where", b.add("Equal", _width(b, x), b.store([6])), *[_width(b, x)] * 2),
)
refuse_step(
    "lists of different lengths",
    "Add",
    "shape arithmetic on lists of different lengths",
    lambda b, x: b.add("Add", b.add("Shape", x), b.store([1, 2])),
)
refuse_step(
    "computed index",
    "Gather",
    "picks a size by a computed index",
    lambda b, x: b.add("Gather", b.add("Shape", x), _place(b, x)),
)


refuse_step(
    "width computed from another size",
    "Reshape",
    "a number of channels is computed in a way not followed",
    lambda b, x: b.add(
        "Reshape",
        x,
        b.add("Mul", b.add("Shape", b.input("N", 3, 16, name="z")), b.store([1, 2, 1])),
    ),
    batch="N",
)


def _size_of_another(b: Builder, x: str) -> str:
    """[2, CHANNELS, 16], the last one from the width of another convolution."""
    width = b.add("Gather", b.add("Shape", b.conv(x, (CHANNELS, 16))), b.store([1]), axis=0)
    return b.add("Concat", b.store([2, CHANNELS]), width, axis=0)


refuse_step(
    "size of another axis",
    "Reshape",
    "another axis takes its size from the number of channels",
    lambda b, x: b.add("Reshape", x, _size_of_another(b, x)),
)
refuse_step(
    "constant that is computed",
    "BatchNormalization",
    "its constant 't1' is computed by RandomNormal 'RandomNormal_1'",
    lambda b, x: b.add(
        "BatchNormalization",
        x,
        b.add("RandomNormal", shape=[CHANNELS]),
        *(b.uniform(CHANNELS) for _ in range(3)),
    ),
)
refuse_step(
    "constant that is folded up",
    "Add",
    "its constant is reshaped from [2, 3] to [6, 1, 1]",
    lambda b, x: b.add("Add", x, b.add("Reshape", b.normal(2, 3), b.store([6, 1, 1]))),
)
refuse_step(
    "concat with an open number of channels",
    "Concat",
    "the number of channels of 'z' is not known",
    lambda b, x: b.add("Concat", x, b.input(2, "C", SIZE, SIZE, name="z"), axis=1),
)


refuse_step(
    "width as output",
    "Shape",
    "the number of its channels is the model's output 't1'",
    lambda b, x: b.add("Shape", x),
)
refuse_step(
    "one stored number for two",
    "Concat",
    "the number of its channels is stored where it also means another",
    lambda b, x: b.add("Add", *_two_views(b, x)),
)


def _two_views(b: Builder, x: str) -> list[str]:
    """The channels, and an input, in the shape [batch of a Shape, CHANNELS, 16]."""
    other = b.input(2, CHANNELS, SIZE, SIZE, name="z")
    batch = b.add("Gather", b.add("Shape", x), b.store([0]), axis=0)
    shape = b.add("Concat", batch, b.store([CHANNELS, 16]), axis=0)
    return [b.add("ReduceMax", b.add("Reshape", y, shape)) for y in (x, other)]


@refusal("Conv", "its channels can only leave all together")
def one_channel_per_group() -> Model:
    b = Builder()
    x = b.conv(b.input(2, 4, SIZE, SIZE), (4, 2), groups=2)
    return b.build(b.head(x, (2, 3)))


@refusal("Relu", "its channels are read inside the body of another node as 't1'")
def captured_by_a_body() -> Model:
    b, x = start()
    x = b.relu(x)
    end = helper.make_tensor_value_info("end", TensorProto.FLOAT, None)
    node = helper.make_node("Neg", [x], ["end"])
    body = helper.make_graph([node], "body", [], [end])
    condition = b.store(np.array(True))
    return b.build(b.add("If", condition, then_branch=body, else_branch=body))


@refusal("Add", "broadcasting before opset 7 follows other rules")
def old_broadcast() -> Model:
    b = Builder(opset=6, ir=3)
    x = b.conv(b.input(2, 3, SIZE, SIZE), (3, CHANNELS), bias=False)
    model = b.build(b.add("Add", x, b.normal(CHANNELS), broadcast=1, axis=1))
    return model


@refusal("BatchNormalization", "it is in training mode: its statistics change with every batch")
def training_mode() -> Model:
    b, x = start()
    vectors = b.uniform(CHANNELS), b.normal(CHANNELS), b.normal(CHANNELS), b.uniform(CHANNELS)
    x = b.add("BatchNormalization", x, *vectors, outputs=3, training_mode=1)
    return b.build(b.head(x, (CHANNELS, 3)))


@refusal("BatchNormalization", "its statistics are per element, not per channel")
def statistics_per_element() -> Model:
    b = Builder(opset=7, ir=3)
    x = b.conv(b.input(2, 3, SIZE, SIZE), (3, CHANNELS), bias=False)
    vectors = [b.uniform(CHANNELS) for _ in range(4)]
    return b.build(b.head(b.add("BatchNormalization", x, *vectors, spatial=0), (CHANNELS, 3)))


@refusal("Conv", "depthwise, and its input channels must stay")
def depthwise_of_the_input() -> Model:
    b = Builder()
    return b.build(b.head(b.depthwise(b.input(2, 4, SIZE, SIZE), 4), (4, 3)))


@refusal("Flatten", "the size of a channel is not fixed (give it with --dim)")
def open_size() -> Model:
    b = Builder()
    x = b.conv(b.input("N", 3, "H", SIZE), (3, CHANNELS))
    return b.build(b.add("Relu", b.add("Flatten", x)))


@refusal("Flatten", "the rank of its input 't3' is not known")
def open_rank() -> Model:
    b, x = start()
    x = b.relu(b.add("Inverse", x, domain="com.microsoft"))
    kernel = b.normal(5, CHANNELS, 1, 1)
    return b.build(b.gemm(b.add("Flatten", b.add("Conv", x, kernel)), (80, 3)))


@refusal("Mul", "a single channel is spread over all others")
def one_channel_over_all() -> Model:
    b, x = start()
    x = b.add("Mul", x, b.conv(x, (CHANNELS, 1)))
    return b.build(b.head(b.relu(x), (CHANNELS, 3)))


@refusal("Gemm", "its constant 'c2' has shape [5, 3], not 6 along axis 0")
def constant_of_another_size() -> Model:
    b, x = start()
    x = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.build(b.add("Gemm", x, b.normal(5, 3)))


@refusal("Add", "its channels meet others that must stay")
def residual_of_the_input() -> Model:
    b = Builder()
    x = b.input(2, 4, SIZE, SIZE)
    y = b.add("Concat", b.conv(x, (4, CHANNELS)), x, axis=1)
    z = b.add("Concat", b.conv(x, (4, CHANNELS)), b.conv(x, (4, 4)), axis=1)
    return b.build(b.head(b.relu(b.add("Add", y, z)), (CHANNELS + 4, 3)))


@refusal("Conv", "its weight 'c0' is also used where it can't shrink")
def kernel_used_elsewhere() -> Model:
    b = Builder()
    kernel = b.kernel((3, CHANNELS))
    x = b.add("Conv", b.input(2, 3, SIZE, SIZE), kernel)
    norm = b.add("ReduceSum", kernel, keepdims=0)
    return b.build(b.add("Mul", b.head(x, (CHANNELS, 3)), norm))


def reasons(model: Model) -> list[Skipped]:
    """All reasons that the analysis gives."""
    return list(find_groups(Graph(model)).skipped)


# Damaged models: the loader refuses most of them before a rule sees them.
refuse_step(
    "outputs that are no equal groups",
    "Conv",
    "its 5 channels are not 2 groups",
    lambda b, x: b.add("Conv", x, b.normal(5, 3, 1, 1), group=2),
)
refuse_step(
    "no groups",
    "Conv",
    "its 5 channels are not 0 groups",
    lambda b, x: b.add("Conv", x, b.normal(5, CHANNELS, 1, 1), group=0),
)
refuse_step(
    "inputs that are no equal groups",
    "Conv",
    "its 6 input channels are not 4 groups",
    lambda b, x: b.add("Conv", x, b.normal(8, 2, 1, 1), group=4),
)
refuse_step(
    "a kernel of one axis",
    "Conv",
    "its weight 'flat' has rank 1, not 2 or more",
    lambda b, x: b.add("Conv", x, b.store(np.ones(5), "flat")),
)
refuse_step(
    "no repeats",
    "Tile",
    "it makes 0 channels",
    lambda b, x: b.add("Tile", x, b.store([1, 0, 1, 1])),
)
refuse_step(
    "channels that there are not",
    "Gather",
    "it picks channels that there are not",
    lambda b, x: b.add("Gather", x, b.store([0, 99]), axis=1),
)
refuse_step(
    "blocks that are not full",
    "DepthToSpace",
    "its 6 channels are not blocks of 4 × 4",
    lambda b, x: b.add("DepthToSpace", x, blocksize=4),
)
refuse_step(
    "a broken axis",
    "CumSum",
    "its axes are no integers",
    lambda b, x: b.add("CumSum", x, b.store(np.array(1.5))),
)
refuse_step(
    "a size that there is not",
    "Gather",
    "picks a size that there is not",
    lambda b, x: b.add("Gather", b.add("Shape", x), b.store([7]), axis=0),
)
refuse_step(
    "sizes in steps of nothing",
    "Slice",
    "cuts in steps of 0",
    lambda b, x: b.add("Slice", b.add("Shape", x), *(b.store([number]) for number in (0, 2, 0, 0))),
)
refuse_step(
    "a width divided by nothing",
    "Div",
    "divides by 0",
    lambda b, x: b.add("Div", _width(b, x), b.store([0])),
)
refuse_step(
    "a width that nothing holds",
    "Mul",
    f"computes with the number {CHANNELS * 2**62}",
    lambda b, x: b.add("Mul", _width(b, x), b.store([2**62])),
)
refuse_step(
    "a long list of sizes",
    "Add",
    "makes a list of 5000 sizes",
    lambda b, x: b.add("Add", _width(b, x), b.input(5000, name="z")),
)


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refused_with_a_sentence(name: str) -> None:
    build, op, reason = REFUSALS[name]
    found = reasons(build())
    assert (op, reason) in {(entry.op_type, entry.reason) for entry in found}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refused_channels_stay(name: str) -> None:
    build, op, reason = REFUSALS[name]
    model = build()
    found = find_groups(Graph(model))
    held = {m for e in found.skipped if (e.op_type, e.reason) == (op, reason) for m in e.members}
    assert held
    assert not held & {member for group in found.groups for member in group.members}


UNREACHABLE = {
    "the recorded shape of its input 't' is wrong": "inference overrules what is recorded",
    "the rank of its output is not known": "ONNX infers the rank of every Reshape's output",
    "its shape does not fit its output": "shape inference would contradict itself",
    "its constant is reshaped by '' in a way not followed": "a zero copies the same axis",
    "the statistics that it returns run over the channels": "see test_approximate",
    "it takes a mean of integers over the channels": "see test_approximate",
}


def patterns() -> Iterator[str]:
    """Regular expressions of all reasons in the rules' source."""
    for path in sorted(Path(onnx_shapprune.passes.rules.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                yield _pattern(node.args[0])


def _pattern(text: ast.expr) -> str:
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(re.escape(p.value) if isinstance(p, ast.Constant) else ".*" for p in parts)


def test_every_reason_has_a_case() -> None:
    known = [reason for _, _, reason in REFUSALS.values()] + list(UNREACHABLE)
    missing = [p for p in patterns() if not any(re.fullmatch(p, reason) for reason in known)]
    assert missing == []
