"""Shapes and dtypes of all tensors of a model, inferred without touching its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from onnx_shapprune.types import Dim, Shape

from .weights import constant_tensor, is_reference

_LARGE = 1024
"""Constants with more elements than this never hold shapes: only their own shape is kept."""


@dataclass(frozen=True)
class TensorInfo:
    """ONNX element type (0: unknown) and shape (None: unknown rank)."""

    elem_type: int
    shape: Shape | None


def infer_shapes(
    model: onnx.ModelProto, inputs: Mapping[str, Shape] | None = None
) -> dict[str, TensorInfo]:
    """Shape and dtype of every tensor that onnx's inference can tell.

    Args:
        model: Any model; it is not changed and its weights are not copied.
        inputs: Shapes to assume for graph inputs, e.g. those of the calibration data.
            Names that are not graph inputs are ignored.
    """
    stripped = _skeleton(model, inputs or {})
    inferred = onnx.shape_inference.infer_shapes(stripped, data_prop=True)
    known = {info.name: _tensor_info(info) for info in model.graph.value_info}
    known |= {info.name: _tensor_info(info) for info in _value_infos(inferred.graph)}
    known |= {t.name: TensorInfo(t.data_type, tuple(t.dims)) for t in inferred.graph.initializer}
    return known


def bound_shape(shape: Shape, dims: Mapping[str, int]) -> Shape:
    """The shape with symbolic dimensions replaced by the numbers given for their names."""
    return tuple(dims.get(d, d) if isinstance(d, str) else d for d in shape)


def merged(known: Shape | None, observed: Shape) -> Shape:
    """A shape with its unknown sizes filled in; what is known stays."""
    if known is None or len(known) != len(observed):
        return observed
    return tuple(a if isinstance(a, int) else b or a for a, b in zip(known, observed, strict=True))


def static_size(dims: Iterable[Dim]) -> int | None:
    """Product of the dimensions, or None if one is not a number."""
    size = 1
    for dim in dims:
        if not isinstance(dim, int):
            return None
        size *= dim
    return size


def value_info_shape(info: onnx.ValueInfoProto) -> Shape | None:
    """Shape of a graph input, output or value_info; None if not even the rank is known."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in info.type.tensor_type.shape.dim)


def _skeleton(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> onnx.ModelProto:
    """The model with its large constants turned into inputs of the same shape."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    _copy_nodes(model.graph, skeleton.graph)
    _copy_initializers(model.graph, skeleton.graph)
    _copy_inputs(model.graph, skeleton.graph, inputs)
    skeleton.graph.output.extend(model.graph.output)
    return skeleton


def _copy_nodes(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    for node in source.node:
        tensor = constant_tensor(node)
        if tensor is not None and _is_large(tensor):
            target.input.append(_as_input(node.output[0], tensor))
        else:
            target.node.append(node)


def _copy_initializers(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    target.sparse_initializer.extend(source.sparse_initializer)
    for tensor in source.initializer:
        if _is_large(tensor):
            target.input.append(_as_input(tensor.name, tensor))
        else:
            target.initializer.append(tensor)


def _copy_inputs(
    source: onnx.GraphProto, target: onnx.GraphProto, shapes: Mapping[str, Shape]
) -> None:
    taken = {info.name for info in target.input}
    for info in source.input:
        if info.name in taken:
            continue
        target.input.append(info)
        if info.name in shapes:
            _set_shape(target.input[-1], shapes[info.name])


def _set_shape(info: onnx.ValueInfoProto, shape: Shape) -> None:
    elem_type = info.type.tensor_type.elem_type
    info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, elem_type, shape))


def _is_large(tensor: onnx.TensorProto) -> bool:
    return is_reference(tensor) or (static_size(tensor.dims) or 0) > _LARGE


def _as_input(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))


def _value_infos(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.value_info, *graph.output]


def _tensor_info(info: onnx.ValueInfoProto) -> TensorInfo:
    return TensorInfo(info.type.tensor_type.elem_type, value_info_shape(info))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value > 0:  # some exporters write -1 for "any"
        return int(dim.dim_value)
    return dim.dim_param or None
