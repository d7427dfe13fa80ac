"""A model that fills every field of the format that the checker and the runtime let pass."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, TypeProto, helper, numpy_helper

from zoo import Builder, Model, with_recorded_shapes

OPSET = 21
IR = min(onnx.IR_VERSION, 11)
LOCAL = "zoo.local"
TAG = b"\xc2\x3e\x06"  # field 1000, six bytes
"""How a later version of the format might begin a field."""


def everything() -> Model:
    """Two convolutions that can be cut; all optional fields say something."""
    b = Builder(opset=OPSET, ir=IR)
    x = b.relu(b.conv(b.input("N", 3, 6, 6), (3, 6)))
    kernel = b.constant(b.rng.standard_normal((4, 6, 3, 3)) * 0.2)
    x = b.relu(b.add("Conv", x, kernel, b.normal(4), pads=[1, 1, 1, 1]))
    x = b.add("Mul", x, b.add("Unsqueeze", b.normal(4), b.store([1, 2])))
    x = b.add(
        "Mul", x, b.add("Reshape", b.add("Constant", value_floats=[2.0] * 4), b.store([-1, 1, 1]))
    )
    x = b.head(x, (4, 3))
    branches = {f"{name}_branch": _branch(x, name) for name in ("then", "else")}
    x = b.add("If", b.store(np.bool_(True)), **branches)
    y = b.add("Twice", x, domain=LOCAL, overload="exact", factor=2.0)
    model = b.build(y, functions=[_twice(), _exotic()])
    model = with_recorded_shapes(model)
    _fill_nodes(model)
    _fill_graph(model.graph)
    _fill_model(model)
    return model


def messages(message: Message) -> Iterator[Message]:
    """A message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in value if isinstance(value, MutableSequence) else [value]:
                yield from messages(entry)


def stamped(model: Model) -> Model:
    """A copy with a field in every message that this version of the format doesn't know."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, message in enumerate([*messages(copy)]):
        message.MergeFromString(TAG + f"{number:06}".encode())
    return copy


# --- its parts ----------------------------------------------------------------------------------


def _branch(x: str, name: str) -> onnx.GraphProto:
    nodes = [helper.make_node("Neg" if name == "then" else "Abs", [x], [f"{name}_y"])]
    end = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N", 3])
    return helper.make_graph(nodes, name, [], [end], doc_string=f"the {name} branch")


def _twice() -> onnx.FunctionProto:
    """A function with an overload, attributes with and without a default, and records."""
    product = helper.make_node("Mul", ["a", "factor"], ["b"])
    factor = helper.make_node("Constant", [], ["factor"])
    factor.attribute.add(name="value_float", ref_attr_name="factor", type=AttributeProto.FLOAT)
    function = helper.make_function(
        LOCAL,
        "Twice",
        ["a"],
        ["b"],
        [factor, product],
        [helper.make_opsetid("", OPSET)],
        ["factor"],
        [helper.make_attribute("offset", 0.5)],
    )
    function.doc_string, function.overload = "a function", "exact"
    function.value_info.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    _note(function)
    return function


def _exotic() -> onnx.FunctionProto:
    """A function that nobody calls; its node has an attribute of every kind."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("zoo.other", 1)]
    node = helper.make_node("Strange", ["a"], ["b"], domain="zoo.other", **_attributes())
    return helper.make_function(LOCAL, "Exotic", ["a"], ["b"], [node], opsets)


def _attributes() -> dict[str, Any]:
    tensor_type = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3])
    sparse_type = helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [4])
    types = [
        helper.make_sequence_type_proto(tensor_type),
        helper.make_map_type_proto(TensorProto.INT64, tensor_type),
        helper.make_optional_type_proto(tensor_type),
        sparse_type,
        TypeProto(opaque_type=TypeProto.Opaque(domain="zoo", name="box")),
    ]
    graph = helper.make_graph([], "empty", [], [])
    return {
        "a_string": "text",
        "strings": ["one", "two"],
        "a_type": tensor_type,
        "types": types,
        "graphs": [graph, graph],
        "tensors": [*_tensors()],
        "a_sparse": _sparse("in"),
        "sparses": [_sparse("one"), _sparse("two")],
    }


def _tensors() -> Iterator[TensorProto]:
    """One for each way to store elements."""
    kinds = ("FLOAT", "INT32", "STRING", "INT64", "DOUBLE", "UINT64")
    for kind, values in zip(kinds, ([0.5], [1], [b"text"], [2], [0.25], [3]), strict=True):
        yield helper.make_tensor(kind, getattr(TensorProto, kind), [1], values)


def _sparse(name: str) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.asarray([0.5], np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.asarray([1])), [3])


def _fill_nodes(model: Model) -> None:
    for node in model.graph.node:
        _note(node)
        for attribute in node.attribute:
            attribute.doc_string = "an attribute"
    model.graph.node[0].ClearField("name")
    if hasattr(onnx, "NodeDeviceConfigurationProto"):
        _shard(model.graph.node[1])


def _shard(node: onnx.NodeProto) -> None:
    """Say on which devices a node runs."""
    placed = node.device_configurations.add(configuration_id="pair", pipeline_stage=1)
    spec = placed.sharding_spec.add(tensor_name=node.output[0], device=[0, -1])
    spec.index_to_device_group_map.add(key=-1, value=[0, 1])
    dim = spec.sharded_dim.add(axis=0)
    dim.simple_sharding.add(dim_param="N", num_shards=2)
    dim.simple_sharding.add(dim_value=8, num_shards=1)


def _fill_graph(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        info.doc_string = f"what is known of {info.name}"
        info.type.denotation = "TENSOR"
        _note(info)
        for number, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.denotation = "DATA_BATCH" if number == 0 else "DATA_FEATURE"
    for tensor in graph.initializer:
        tensor.data_location = TensorProto.DEFAULT
        _note(tensor)
    graph.sparse_initializer.append(_sparse("sparse"))
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"one", b"two"])
    graph.initializer.append(words)
    annotation = graph.quantization_annotation.add(tensor_name=graph.node[0].output[0])
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="words")
    _note(graph)


def _fill_model(model: Model) -> None:
    model.producer_version, model.domain, model.model_version = "1.2", "org.zoo", 7
    model.opset_import.append(helper.make_opsetid("zoo.unused", 3))
    _note(model)
    start = helper.make_node("Constant", [], ["fresh_words"], value_floats=[0.0])
    step = helper.make_node("Identity", ["words"], ["next_words"])
    training = model.training_info.add()
    training.initialization.CopyFrom(helper.make_graph([start], "start", [], []))
    training.algorithm.CopyFrom(helper.make_graph([step], "step", [], []))
    training.initialization_binding.add(key="words", value="fresh_words")
    training.update_binding.add(key="words", value="next_words")
    if hasattr(model, "configuration"):
        model.configuration.add(name="pair", num_devices=2, device=["one", "two"])


def _note(message: Any) -> None:
    """Metadata, where the version of onnx has them for this message."""
    if hasattr(message, "metadata_props"):
        message.metadata_props.add(key="origin", value=f"a {type(message).__name__}")
