"""What `inspect` knows and shows: complete as data, readable as a tree."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper

import models
from onnx_shapprune.inspection import CutInfo, FollowInfo, Inspection, inspect_model
from onnx_shapprune.model_io import load_model
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.tree import Order, show_inspection
from zoo import ZOO, Builder, Model

SCHEMA = json.loads(
    (Path(__file__).parents[1] / "docs/inspection.schema.json").read_text(encoding="utf-8")
)

ORDERS: tuple[Order, Order] = ("graph", "cost")

each_net = pytest.mark.parametrize("name", sorted(ZOO))


@cache
def inspected(name: str) -> Inspection:
    """A net of the zoo, its sizes bound."""
    return inspect_model(load_model(ZOO[name].build()), ZOO[name].dims)


def shown(found: Inspection, *, order: Order = "graph", verbose: bool = False) -> str:
    """What people see where no terminal is."""
    stream = io.StringIO()
    show_inspection(found, stream, order=order, verbose=verbose)
    return stream.getvalue()


def of(model: Model) -> Inspection:
    """Inspection of a model."""
    return inspect_model(load_model(model))


# --- as data ------------------------------------------------------------------------------------


@each_net
def test_json_is_as_the_schema_says(name: str) -> None:
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(inspected(name).to_json())))


@each_net
def test_layers_are_where_the_multiplications_are(name: str) -> None:
    found = inspected(name)
    if found.macs_known:
        assert sum(layer.macs or 0 for layer in found.layers) == found.cost.macs
    else:
        assert {layer.macs for layer in found.layers} == {None}


@each_net
def test_members_are_layers_and_know_their_groups(name: str) -> None:
    found = inspected(name)
    layers = {layer.name: layer for layer in found.layers}
    assert len(layers) == len(found.layers)
    for group in found.groups:
        assert [group.name in layers[member].groups for member in group.members]
        assert len(group.channels) == group.players
        assert min(group.channels) >= 1
    claimed = {(layer.name, group) for layer in found.layers for group in layer.groups}
    assert claimed == {(member, group.name) for group in found.groups for member in group.members}


@each_net
def test_cuts_name_what_there_is(name: str) -> None:
    graph, found = Graph(ZOO[name].build()), inspected(name)
    tensors = {x for n in graph.nodes.values() for x in (*n.input, *n.output)}
    nodes = {n.name or n.output[0] for n in graph.nodes.values()}
    for group in found.groups:
        for cut in (*group.widths, *group.weights, *group.indices, *group.reads):
            assert cut.tensor in tensors
            assert set(cut.readers) <= nodes
            assert 1 <= cut.cut <= cut.width
        assert all(cut.readers for cut in (*group.weights, *group.indices, *group.reads))
        for follow in group.follows:
            assert follow.node in nodes
            assert (follow.attribute is None) != (follow.input is None)


def test_group_worked_out_by_hand() -> None:
    """Four channels of a convolution pass a depthwise one, beside three others."""
    group = inspected("concat_depthwise").groups[0]
    assert group.members == ("Conv_0", "Conv_7")
    assert group.channels == (2, 2, 2, 2)
    assert group.reads == (CutInfo("t8", 1, 7, 4, ("Conv_9",)),)
    assert group.follows == (FollowInfo("Conv_7", "group", None, None),)
    assert CutInfo("c0", 0, 4, 4, ("Conv_0",)) in group.weights
    assert CutInfo("c12", 0, 7, 4, ("Conv_7",)) in group.weights
    assert CutInfo("t6", 1, 7, 4, ()) in group.widths


def test_stored_numbers_follow_by_hand() -> None:
    group = inspected("reshape_stored_width").groups[0]
    assert {(f.attribute, f.entry) for f in group.follows} == {(None, 1)}


def test_layers_worked_out_by_hand() -> None:
    conv, *_, gemm = inspected("sequential").layers
    assert (conv.name, conv.op_type, conv.groups) == ("Conv_0", "Conv", ("Conv_0",))
    assert (conv.macs, conv.parameters) == (8 * 8 * 6 * 3 * 9, 6 * 3 * 9 + 6)
    assert (gemm.op_type, gemm.macs, gemm.parameters, gemm.groups) == ("Gemm", 12, 15, ())


def test_parameters_behind_other_forms_count() -> None:
    """Weights that are cast and scaled on the way belong to the layer; indices do not."""
    b = Builder()
    kernel = b.add("Mul", b.kernel((3, 5), 1), b.uniform(5, 1, 1, 1))
    kernel = b.add("Reshape", kernel, b.store([5, 3, 1, 1]))
    x = b.add("Conv", b.input("N", 3, 4, 4), kernel)
    (conv, _) = of(b.build(b.head(b.relu(x), (5, 3)))).layers
    assert conv.parameters == 15 + 5


def test_convolutions_in_bodies_count_as_convolutions() -> None:
    found = of(body_of_convolution())
    assert (found.convolutions.total, found.convolutions.prunable) == (2, 1)
    assert found.convolutions.macs == found.layers[0].macs


def body_of_convolution(other: str = "b") -> Model:
    """A convolution, and another in the branches of an If (one has none)."""
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 4, 4), (3, 5)))
    logits = b.head(x, (5, 3))
    picture = b.add("Reshape", logits, b.store([-1, 3, 1, 1]))
    kernel = b.kernel((3, 3), 1)
    bodies = {}
    for branch, node in (
        ("then_branch", helper.make_node("Conv", [picture, kernel], ["a"], name="inner")),
        ("else_branch", helper.make_node("Identity", [picture], [other])),
    ):
        end = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        bodies[branch] = helper.make_graph([node], branch, [], [end])
    y = b.add("If", b.store(np.bool_(True)), **bodies)
    return b.build(b.add("Flatten", y))


def test_equal_names_are_told_apart() -> None:
    model = ZOO["sequential"].build()
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.name = "same"
    found = of(model)
    assert [layer.name for layer in found.layers[:3]] == ["same", "same#2", "same#3"]
    assert [layer.macs for layer in found.layers[:3]] == [
        layer.macs for layer in inspected("sequential").layers[:3]
    ]


# --- as a tree ----------------------------------------------------------------------------------

SKIP = """
model         tiny (opset 17)
sha256        -
input         x float32 [N, 2, 6, 6]
output        y float32 [N, 3]
MACs          23,346
parameters    669
bytes         -
convolutions  3 of 3 can be cut, with 99.9 % of the MACs

