"""Weights in files: left there when a model is read, streamed when one is written."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import onnx

from .errors import ModelError
from .passes import weights
from .passes.weights import Stretch
from .wire import (
    ELSEWHERE,
    RAW_DATA,
    Buffer,
    Content,
    Malformed,
    Piece,
    fields,
    length_field,
    rewritten,
    size,
    write,
)

LEAST_BESIDE = 1024
"""Bytes from which on a tensor goes to the data file, as in onnx itself."""

_PAGE = 4096
_WORD = 64


# --- reading


def read_model(path: Path) -> onnx.ModelProto:
    """Parse a model; large tensors of a heavy file become references into it.

    Raises:
        DecodeError: It is no model.
        OSError: It can't be read.
    """
    if path.stat().st_size < weights.HEAVY:
        return _parsed(path.read_bytes())
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        return _parsed(_frame(data, path.resolve()))


def resolve_external(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Check where external weights are and let them be found from anywhere; their files.

    Large constants of the top-level graph become references, all other tensors come in.

    Raises:
        ModelError: A file is missing, out of the model's folder, or too short.
    """
    folder, own = path.absolute().parent.resolve(), path.resolve()
    files: dict[Path, None] = {}
    for tensor, may_stay in _stored_tensors(model):
        if weights.is_reference(tensor):
            place = _checked_place(tensor, folder, own)
            files[place.path] = None
            _settle(tensor, place, stays=may_stay and weights.is_large(place.length))
    return tuple(file for file in files if file != own)


