"""Models in and out: checked when read, written whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import (
    load_external_data_for_model,
    set_external_data,
    uses_external_data,
)

from .errors import ModelError
from .files import atomic_file, claim, output_errors, replace
from .passes.shapes import value_info_shape
from .passes.validity import check_parts, check_shapes, check_values
from .types import TensorSpec

_PROTOBUF_LIMIT = 2**31 - 2**20
_MAX_IR = 13
_MAX_OPSET = 26


@dataclass(frozen=True, eq=False)
class Model:
    """A model as read, its weights in memory.

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
        digest = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        _require_known_versions(source)
        check_parts(source)
        return _checked(Model(source, digest, None))
    path = Path(source)
    proto = _read(path)
    _require_graph(proto, path)
    _require_known_versions(proto)
    check_parts(proto)
    weight_files = _load_external_data(proto, path)
    return _checked(Model(proto, _sha256((path, *weight_files)), path, weight_files))


def save_model(proto: onnx.ModelProto, path: str | Path, *, force: bool = False) -> None:
    """Write a model atomically: a temporary file beside it, then a rename.

    Models over 2 GiB keep their weights in ``<path>.data``.

    Raises:
        OutputError: The path exists and ``force`` is off, or can't be written.
    """
    path = Path(path)
    files = output_files(proto, path)
    claim(files, force=force)
    if len(files) > 1:
        _save_large(proto, *files)
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def output_files(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The files that saving a model of this size may write."""
    return (path, _data_path(path)) if proto.ByteSize() >= _PROTOBUF_LIMIT else (path,)


# --- reading


def _read(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise ModelError(f"there is no file '{path}'", "give the path of an .onnx file")
    if path.is_dir():
        raise ModelError(f"'{path}' is a directory", "give the path of an .onnx file")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(
            f"'{path}' is no ONNX model, or it is truncated", "export or download it again"
        ) from error
    except OSError as error:
        raise ModelError(f"can't read '{path}': {error.strerror}") from error
    return proto


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


def _load_external_data(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Bring external weights in; the files they were in. Paths out of the folder are refused."""
    folder = path.absolute().parent.resolve()
    external = [t for t in _stored_tensors(proto.graph) if uses_external_data(t)]
    for tensor in external:
        _require_inside(tensor, folder)
    files = tuple(dict.fromkeys(folder / _location(tensor) for tensor in external))
    try:
        load_external_data_for_model(proto, str(folder))
    except Exception as error:  # onnx raises several unrelated kinds
        raise ModelError(
            f"the external weights can't be read: {_first_line(error)}",
            "copy the external data file again",
        ) from error
    check_values(external)
    return files


def _stored_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and tensor attributes, those in bodies of nodes included."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        for body in (attribute.g, *attribute.graphs):
            yield from _stored_tensors(body)


def _require_inside(tensor: onnx.TensorProto, folder: Path) -> None:
    location = _location(tensor)
    target = (folder / location).resolve()
    if Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(
            f"the weights of '{tensor.name}' are stored in '{location}', "
            "outside of the model's folder",
            "put the file beside the model and let the model name it without a path",
        )
    if not target.is_file():
        raise ModelError(
            f"the weights of '{tensor.name}' are missing: there is no file '{location}' "
            "beside the model",
            "copy the external data file too",
        )


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _checked(model: Model) -> Model:
    """The model, if onnx's checker and shape inference have nothing against it."""
    if model.proto.ByteSize() >= _PROTOBUF_LIMIT:
        return model  # onnx's checker can't take it; the runtime will check it
    try:
        onnx.checker.check_model(model.proto)
    except Exception as error:  # the checker raises ValidationError, RuntimeError, …
        raise ModelError(
            f"the model is invalid: {_first_line(error)}", "export it again"
        ) from error
    check_shapes(model.proto)
    return model


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


# --- writing


def _save_large(proto: onnx.ModelProto, path: Path, data: Path) -> None:
    """Weights go to a file beside the model, which takes its place first."""
    with output_errors(path), tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        temporary = Path(folder) / path.name
        save_with_weights_beside(proto, temporary)
        replace(temporary.with_name(data.name), data)
        replace(temporary, path)


def save_with_weights_beside(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model of any size, its initializers in ``<path>.data``; ``proto`` stays as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.HasField("raw_data"):
            set_external_data(tensor, _data_path(path).name)
    onnx.save(copy, path)


def _data_path(path: Path) -> Path:
    return path.with_name(path.name + ".data")
