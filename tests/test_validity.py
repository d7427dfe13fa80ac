"""Graph validity: each kind of damage has its sentence, and sound models have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from onnx_shapprune.errors import ModelError
from onnx_shapprune.model_io import load_model
from onnx_shapprune.passes.validity import check_parts, check_shapes
from zoo import ZOO

Model = onnx.ModelProto
Edit = Callable[[Model], object]


def weight(model: Model) -> TensorProto:
    """The first convolution's kernel."""
    return next(t for t in model.graph.initializer if t.name == "conv1.w")


def first(model: Model) -> onnx.NodeProto:
    """The first convolution."""
    return model.graph.node[0]


def functions(*calls: tuple[str, str]) -> Edit:
    """Local functions, each of which calls another one."""

    def apply(model: Model) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        for name, called in calls:
            node = helper.make_node(called, ["a"], ["b"], domain="local")
            made = helper.make_function("local", name, ["a"], ["b"], [node], opsets)
            model.functions.append(made)

    return apply


def nested(levels: int) -> Edit:
    """Bodies in bodies."""

    def apply(model: Model) -> None:
        graph = model.graph
        for _ in range(levels):
            node = graph.node.add(op_type="If", input=["condition"], output=["deep"])
            graph = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
            graph.name = "body"

    return apply


def sparse(*dims: int) -> Edit:
    """A sparse weight of this shape."""
    values = numpy_helper.from_array(np.ones(1, np.float32), "thin")
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    made = helper.make_sparse_tensor(values, indices, dims)
    return lambda model: model.graph.sparse_initializer.append(made)


