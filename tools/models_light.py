"""Recipes for onnx's light models: graphs of well-known networks without their trained weights.

As shipped most weights are one number that a ConstantOfShape repeats. Seeded, random ones take
their place: initializers that are also inputs, as files of that age have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recipes import Array, Built, Recipe

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
NORMS = {1: "scale", 2: "shift", 3: "shift", 4: "variance"}
"""What the inputs of a BatchNormalization are."""
SCALERS = {"Mul": "scale", "Add": "shift"}
"""What a vector is that Unsqueeze prepares for one of these."""


def light(name: str, *, seeded: bool) -> Built:
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    if seeded:
        fill_weights(model.graph, rng)
    stored = {tensor.name for tensor in model.graph.initializer}
    (source,) = (info.name for info in model.graph.input if info.name not in stored)
    return model, {source: patches(rng)}


def patches(rng: np.random.Generator) -> Array:
    """Four noisy images of four coloured squares: on noise alone all outputs are alike."""
    colours = np.kron(rng.standard_normal((4, 3, 2, 2)), np.ones((112, 112)))
    noisy = colours + 0.3 * rng.standard_normal((4, 3, 224, 224))
    return noisy.astype(np.float32)


# --- weights ----------------------------------------------------------------------------------


def fill_weights(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Random weights in place of every vector of a norm, and of whatever is computed.

    The stored vectors belong to trained weights that are not there: with others they would
    make activations grow from layer to layer.
    """
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    roles = dict(weight_roles(graph))
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        (source,), (name,) = node.input, node.output
        drop_constant(graph, source)
        shape = shapes[source].tolist()
        graph.initializer.append(numpy_helper.from_array(draw(roles[name], shape, rng), name))
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        graph.node.remove(node)
    for tensor in graph.initializer:
        if roles.get(tensor.name, "kernel") != "kernel" and tensor.name in shapes:
            fresh = draw(roles[tensor.name], list(tensor.dims), rng)
            tensor.CopyFrom(numpy_helper.from_array(fresh, tensor.name))


def drop_constant(graph: onnx.GraphProto, name: str) -> None:
    for listed in (graph.initializer, graph.input):
        (found,) = (i for i, entry in enumerate(listed) if entry.name == name)
        del listed[found]


def weight_roles(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    """What each weight is to the node that reads it: kernel, scale, shift, variance or gate."""
    readers = {name: node for node in graph.node for name in node.input}
    joins = {name for node in graph.node if node.op_type == "Sum" for name in node.input}
    found = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            found.append((name, role(node, index, readers, joins)))
    return found


def role(
    node: onnx.NodeProto, index: int, readers: dict[str, onnx.NodeProto], joins: set[str]
) -> str:
    if node.op_type == "BatchNormalization":
        kind = NORMS.get(index, "kernel")
        return "gate" if kind == "scale" and node.output[0] in joins else kind
    if node.op_type == "Unsqueeze":
        return SCALERS[readers[node.output[0]].op_type]
    return "shift" if node.op_type in ("Conv", "Gemm") and index == 2 else "kernel"


def draw(role: str, shape: list[int], rng: np.random.Generator) -> Array:
    """Weights of the scale that keeps activations finite, also through many residual blocks."""
    if role == "variance":
        return rng.uniform(0.8, 1.25, shape).astype(np.float32)
    centre, spread = {"scale": (1, 0.1), "gate": (0.5, 0.05)}.get(role, (0, 0.05))
    if role == "kernel":
        is_conv = len(shape) == 4 and shape[0] > 1
        spread = math.sqrt(2 / math.prod(shape[1:]) if is_conv else 1 / shape[-1])
    return centre + spread * rng.standard_normal(shape, np.float32)


# --- recipes ----------------------------------------------------------------------------------


def builder(name: str, *, seeded: bool) -> Callable[[], Built]:
    return partial(light, name, seeded=seeded)


RECIPES = {
    f"light-{name}": Recipe(
        "onnx's light models, seeded weights",
        builder(name, seeded=True),
        "graph Apache-2.0 (onnx); weights and data made here",
    )
    for name in NAMES
} | {
    f"light-{name}-shipped": Recipe(
        "onnx's light models, as shipped",
        builder(name, seeded=False),
        "model Apache-2.0 (onnx); data made here",
    )
    for name in NAMES
}
