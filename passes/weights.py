"""Values of stored tensors, in memory or left in a file that is read through a memory map.

A tensor whose values are left in a file is a *reference*: ONNX's own external data with an
absolute path. Only the loader makes them, after checking the file. A *stub* stands for a
tensor that somebody else holds in memory, so that a model is copied without its weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message

from onnx_shapprune.errors import ModelError
from onnx_shapprune.types import Array

LARGE = 2**16
"""Bytes from which on a tensor's values are worth leaving where they are."""

HEAVY = 2**24
"""Bytes from which on a model's weights are worth the trouble."""

_STUB = "memory:"
_BITS: dict[int, int] = {
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    onnx.TensorProto.FLOAT6E2M3: 6,
    onnx.TensorProto.FLOAT6E3M2: 6,
}
_PACKED = frozenset(_BITS)
_VALUES = (
    *("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data"),
    *("uint64_data", "external_data"),
)


@dataclass(frozen=True)
class Stretch:
    """Where a tensor's values lie in a file."""

    path: Path
    offset: int
    length: int

    def chunks(self, size: int = 2**20) -> Iterator[bytes]:
        """All its bytes, so many at a time.

        Raises:
            ModelError: The file is gone or shorter than it was.
        """
        left = self.length
        with _still_there(self), self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                chunk = file.read(min(left, size))
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                yield chunk

    def read(self) -> bytes:
        """All its bytes at once.

        Raises:
            ModelError: The file is gone or shorter than it was.
        """
        return b"".join(self.chunks(max(self.length, 1)))

    def mapped(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Its values as a read-only view of the file; they count as memory only while in use.

        Raises:
            ModelError: The file is gone or shorter than it was.
        """
        with _still_there(self):
            return np.asarray(np.memmap(self.path, dtype, "r", self.offset, shape))


@contextmanager
def _still_there(place: Stretch) -> Iterator[None]:
    """Turn what goes wrong with a file that was whole when it was loaded into our error."""
    try:
        yield
    except (OSError, EOFError, ValueError) as error:
        raise ModelError(
            f"'{place.path}' has changed since the model was loaded",
            "leave the model's files alone while it is worked on, and start again",
        ) from error


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node that holds one."""
    if node.op_type != "Constant":
        return None
    return next((a.t for a in node.attribute if a.name == "value"), None)


def weights(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Names and tensors of all dense constants of the top-level graph."""
    yield from ((tensor.name, tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        tensor = constant_tensor(node)
        if tensor is not None:
            yield node.output[0], tensor


# --- references


def is_reference(tensor: onnx.TensorProto) -> bool:
    """Whether the values are somewhere else."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def entry(tensor: onnx.TensorProto, key: str) -> str:
    """What a tensor says about the place of its values; empty if nothing."""
    return next((found.value for found in tensor.external_data if found.key == key), "")


def place(tensor: onnx.TensorProto) -> Stretch:
    """Where the values of a reference are."""
    return Stretch(
        Path(entry(tensor, "location")), int(entry(tensor, "offset")), int(entry(tensor, "length"))
    )


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Let a tensor name the place of its values instead of holding them."""
    _clear(tensor)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def files(model: onnx.ModelProto) -> tuple[Path, ...]:
    """The files that a model's references are in."""
    found = (place(tensor).path for _, tensor in weights(model) if is_reference(tensor))
    return tuple(dict.fromkeys(found))


# --- values


def values(tensor: onnx.TensorProto) -> Array:
    """Values of a tensor, read-only; of a reference, a view of the file.

    Raises:
        ModelError: The file has changed.
    """
    if not is_reference(tensor):
        return onnx.numpy_helper.to_array(tensor)
    if tensor.data_type in _PACKED:
        return onnx.numpy_helper.to_array(in_memory(tensor))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return place(tensor).mapped(dtype, tuple(tensor.dims))


def in_memory(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor itself, or a copy that holds what it refers to."""
    if not is_reference(tensor):
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    _clear(copy)
    copy.raw_data = place(tensor).read()
    return copy


def fill(tensor: onnx.TensorProto, array: Array) -> None:
    """Replace the values and the shape of a tensor; its other fields stay."""
    _clear(tensor)
    del tensor.dims[:]
    if tensor.data_type in _PACKED or tensor.data_type == onnx.TensorProto.STRING:
        tensor.MergeFrom(onnx.numpy_helper.from_array(array))
    else:
        tensor.dims.extend(array.shape)
        tensor.raw_data = array.tobytes()  # straight from the array: a copy less


def byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values by its shape and type; 0 for strings.

    Raises:
        ModelError: The type is unknown.
    """
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    bits: int = math.prod(tensor.dims) * _bits(tensor.data_type)
    return -(-bits // 8)


def _bits(kind: int) -> int:
    try:
        return _BITS.get(kind) or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except KeyError as error:
        raise ModelError(f"the model has the unknown element type {kind}") from error


def _clear(tensor: onnx.TensorProto) -> None:
    for name in _VALUES:
        tensor.ClearField(name)
    if is_reference(tensor):
        tensor.ClearField("data_location")


# --- models without their weights


def is_large(size: int) -> bool:
    """Whether so many bytes are better left where they are."""
    return size >= LARGE


def holds_much(model: onnx.ModelProto) -> bool:
    """Whether the large tensors that a model holds in memory weigh much."""
    held = sum(byte_size(tensor) for _, tensor in weights(model) if _is_held(tensor, LARGE))
    return held >= HEAVY


def weighs_much(model: onnx.ModelProto) -> bool:
    """Whether the weights do that a model holds or refers to."""
    return sum(byte_size(tensor) for _, tensor in weights(model)) >= HEAVY


def detached(
    model: onnx.ModelProto, least: int | None = None
) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """A copy with stubs in the place of large tensors, and those tensors by their names.

    Args:
        model: Any model; its references stay what they are.
        least: Bytes from which on a tensor is large; ``LARGE`` if None.
    """
    least = LARGE if least is None else least
    tensors = {name: tensor for name, tensor in weights(model) if _is_held(tensor, least)}
    copy = onnx.ModelProto()
    if not tensors:
        copy.CopyFrom(model)
        return copy, tensors
    _copy_fields(model, copy, "graph")
    _copy_fields(model.graph, copy.graph, "initializer", "node")
    for tensor in model.graph.initializer:
        _copy_tensor(tensor, copy.graph.initializer.add(), tensor.name, tensors)
    for node in model.graph.node:
        _copy_node(node, copy.graph.node.add(), tensors)
    return copy, tensors


def is_stub(tensor: onnx.TensorProto) -> bool:
    """Whether it stands for a tensor that was detached."""
    return is_reference(tensor) and entry(tensor, "location").startswith(_STUB)


def stubbed(tensor: onnx.TensorProto) -> str:
    """Name of the tensor that a stub stands for."""
    return entry(tensor, "location").removeprefix(_STUB)


def restore(model: onnx.ModelProto, tensors: Mapping[str, onnx.TensorProto]) -> None:
    """Put detached tensors in the place of their stubs."""
    for _, tensor in weights(model):
        if is_stub(tensor):
            tensor.CopyFrom(tensors[stubbed(tensor)])


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with graph inputs in the place of large weights where they weigh much.

    What onnx's checker says of it holds for the whole model, and it is small enough for it.
    """
    if not holds_much(model) and not any(is_reference(tensor) for _, tensor in weights(model)):
        return model
    frame, _ = detached(model)
    apart = {name: tensor for name, tensor in weights(frame) if is_reference(tensor)}
    listed = {info.name for info in frame.graph.input}
    for name, tensor in apart.items():
        if name not in listed:
            info = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            frame.graph.input.append(info)
    for initializer in [t for t in frame.graph.initializer if t.name in apart]:
        frame.graph.initializer.remove(initializer)
    for node in [n for n in frame.graph.node if n.output and n.output[0] in apart]:
        frame.graph.node.remove(node)
    return frame


def bring_in(
    model: onnx.ModelProto, names: Collection[str], tensors: Mapping[str, onnx.TensorProto]
) -> None:
    """Let a model hold some of its weights itself, whether it has references or stubs."""
    for name, tensor in weights(model):
        if name in names and is_reference(tensor):
            whole = tensors[stubbed(tensor)] if is_stub(tensor) else tensor
            tensor.CopyFrom(in_memory(whole))


def _is_held(tensor: onnx.TensorProto, least: int) -> bool:
    """Whether a tensor's bytes are in the model, and many."""
    return tensor.HasField("raw_data") and byte_size(tensor) >= least


def _copy_node(
    node: onnx.NodeProto, target: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]
) -> None:
    if constant_tensor(node) is None:
        target.CopyFrom(node)
        return
    _copy_fields(node, target, "attribute")
    for attribute in node.attribute:
        copy = target.attribute.add()
        _copy_fields(attribute, copy, "t")
        if attribute.HasField("t"):
            _copy_tensor(attribute.t, copy.t, node.output[0], tensors)


def _copy_tensor(
    tensor: onnx.TensorProto,
    target: onnx.TensorProto,
    name: str,
    tensors: Mapping[str, onnx.TensorProto],
) -> None:
    if name not in tensors:
        target.CopyFrom(tensor)
        return
    _copy_fields(tensor, target, "raw_data")
    refer(target, _STUB + name, 0, byte_size(tensor))


def _copy_fields(source: Any, target: Any, *left_out: str) -> None:
    """Copy all fields of a message but some, without copying those first."""
    for field, value in source.ListFields():
        if field.name in left_out:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
