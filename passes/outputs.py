"""A model that also returns inner tensors, or is fed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from onnx_shapprune.types import Array


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of the model with further outputs; their types are left to the runtime."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    for name in names:
        if name not in present:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def declare_inputs(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    """Give the inputs of a cut-off model the types of what they will be fed, sizes open."""
    for info in model.graph.input:
        if info.name in feeds and not info.HasField("type"):
            array = feeds[info.name]
            elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            shape = [None] * array.ndim
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, elem_type, shape))