can be cut: 2 groups, 11 players
├── stem: 6 players of 2 channels, up to 19,455 MACs (83.3 %), 555 parameters (83.0 %)
│   ├── stem   Conv   3,888 MACs  16.7 %  108 parameters
│   └── outer  Conv   9,720 MACs  41.6 %  270 parameters
└── inner: 5 players of 1 channel, up to 15,552 MACs (66.6 %), 432 parameters (64.6 %)
    └── inner  Conv   9,720 MACs  41.6 %  270 parameters

left alone
└── its channels are the model's output 'y': 18 MACs (0.1 %)
    └── fc     Gemm      18 MACs   0.1 %   21 parameters

up to: what goes if a single player of the group stays; a player is a set of channels that
only leave together. --exclude NAME keeps the channels of a node, -v shows what is cut.
"""


@pytest.fixture
def skip(tmp_path: Path) -> Inspection:
    """The net with a skip connection."""
    models.workplace(tmp_path)
    return of(onnx.load(tmp_path / "skip.onnx"))


def test_tree(skip: Inspection) -> None:
    text = re.sub(r"(sha256|bytes)( +).*", r"\1\2-", shown(skip))
    assert text == SKIP.lstrip("\n")


@each_net
def test_no_line_ends_in_spaces_and_all_groups_are_there(name: str) -> None:
    text = shown(inspected(name), verbose=True)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    for group in inspected(name).groups:
        assert f"─ {group.name}: {group.players} players of " in text


def test_terminal_shows_the_same_in_bold(skip: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    show_inspection(skip, stream)
    assert "\x1b[1m" in stream.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()) == shown(skip)


def test_the_dearest_come_first_if_asked() -> None:
    found = inspected("dense")
    by_graph, by_cost = (
        re.findall(r"─ (\w+): \d+ players", shown(found, order=order)) for order in ORDERS
    )
    assert by_graph == ["Conv_0", "Conv_4", "Conv_10"]
    assert by_cost == ["Conv_10", "Conv_0", "Conv_4"]


def test_verbose_says_what_a_cut_touches() -> None:
    found = inspected("concat_depthwise")
    text = shown(found, verbose=True)
    for line in (
        "'c0' axis 0 (4), read by Conv_0",
        "'c12' axis 0 (4 of 7), read by Conv_7",
        "attribute 'group' of Conv_7",
        "'t6' axis 1 (4 of 7)",
        "'t8' axis 1 (4 of 7), by Conv_9",
    ):
        assert f"─ {line}\n" in text
        assert line not in shown(found)
    assert "input 'c6' of Reshape" in shown(inspected("reshape_stored_width"), verbose=True)


def chain(length: int) -> Model:
    """Many convolutions, all tied by sums."""
    b = Builder()
    x = b.conv(b.input("N", 3, 4, 4), (3, 4))
    for _ in range(length):
        x = b.add("Add", x, b.conv(b.relu(x), (4, 4)))
    return b.build(b.head(b.relu(x), (4, 3)))


def test_long_lists_are_shortened() -> None:
    found = of(chain(9))
    assert "─ … 4 more (-v shows all)\n" in shown(found)
    assert "more (-v" not in shown(found, verbose=True)
    assert all(f"─ {layer.name} " in shown(found, verbose=True) for layer in found.layers)
    assert "more (-v" not in shown(of(chain(6)))  # a line for one more is no shorter


def test_reasons_that_differ_in_names_are_one() -> None:
    """Convolutions whose weights are computed, each by another node."""
    b = Builder()
    ends = [
        b.add(
            "Conv", b.input("N", 3, 4, 4, name=f"x{i}"), b.add("RandomNormal", shape=[5, 3, 3, 3])
        )
        for i in range(3)
    ]
    found = of(b.build(*ends))
    reasons = {skipped.reason for skipped in found.skipped if "computed by" in skipped.reason}
    assert len(reasons) == 3
    few, everything = shown(found), shown(found, verbose=True)
    assert few.count("its weight '…' is computed by RandomNormal '…'") == 1
    assert all(reason in everything and reason not in few for reason in reasons)


def test_what_locks_a_part_of_a_group_is_said_there() -> None:
    """One depthwise convolution passes channels on that can leave, and some that can't."""
    b = Builder()
    one, other = (b.relu(b.conv(b.input("N", 3, 4, 4, name=n), (3, 4))) for n in "xy")
    x = b.depthwise(b.add("Concat", one, other, axis=1), 8)
    found = of(b.build(b.head(x, (8, 3)), other))
    text = shown(found)
    (line,) = [line for line in text.splitlines() if "in part: " in line]
    assert "its channels are the model's output" in line