def _parsed(content: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(content)
    return model


def _frame(data: memoryview, path: Path) -> bytes:
    """A serialised model with references in the place of its large tensors."""
    try:
        pieces = rewritten(data, partial(_as_reference, path))
    except Malformed:
        return bytes(data)  # the parser will say what is wrong
    return b"".join(piece for piece in pieces if not isinstance(piece, Content))


def _as_reference(path: Path, data: Buffer, start: int, end: int) -> list[Piece] | None:
    """The tensor in ``data[start:end]`` without its values; None if it is better left alone."""
    found = list(fields(data, start, end))
    raw = [field for field in found if field.number == RAW_DATA]
    if len(raw) != 1 or any(field.number in ELSEWHERE for field in found):
        return None
    offset, length = raw[0].content, raw[0].end - raw[0].content
    if not weights.is_large(length):
        return None
    head = b"".join(bytes(data[f.start : f.end]) for f in found if f.number != RAW_DATA)
    tensor = onnx.TensorProto.FromString(head)
    if weights.byte_size(tensor) != length:
        return None
    weights.refer(tensor, str(path), offset, length)
    return [tensor.SerializeToString()]


def _stored_tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """All tensors of a model, and whether they are dense constants of its top-level graph."""
    for tensor in model.graph.initializer:
        yield tensor, True
    for node in model.graph.node:
        yield from _in_attributes(node, top=True)
    for node in (node for function in model.functions for node in function.node):
        yield from _in_attributes(node, top=False)
    yield from ((tensor, False) for tensor in _sparse(model.graph))


def _in_attributes(node: onnx.NodeProto, *, top: bool) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Tensors in a node's attributes and in its bodies."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t, top and node.op_type == "Constant" and attribute.name == "value"
        yield from ((tensor, False) for tensor in attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from ((tensor, False) for tensor in (*body.initializer, *_sparse(body)))
            for inner in body.node:
                yield from _in_attributes(inner, top=False)


def _sparse(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for tensor in graph.sparse_initializer:
        yield from (tensor.values, tensor.indices)


def _settle(tensor: onnx.TensorProto, place: Stretch, *, stays: bool) -> None:
    """Let a checked tensor refer to its place by a path that is valid everywhere, or come in."""
    if stays:
        weights.refer(tensor, str(place.path), place.offset, place.length)
    else:
        tensor.raw_data = place.read()
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _checked_place(tensor: onnx.TensorProto, folder: Path, own: Path) -> Stretch:
    """Where the values of an external tensor are: in the model's folder, and all of them."""
    path = _path(tensor, folder, own)
    offset, length = _number(tensor, "offset", 0), weights.byte_size(tensor)
    if _number(tensor, "length", length) != length or tensor.data_type == onnx.TensorProto.STRING:
        raise _unreadable(tensor, f"a tensor of its type and shape has {length} bytes")
    there = path.stat().st_size
    if there < offset + length:
        raise _unreadable(tensor, f"'{path.name}' has {there} bytes, not {offset + length}")
    return Stretch(path, offset, length)


def _path(tensor: onnx.TensorProto, folder: Path, own: Path) -> Path:
    location = weights.entry(tensor, "location")
    path = (folder / location).resolve()
    if path == own:
        return path
    if Path(location).is_absolute() or not path.is_relative_to(folder):
        raise ModelError(
            f"the weights of '{tensor.name}' are stored in '{location}', "
            "outside of the model's folder",
            "put the file beside the model and let the model name it without a path",
        )
    if not path.is_file():
        raise ModelError(
            f"the weights of '{tensor.name}' are missing: there is no file '{location}' "
            "beside the model",
            "copy the external data file too",
        )
    return path


def _number(tensor: onnx.TensorProto, key: str, default: int) -> int:
    text = weights.entry(tensor, key)
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise _unreadable(tensor, f"its {key} is '{text}'")
    return int(text)


def _unreadable(tensor: onnx.TensorProto, reason: str) -> ModelError:
    return ModelError(
        f"the external weights can't be read: '{tensor.name}': {reason}",
        "copy the external data file again",
    )


# --- writing


def file_size(model: onnx.ModelProto) -> int:
    """Bytes of a model as one file, with everything that it refers to."""
    return size(_pieces(model)) if _is_apart(model) else model.ByteSize()


def write_whole(model: onnx.ModelProto, path: Path) -> None:
    """Write a model as one file, tensor by tensor if it is heavy.

    Raises:
        OSError, EncodeError: It can't be written, or is too large for one file.
    """
    if not _is_apart(model):
        path.write_bytes(model.SerializeToString())
        return
    with path.open("wb") as file:
        write(_pieces(model), file)


def write_pair(model: onnx.ModelProto, path: Path, data: Path) -> None:
    """Write a model with the weights of its top-level graph in a file beside it.

    Small tensors stay in the model, which is not changed.

    Raises:
        OSError, EncodeError: It can't be written.
    """
    frame, tensors = weights.detached(model, LEAST_BESIDE)
    with data.open("wb") as file:
        for _, tensor in weights.weights(frame):
            if weights.is_reference(tensor):
                content = _content(tensor, tensors)
                _align(file, content.length)
                weights.refer(tensor, data.name, file.tell(), content.length)
                content.write(file)
    path.write_bytes(frame.SerializeToString())


def _is_apart(model: onnx.ModelProto) -> bool:
    """Whether weights are elsewhere, or better not serialised with the rest."""
    return bool(weights.files(model)) or weights.holds_much(model)


def _pieces(model: onnx.ModelProto) -> list[Piece]:
    frame, tensors = weights.detached(model)
    return rewritten(frame.SerializeToString(), partial(_as_content, tensors))


def _as_content(
    tensors: Mapping[str, onnx.TensorProto], data: Buffer, start: int, end: int
) -> list[Piece] | None:
    """A reference or a stub in ``data[start:end]`` with its values; None if it is neither."""
    tensor = onnx.TensorProto.FromString(bytes(data[start:end]))
    if not weights.is_reference(tensor):
        return None
    content = _content(tensor, tensors)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    return [tensor.SerializeToString(), length_field(RAW_DATA, content.length), content]


def _content(tensor: onnx.TensorProto, tensors: Mapping[str, onnx.TensorProto]) -> Content:
    """What a reference or a stub stands for."""
    if weights.is_stub(tensor):
        whole = tensors[weights.stubbed(tensor)]
        return Content(weights.byte_size(whole), lambda file: file.write(whole.raw_data))
    place = weights.place(tensor)
    return Content(place.length, lambda file: file.writelines(place.chunks()))


def _align(file: BinaryIO, length: int) -> None:
    """Start large tensors at a page, so that they can be mapped, others at a word."""
    step = _PAGE if weights.is_large(length) else _WORD
    file.write(bytes(-file.tell() % step))
