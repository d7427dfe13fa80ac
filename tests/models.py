"""Tiny models for the tests of everything around the graph passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

OPSET = 17
IR = 8
CLASSES = 3
SHAPE = (2, 6, 6)
"""Channels, height and width of the input of most models here."""

Dims = Sequence[int | str]
Node = onnx.NodeProto
Tensor = onnx.TensorProto


def weight(rng: np.random.Generator, name: str, *shape: int) -> Tensor:
    """Seeded values that keep the size of activations."""
    scale = np.sqrt(2 / max(np.prod(shape[1:]), 1))
    return onnx.numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), name)


def model(
    nodes: Sequence[Node],
    stored: Sequence[Tensor],
    result: Dims,
    source: Dims = ("N", *SHAPE),
    output: str = "y",
) -> onnx.ModelProto:
    """A model from `x` to `output`, with one node after the other."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, result)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def conv(name: str, source: str, result: str, *, bias: bool = False) -> Node:
    """A 3×3 convolution that keeps height and width."""
    inputs = [source, f"{name}.w", *([f"{name}.b"] if bias else [])]
    return helper.make_node("Conv", inputs, [result], name=name, pads=[1] * 4)


def batch_norm(rng: np.random.Generator, name: str, channels: int) -> list[Tensor]:
    """The four vectors of a BatchNormalization."""
    positive = rng.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
    any_sign = rng.normal(0, 0.5, (2, channels)).astype(np.float32)
    values = {"scale": positive[0], "shift": any_sign[0], "mean": any_sign[1], "var": positive[1]}
    return [onnx.numpy_helper.from_array(v, f"{name}.{part}") for part, v in values.items()]


def norm_node(name: str, source: str, result: str) -> Node:
    """A BatchNormalization."""
    parts = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
    return helper.make_node("BatchNormalization", [source, *parts], [result], name=name)


def head(
    source: str, channels: int, rng: np.random.Generator, classes: int = CLASSES
) -> tuple[list[Node], list[Tensor]]:
    """Global average, flatten, classes."""
    nodes = [
        helper.make_node("GlobalAveragePool", [source], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["y"], name="fc", transB=1),
    ]
    return nodes, [weight(rng, "fc.w", classes, channels), weight(rng, "fc.b", classes)]


def sequential(
    batch: int | str = "N",
    *,
    seed: int = 0,
    widths: tuple[int, int] = (6, 8),
    classes: int = CLASSES,
) -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, Conv, Relu, pool, Flatten, Gemm: groups conv1 and conv2."""
    rng = np.random.default_rng(seed)
    first, second = widths
    nodes, stored = head("r2", second, rng, classes)
    nodes = [
        conv("conv1", "x", "c1"),
        norm_node("bn1", "c1", "n1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        conv("conv2", "r1", "c2", bias=True),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        *nodes,
    ]
    stored += [
        weight(rng, "conv1.w", first, SHAPE[0], 3, 3),
        *batch_norm(rng, "bn1", first),
        weight(rng, "conv2.w", second, first, 3, 3),
        weight(rng, "conv2.b", second),
    ]
    return model(nodes, stored, [batch, classes], [batch, *SHAPE])


def layer_norm(seed: int = 0) -> onnx.ModelProto:
    """Conv, a norm over channels and pixels, Conv, a head: groups second and, if allowed, first."""
    rng = np.random.default_rng(seed)
    nodes, stored = head("c2", 8, rng)
    nodes = [
        conv("first", "x", "c1"),
        helper.make_node("LayerNormalization", ["c1", "scale"], ["n1"], name="norm", axis=1),
        conv("second", "n1", "c2"),
        *nodes,
    ]
    stored += [
        weight(rng, "first.w", 6, SHAPE[0], 3, 3),
        weight(rng, "second.w", 8, 6, 3, 3),
        onnx.numpy_helper.from_array(np.ones((6, *SHAPE[1:]), np.float32), "scale"),
    ]
    return model(nodes, stored, ["N", CLASSES])


def residual(seed: int = 0) -> onnx.ModelProto:
    """A stem, one block with an identity skip, a head: groups stem and inner."""
    rng = np.random.default_rng(seed)
    nodes, stored = head("r3", 6, rng)
    nodes = [
        conv("stem", "x", "c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        conv("inner", "r1", "c2"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        conv("outer", "r2", "c3"),
        helper.make_node("Add", ["c3", "r1"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["r3"], name="relu3"),
        *nodes,
    ]
    stored += [
        weight(rng, "stem.w", 6, SHAPE[0], 3, 3),
        weight(rng, "inner.w", 5, 6, 3, 3),
        weight(rng, "outer.w", 6, 5, 3, 3),
    ]
    return model(nodes, stored, ["N", CLASSES])


def nothing_to_prune() -> onnx.ModelProto:
    """One convolution whose channels are the model's output."""
    rng = np.random.default_rng(0)
    return model(
        [conv("only", "x", "y")], [weight(rng, "only.w", 4, SHAPE[0], 3, 3)], ["N", 4, *SHAPE[1:]]
    )


