"""Shapes and dtypes of all tensors of a model, inferred without touching its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from onnx_shapprune.types import Dim, Shape

from .bodies import nested
from .weights import constant_tensor, is_reference

_LARGE = 1024
"""Constants with more elements than this never hold shapes: only their own shape is kept."""

_LONGEST = 2**24


@dataclass(frozen=True)
class TensorInfo:
    """ONNX element type (0: unknown) and shape (None: unknown rank); or a sequence of tensors."""

    elem_type: int
    shape: Shape | None
    is_sequence: bool = False


def infer_shapes(
    model: onnx.ModelProto, inputs: Mapping[str, Shape] | None = None, *, data_prop: bool = True
) -> dict[str, TensorInfo]:
    """Shape and dtype of every tensor that onnx's inference can tell.

    Args:
        model: Any model; it is not changed and its weights are not copied.
        inputs: Shapes to assume for graph inputs, e.g. those of the calibration data.
            Names that are not graph inputs are ignored.
        data_prop: Follow values through shape arithmetic, too. That is sometimes wrong.
    """
    skeleton = _skeleton(model, inputs or {})
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=data_prop)
    known = {info.name: _tensor_info(info) for info in model.graph.value_info}
    for graph in reversed(list(nested(inferred.graph))):
        known |= {info.name: _tensor_info(info) for info in _value_infos(graph)}
        known |= {t.name: TensorInfo(t.data_type, tuple(t.dims)) for t in graph.initializer}
    for info in model.graph.output:
        known[info.name] = _completed(known[info.name], _tensor_info(info))
    return known


def contradiction(model: onnx.ModelProto) -> str:
    """What inference finds wrong with shapes and types of the model; empty if nothing.

    Outputs that are recorded with a wrong shape do no harm: the runtime warns and goes on.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(model, {}), strict_mode=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        return " ".join(str(error).split())
    shapes = {info.name: value_info_shape(info) or () for info in _value_infos(inferred.graph)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    long = (name for name, shape in shapes.items() if len(shape) == 1 and _is_long(shape[0]))
    complaints = [f"'{name}' is a list without end" for name in long]
    complaints += [_misfit(node, shapes) for node in model.graph.node if node.op_type == "Conv"]
    return next(filter(None, complaints), "")


def _misfit(conv: onnx.NodeProto, shapes: Mapping[str, Shape]) -> str:
    """Whether a kernel has another number of channels than what it is for; empty if not.

    Inference does not look at that, and the runtime does only when it runs.
    """
    found, kernel = (shapes.get(name, ())[1:2] for name in conv.input[:2])
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    if not (found and kernel and isinstance(found[0], int) and isinstance(kernel[0], int)):
        return ""
    wanted = kernel[0] * groups
    if found[0] == wanted:
        return ""
    name = conv.name or conv.output[0]
    return f"Conv '{name}' takes {wanted} channels, its input '{conv.input[0]}' has {found[0]}"


def _is_long(size: Dim) -> bool:
    """Whether a list would fill the memory if its entries were followed, as inference does."""
    return isinstance(size, int) and size > _LONGEST


def _completed(found: TensorInfo, recorded: TensorInfo) -> TensorInfo:
    """What inference found of an output; what it left open as recorded in the model."""
    if found.shape is None or recorded.shape is None:
        shape = recorded.shape if found.shape is None else found.shape
    elif len(found.shape) == len(recorded.shape):
        shape = merged(found.shape, recorded.shape)
    else:
        shape = found.shape
    return TensorInfo(found.elem_type or recorded.elem_type, shape)


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
    skeleton.graph.output.extend(onnx.ValueInfoProto(name=o.name) for o in model.graph.output)
    return skeleton


def _copy_nodes(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    for node in source.node:
        tensor = constant_tensor(node)
        if tensor is not None and _is_large(tensor):
            target.input.append(_as_input(node.output[0], tensor))
        else:
            target.node.append(node)
            _spell_out(target.node[-1])


def _spell_out(node: onnx.NodeProto) -> None:
    """Inference takes a default inside of this operator for a missing attribute."""
    names = [attribute.name for attribute in node.attribute]
    if node.op_type == "MeanVarianceNormalization" and "axes" not in names:
        node.attribute.append(onnx.helper.make_attribute("axes", [0, 2, 3]))


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
    if info.type.HasField("sequence_type"):
        return TensorInfo(0, None, is_sequence=True)
    return TensorInfo(info.type.tensor_type.elem_type, value_info_shape(info))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value > 0:  # some exporters write -1 for "any"
        return int(dim.dim_value)
    return dim.dim_param or None
