"""Models in and out: checked when read, written whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from .errors import ModelError
from .files import atomic_file, claim, output_errors, replace
from .passes.shapes import value_info_shape
from .passes.weights import (
    byte_size,
    detached,
    files,
    holds_much,
    in_memory,
    is_large,
    is_reference,
    weights,
    without_weights,
)
from .types import TensorSpec
from .weight_files import file_size, read_model, resolve_external, write_pair, write_whole

_PROTOBUF_LIMIT = 2**31 - 2**20
_MAX_IR = 13
_MAX_OPSET = 26


@dataclass(frozen=True, eq=False)
class Model:
    """A model as read; large weights are left in its files and read from there when needed.

    ``sha256`` is that of the file (of the serialised proto, for a model in memory); where
    weights have files of their own, it covers them too. ``weight_files`` are those files.
    """

    proto: onnx.ModelProto
    sha256: str
    path: Path | None
    weight_files: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it was read from."""
        return (() if self.path is None else (self.path,)) + self.weight_files

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that have to be fed."""
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_spec(i) for i in self.proto.graph.input if i.name not in stored)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs."""
        return tuple(_spec(info) for info in self.proto.graph.output)


def load_model(source: str | Path | onnx.ModelProto | Model) -> Model:
    """Read and check a model.

    Raises:
        ModelError: The file is missing, no ONNX model, newer than the runtime, or invalid.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        _require_no_files(source)
        return _checked(Model(source, _digest(source), None))
    path = Path(source)
    proto = _read(path)
    _require_graph(proto, path)
    _require_known_versions(proto)
    weight_files = resolve_external(proto, path)
    return _checked(Model(proto, _sha256((path, *weight_files)), path, weight_files))


def save_model(
    proto: onnx.ModelProto, path: str | Path, *, force: bool = False, external_data: bool = False
) -> None:
    """Write a model atomically: a temporary file beside it, then a rename.

    Args:
        proto: The model; what it refers to in the files of its source is copied.
        path: The file.
        force: Whether files that exist may be replaced.
        external_data: Keep the weights in ``<path>.data``, but for small tensors. Models over
            2 GiB always do.

    Raises:
        OutputError: A file exists and ``force`` is off, is one that the model refers to, or
            can't be written.
        ModelError: A file that the model refers to has changed.
    """
    path = Path(path)
    outputs = output_files(proto, path, external_data=external_data)
    claim(outputs, files(proto), force=force)
    if len(outputs) > 1:
        _save_pair(proto, *outputs)
        return
    with atomic_file(path) as temporary:
        write_whole(proto, temporary)


def output_files(
    proto: onnx.ModelProto, path: Path, *, external_data: bool = False
) -> tuple[Path, ...]:
    """The files that saving a model of this size may write."""
    if external_data or file_size(proto) >= _PROTOBUF_LIMIT:
        return (path, path.with_name(path.name + ".data"))
    return (path,)


def with_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy that holds in memory what it refers to in files.

    Raises:
        ModelError: A file has changed.
    """
    if not files(proto):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for _, tensor in weights(copy):
        tensor.CopyFrom(in_memory(tensor))
    return copy


# --- reading


def _read(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise ModelError(f"there is no file '{path}'", "give the path of an .onnx file")
    if path.is_dir():
        raise ModelError(f"'{path}' is a directory", "give the path of an .onnx file")
    try:
        return read_model(path)
    except DecodeError as error:
        raise ModelError(
            f"'{path}' is no ONNX model, or it is truncated", "export or download it again"
        ) from error
    except OSError as error:
        raise ModelError(f"can't read '{path}': {error.strerror}") from error


def _require_graph(proto: onnx.ModelProto, path: Path) -> None:
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(
            f"'{path}' is no ONNX model: it has no graph", "export or download it again"
        )


def _require_known_versions(proto: onnx.ModelProto) -> None:
    if proto.ir_version > _MAX_IR:
        raise ModelError(
            f"the model has IR version {proto.ir_version}, ONNX Runtime reads up to {_MAX_IR}",
            "export it with an older onnx, or set model.ir_version after checking that it runs",
        )
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    if opset > _MAX_OPSET:
        raise ModelError(
            f"the model has opset {opset}, ONNX Runtime knows up to {_MAX_OPSET}",
            f"export it with opset {_MAX_OPSET} or below, or use onnx.version_converter",
        )


def _checked(model: Model) -> Model:
    _require_known_versions(model.proto)
    _require_whole(model.proto)
    try:
        onnx.checker.check_model(without_weights(model.proto))
    except Exception as error:  # the checker raises ValidationError, RuntimeError, …
        raise ModelError(
            f"the model is invalid: {_first_line(error)}", "export it again"
        ) from error
    return model


def _require_whole(proto: onnx.ModelProto) -> None:
    """Large tensors have as many bytes as their shapes say: the checker won't see them."""
    for name, tensor in weights(proto):
        needed = byte_size(tensor)
        if is_large(needed) and tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
            raise ModelError(
                f"the model is invalid: '{name}' has {len(tensor.raw_data)} bytes, "
                f"not the {needed} of its shape and type",
                "export it again",
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _spec(info: onnx.ValueInfoProto) -> TensorSpec:
    kind = info.type.tensor_type.elem_type
    if not info.type.HasField("tensor_type") or kind == onnx.TensorProto.UNDEFINED:
        return TensorSpec(info.name, "unknown", ())
    dtype = "str" if kind == onnx.TensorProto.STRING else _dtype_name(kind)
    return TensorSpec(info.name, dtype, value_info_shape(info) or ())


def _dtype_name(kind: int) -> str:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(kind).name
    except KeyError as error:
        raise ModelError(f"the model has the unknown element type {kind}") from error


def _sha256(files: Sequence[Path]) -> str:
    """Digest of a file; of several, the digest of their digests."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(proto: onnx.ModelProto) -> str:
    """Digest of a model in memory; of a heavy one, without serialising its weights."""
    frame, tensors = detached(proto) if holds_much(proto) else (proto, {})
    digest = hashlib.sha256(frame.SerializeToString(deterministic=True))
    for tensor in tensors.values():
        digest.update(tensor.raw_data)
    return digest.hexdigest()


def _require_no_files(proto: onnx.ModelProto) -> None:
    """A model in memory does not say where it comes from, and its paths were not checked."""
    if any(is_reference(tensor) for _, tensor in weights(proto)):
        raise ModelError(
            "the model in memory has its weights in other files",
            "give the path of its file, or load it with its weights",
        )


# --- writing


def _save_pair(proto: onnx.ModelProto, path: Path, data: Path) -> None:
    """Weights go to a file beside the model, which takes its place first."""
    with output_errors(path), tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        model, beside = Path(folder) / path.name, Path(folder) / data.name
        write_pair(proto, model, beside)
        if beside.stat().st_size:
            replace(beside, data)
        replace(model, path)