def test_layers_that_nothing_is_known_of_are_shown_too() -> None:
    b = Builder()
    x = b.add("MatMul", b.input("N", 3, 4), b.input("N", 4, 5, name="other"))
    text = shown(of(b.build(x)))
    assert "nothing can be cut\n" in text
    assert "left alone, as no channels are followed there\n└── MatMul_0  MatMul  60 MACs" in text
    assert "convolutions" not in text


def test_bodies_are_said_not_to_count() -> None:
    text = shown(of(body_of_convolution(other="a")))
    assert re.search(r"^MACs +[\d,]+, without those in bodies of nodes$", text, re.MULTILINE)
    assert "inner" in re.search(r"If '\w+' holds\n *└── (.*)", text)[1]  # type: ignore[index]


def test_open_sizes_say_how_to_close_them() -> None:
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, "height", "width"), (3, 5)))
    text = shown(of(b.build(b.head(x, (5, 3)))))
    assert "unknown (sizes are open: use --dim height=N --dim width=N)" in text
    assert "5 players of 1 channel, up to " in text
    assert text.count("MACs") == 1


def test_sizes_without_names_can_t_be_given() -> None:
    model = ZOO["sequential"].build()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_value")
    assert "unknown (sizes are open, and have no names)" in shown(of(model))


@pytest.mark.parametrize("name", ["[bold]x[/bold]", ":car:"])
def test_names_are_shown_as_they_are(name: str) -> None:
    model = ZOO["sequential"].build()
    model.graph.node[0].name = name
    assert f"─ {name}: 6 players" in shown(of(model))


def test_name_is_that_of_the_file(tmp_path: Path) -> None:
    onnx.save(ZOO["sequential"].build(), tmp_path / "some.onnx")
    found = inspect_model(load_model(tmp_path / "some.onnx"))
    assert (found.name, found.producer, found.opset) == ("some.onnx", "zoo", 17)
    assert of(ZOO["sequential"].build()).name == "net"