PARTS: dict[str, tuple[Edit, str]] = {
    "an attribute twice": (
        lambda m: first(m).attribute.add().CopyFrom(first(m).attribute[0]),
        "Conv 'conv1' has the attribute 'pads' twice",
    ),
    "a reference": (
        lambda m: setattr(first(m).attribute[0], "ref_attr_name", "outer"),
        "an attribute 'pads' refers to that of a function, but is in none",
    ),
    "a mask's name made": (
        lambda m: first(m).output.append("kept of conv1"),
        "the name 'kept of conv1' is reserved for masks",
    ),
    "a mask's name fed": (
        lambda m: setattr(m.graph.input[0], "name", "kept of :1"),
        "the name 'kept of :1' is reserved for masks",
    ),
    "a mask's name stored": (
        lambda m: setattr(weight(m), "name", "kept of x"),
        "the name 'kept of x' is reserved for masks",
    ),
    "an element type of an input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99),
        "there is no element type 99",
    ),
    "an element type of a weight": (
        lambda m: setattr(weight(m), "data_type", 1 << 20),
        "the tensor 'conv1.w' has the unknown element type 1048576",
    ),
    "no element type": (
        lambda m: setattr(weight(m), "data_type", 0),
        "the tensor 'conv1.w' has the unknown element type 0",
    ),
    "a negative size": (
        lambda m: weight(m).dims.__setitem__(0, -6),
        "the tensor 'conv1.w' has a negative size: [-6, 2, 3, 3]",
    ),
    "a segment": (
        lambda m: setattr(weight(m).segment, "begin", 1),
        "the tensor 'conv1.w' is stored in segments, which nothing reads",
    ),
    "too few bytes": (
        lambda m: setattr(weight(m), "raw_data", weight(m).raw_data[:-1]),
        "the tensor 'conv1.w' has 431 bytes, its shape [6, 2, 3, 3] needs 432",
    ),
    "sizes beyond 64 bits": (
        lambda m: weight(m).dims.extend([2**40, 2**40]),
        "the tensor 'conv1.w' has 432 bytes, its shape",
    ),
    "no values": (
        lambda m: weight(m).ClearField("raw_data"),
        "the tensor 'conv1.w' has 0 values, its shape [6, 2, 3, 3] needs 108",
    ),
    "a function that calls itself": (functions(("A", "A")), "the local function 'A' calls itself"),
    "functions in a ring": (functions(("A", "B"), ("B", "A")), "calls itself"),
    "deep bodies": (nested(17), "its nodes have bodies in bodies, 17 deep or more"),
    "a sparse tensor without end": (
        sparse(2**40),
        "there is no sparse tensor of the shape [1099511627776]",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_damage_has_a_sentence(name: str) -> None:
    damage, sentence = PARTS[name]
    model = models.sequential()
    damage(model)
    with pytest.raises(ModelError) as caught:
        check_parts(model)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("the model is invalid: ")
    assert "export it again" in caught.value.hint


@pytest.mark.parametrize("name", ["conv1", "conv1.w", "BatchNormalization", "c2", "pads", "tiny"])
def test_a_text_that_is_no_text(name: str) -> None:
    """Equally long, so that all else stays what it is."""
    content = models.sequential().SerializeToString()
    wrong = b"\xff" * len(name)
    model = Model()
    model.ParseFromString(content.replace(name.encode(), wrong))
    with pytest.raises(ModelError, match=r"a \w+ is no text: b'\\xff"):
        load_model(model)


@pytest.mark.parametrize(
    "edit",
    [
        nested(16),
        functions(("A", "B"), ("B", "C")),
        sparse(4),
        lambda m: weight(m).CopyFrom(helper.make_tensor("conv1.w", 1, [2], [0.5, 0.5])),
        lambda m: weight(m).CopyFrom(helper.make_tensor("conv1.w", 14, [2], [1j, 2j])),
        lambda m: weight(m).CopyFrom(helper.make_tensor("conv1.w", 10, [3], [1.0, 2.0, 3.0])),
        lambda m: weight(m).CopyFrom(helper.make_tensor("conv1.w", 8, [1], [b"word"])),
        lambda m: weight(m).CopyFrom(helper.make_tensor("conv1.w", 22, [3], [1, 2, 3])),
        lambda m: weight(m).CopyFrom(numpy_helper.from_array(np.zeros((0, 3), np.int8), "z")),
    ],
)
def test_unusual_parts_are_no_damage(edit: Edit) -> None:
    model = models.sequential()
    edit(model)
    check_parts(model)


def test_a_function_may_refer_to_its_attributes() -> None:
    check_parts(ZOO["local_function"].build())
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_function("local", "Leaky", ["a"], ["b"], [node], opsets, ["slope"])
    model = models.sequential()
    model.functions.append(made)
    check_parts(model)


SHAPES: dict[str, tuple[Edit, str]] = {
    "a kernel for other inputs": (
        lambda m: weight(m).CopyFrom(
            numpy_helper.from_array(np.ones((6, 5, 3, 3), np.float32), "conv1.w")
        ),
        "Conv 'conv1' takes 5 channels, its input 'x' has 2",
    ),
    "a kernel of one axis": (
        lambda m: weight(m).CopyFrom(numpy_helper.from_array(np.ones(6, np.float32), "conv1.w")),
        "(op_type:Conv, node name: conv1)",
    ),
    "no groups": (
        lambda m: first(m).attribute.append(helper.make_attribute("group", 0)),
        "Conv 'conv1' takes 0 channels, its input 'x' has 2",
    ),
    "a list without end": (
        lambda m: (
            m.graph.initializer.append(numpy_helper.from_array(np.array([2**40]), "count")),
            m.graph.node.append(helper.make_node("ConstantOfShape", ["count"], ["endless"])),
        ),
        "'endless' is a list without end",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_does_not_fit_together_is_told(name: str) -> None:
    damage, sentence = SHAPES[name]
    model = models.sequential()
    damage(model)
    with pytest.raises(ModelError) as caught:
        check_shapes(model)
    assert "its operators don't fit together: " in str(caught.value)
    assert sentence in str(caught.value)


def test_wrong_recorded_outputs_are_no_damage() -> None:
    """The runtime warns of them and goes on."""
    model = models.sequential()
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 7
    load_model(model)


def test_defaults_that_onnx_trips_over_are_no_damage() -> None:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"])
    model = models.model([node], [], ("N", *models.SHAPE))
    load_model(model)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_zoo_is_sound(name: str) -> None:
    model = ZOO[name].build()
    check_parts(model)
    check_shapes(model)