def open_sizes() -> onnx.ModelProto:
    """The sequential model for images of any size."""
    proto = sequential()
    for axis, name in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return proto


def unknown_operator() -> onnx.ModelProto:
    """An operator of somebody's own domain, which ONNX Runtime lacks."""
    proto = sequential()
    proto.graph.node[2].CopyFrom(
        helper.make_node("Sparkle", ["n1"], ["r1"], name="odd", domain="acme")
    )
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    return proto


def integer_output() -> onnx.ModelProto:
    """The sequential model that only says which class is the largest."""
    proto = sequential()
    proto.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], name="argmax", axis=1))
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("class", TensorProto.INT64, ["N", 1])
    )
    return proto


def not_a_number() -> onnx.ModelProto:
    """The sequential model with the square root of a negative number at its end."""
    proto = sequential()
    proto.graph.node[-1].output[0] = "scores"
    proto.graph.node.append(helper.make_node("Exp", ["scores"], ["positive"], name="exp"))
    proto.graph.node.append(helper.make_node("Neg", ["positive"], ["negative"], name="neg"))
    proto.graph.node.append(helper.make_node("Sqrt", ["negative"], ["y"], name="sqrt"))
    return proto


def no_inputs() -> onnx.ModelProto:
    """The sequential model with samples of its own."""
    proto = sequential()
    del proto.graph.input[:]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(samples(), "x"))
    return proto


def dangling() -> onnx.ModelProto:
    """A node that reads what nobody makes."""
    proto = sequential()
    proto.graph.node[2].input[0] = "nobody"
    return proto


def renamed_input() -> onnx.ModelProto:
    """The sequential model with the input z instead of x."""
    proto = sequential()
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "z"
    return proto


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a model as one file."""
    path.write_bytes(proto.SerializeToString())
    return path


def external(folder: Path, location: str = "weights.bin", *, seed: int = 0) -> Path:
    """The sequential model in `folder`, its weights in a file of their own.

    The file is always written beside the model; `location` is where the model says it is.
    """
    path = folder / "external.onnx"
    onnx.save(
        sequential(seed=seed),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    return save(proto, path)


def samples(count: int = 12, seed: int = 1) -> npt.NDArray[np.float32]:
    """Seeded inputs for most models here."""
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def labels(count: int = 12, seed: int = 2) -> npt.NDArray[np.int64]:
    """Seeded classes."""
    return np.random.default_rng(seed).integers(0, CLASSES, count)


def workplace(folder: Path) -> None:
    """The files that tests of the command line work with, in `folder`.

    `net.onnx` with `data.npz` (x and labels), `fixed.onnx` with a batch of 4, `skip.onnx`
    (residual), `stuck.onnx` (nothing to prune), `open.onnx` (images of any size),
    `norm.onnx` (a norm over channels).
    """
    for name, proto in {
        "net": sequential(),
        "fixed": sequential(4),
        "skip": residual(),
        "stuck": nothing_to_prune(),
        "open": open_sizes(),
        "norm": layer_norm(),
    }.items():
        save(proto, folder / f"{name}.onnx")
    np.savez(folder / "data.npz", x=samples(), labels=labels())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
