"""Weights that stay in files: read where they are, written one at a time, never lost."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import models
from onnx_shapprune import runtime, wire
from onnx_shapprune.bench import Bench
from onnx_shapprune.calibration import load_calibration
from onnx_shapprune.cli import cli
from onnx_shapprune.errors import ModelError, OutputError
from onnx_shapprune.model_io import Model, load_model, save_model, with_weights
from onnx_shapprune.passes import weights
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.masking import masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.passes.weights import Stretch
from onnx_shapprune.pipeline import prune
from onnx_shapprune.scoring import Scoring
from onnx_shapprune.types import GroupPlan, Plan
from onnx_shapprune.weight_files import file_size

PRUNE = ("--data", "data.npz", "--keep", "0.5", "--estimator", "l1", "--provider", "cpu", "--quiet")
PAGE = 4096


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor but the smallest is too large to be copied; two forms of one model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "LARGE", 100)
    monkeypatch.setattr(weights, "HEAVY", 200)
    monkeypatch.setattr("onnx_shapprune.weight_files.LEAST_BESIDE", 100)
    models.workplace(tmp_path)
    Path("far").mkdir()
    models.external(Path("far"))


SOURCES = pytest.mark.parametrize("source", ["net.onnx", "far/external.onnx"])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every read of a weight from a file."""
    counted: list[int] = []
    for name in ("chunks", "mapped"):
        monkeypatch.setattr(Stretch, name, counting(getattr(Stretch, name), counted))
    return counted


def counting(method: Any, counted: list[int]) -> Any:
    def wrapped(self: Stretch, *arguments: Any) -> Any:
        counted.append(self.length)
        return method(self, *arguments)

    return wrapped


def outputs(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    return runtime.Session(model).run({"x": models.samples()})[0]


def in_plain_runtime(path: Path) -> np.ndarray[Any, Any]:
    """What anybody else gets from the file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, {"x": models.samples()})[0]
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments)


def by_name(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return dict(weights.weights(model))


def half(model: Model) -> Plan:
    groups = find_groups(Graph(model.proto)).groups
    parts = tuple(GroupPlan(g, np.arange(g.players) % 2 == 0, ()) for g in groups)
    return Plan(model.sha256, parts)


# --- reading ---------------------------------------------------------------------------------


@SOURCES
def test_large_weights_are_left_where_they_are(source: str, reads: list[int]) -> None:
    """Loading, the analysis and the masked graph touch none of them."""
    found = load_model(source)
    graph = Graph(found.proto)
    groups = find_groups(graph).groups
    masked_model(graph, groups, {})
    assert groups
    assert all(length < 100 for length in reads)
    large = [t for t in found.proto.graph.initializer if weights.is_reference(t)]
    assert {t.name for t in large} == {
        t.name for t in models.sequential().graph.initializer if len(t.raw_data) >= 100
    }
    assert not any(t.HasField("raw_data") for t in large)


@SOURCES
def test_values_are_those_of_the_file(source: str) -> None:
    found = load_model(source)
    assert with_weights(found.proto) == models.sequential()
    graph = Graph(found.proto)
    for tensor in models.sequential().graph.initializer:
        array = graph.constant(tensor.name)
        assert array is not None
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))
        assert not array.flags.writeable


def test_values_are_views_of_the_file() -> None:
    array = Graph(load_model("far/external.onnx").proto).constant("conv2.w")
    assert array is not None
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_values_of_other_types(kind: int) -> None:
    """Those of half a byte are unpacked, those that numpy has not are ml_dtypes'."""
    values = np.arange(-7, 8, dtype=np.float32).repeat(30)
    tensor = helper.make_tensor("w", kind, values.shape, values.tolist())
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    Path("w.bin").write_bytes(b"front" + raw.raw_data + b"behind")
    assert len(raw.raw_data) == weights.byte_size(raw)
    weights.refer(raw, str(Path("w.bin").absolute()), 5, weights.byte_size(raw))
    np.testing.assert_array_equal(weights.values(raw), numpy_helper.to_array(tensor))


def constants() -> onnx.ModelProto:
    """The sequential model with its weights in Constant nodes."""
    proto = models.sequential()
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    nodes += proto.graph.node
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def test_constant_nodes_are_weights_too() -> None:
    models.save(constants(), Path("constants.onnx"))
    found = load_model("constants.onnx")
    assert any(weights.is_reference(tensor) for tensor in by_name(found.proto).values())
    assert with_weights(found.proto) == constants()
    pruned = remove(found.proto, found.sha256, half(found))
    expected = remove(constants(), found.sha256, half(found))
    save_model(pruned, "small.onnx", external_data=True)
    np.testing.assert_array_equal(in_plain_runtime(Path("small.onnx")), outputs(expected))
    np.testing.assert_array_equal(outputs(pruned), outputs(expected))


def test_a_tensor_in_an_attribute_of_another_node_comes_with_it() -> None:
    """Nobody but a Constant's reader would look for it in a file."""
    fill = numpy_helper.from_array(np.ones(300, np.float32), "fill")
    proto = models.sequential()
    proto.graph.node.append(helper.make_node("Whatever", [], ["z"], value=fill, domain="ours"))
    frame = wire.rewritten(proto.SerializeToString(), lambda *_: [])
    found = onnx.ModelProto.FromString(b"".join(p for p in frame if isinstance(p, bytes)))
    assert found.graph.node[-1] == proto.graph.node[-1]


def edited(**entries: str | None) -> Path:
    """The external model with one tensor that says something else about its place."""
    proto = onnx.load("far/external.onnx", load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == "conv2.w")
    place = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in place.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return models.save(proto, Path("far/edited.onnx"))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "1000000"},
        {"offset": "-4"},
        {"offset": "many"},
        {"length": "4"},
        {"length": "99999999999999999999"},
        {"offset": "99999999999999999999"},
    ],
    ids=str,
)
def test_places_that_can_not_be(entries: dict[str, str | None]) -> None:
    with pytest.raises(ModelError, match=r"the external weights can't be read: 'conv2\.w'"):
        load_model(edited(**entries))


def test_a_place_without_a_length() -> None:
    """The tensor's own shape says how long it is."""
    assert with_weights(load_model(edited(length=None)).proto) == models.sequential()


def test_strings_are_never_elsewhere() -> None:
    proto = onnx.load("far/external.onnx", load_external_data=False)
    proto.graph.initializer[0].data_type = TensorProto.STRING
    with pytest.raises(ModelError, match="can't be read"):
        load_model(models.save(proto, Path("far/strings.onnx")))


def test_a_model_in_memory_names_no_files() -> None:
    """It would be a way to read any file."""
    with pytest.raises(ModelError, match="has its weights in other files"):
        load_model(onnx.load("far/external.onnx", load_external_data=False))
    with pytest.raises(ModelError, match="has its weights in other files"):
        load_model(load_model("net.onnx").proto)


@SOURCES
@pytest.mark.parametrize("ruin", [Path.unlink, lambda path: os.truncate(path, 50)])
def test_a_file_that_changes_meanwhile(source: str, ruin: Any) -> None:
    found = load_model(source)
    ruin(found.files[-1])
    graph = Graph(found.proto)
    with pytest.raises(ModelError, match="has changed since the model was loaded"):
        graph.constant("conv2.w")
    with pytest.raises(ModelError, match="has changed since the model was loaded"):
        save_model(found.proto, "out.onnx")
    assert not Path("out.onnx").exists()


def test_every_truncation_of_a_heavy_file_is_noticed() -> None:
    whole = Path("net.onnx").read_bytes()
    for length in range(1, len(whole), 7):
        Path("part.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="no ONNX model"):
            load_model("part.onnx")


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("size", [3, 10**8])
def test_values_that_do_not_fill_their_shape(size: int, in_file: bool) -> None:
    proto = models.sequential()
    by_name(proto)["conv2.w"].dims[3] = size + 1
    source = models.save(proto, Path("wrong.onnx")) if in_file else proto
    with pytest.raises(
        ModelError, match=r"the model is invalid: the tensor 'conv2\.w' has \d+ bytes"
    ):
        load_model(source)


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [models.sequential, models.residual, constants])
def test_what_is_not_replaced_is_the_same_to_the_byte(build: Any) -> None:
    data = build().SerializeToString()
    seen: list[bytes] = []

    def rule(buffer: wire.Buffer, start: int, end: int) -> None:
        seen.append(bytes(buffer[start:end]))

    pieces = wire.rewritten(data, rule)
    assert b"".join(p for p in pieces if isinstance(p, bytes)) == data
    assert seen == [tensor.SerializeToString() for tensor in in_file_order(build())]


def in_file_order(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Nodes come before initializers."""
    yield from (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))
    yield from model.graph.initializer


@pytest.mark.parametrize(
    "data", [b"\x3a", b"\x3a\x05ab", b"\x3a\x02\x2a\x7f", b"\xff" * 12, b"\x0b"]
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.rewritten(data, lambda *_: None)


# --- surgery ---------------------------------------------------------------------------------


@SOURCES
def test_surgery_reads_what_it_cuts_and_nothing_else(source: str, reads: list[int]) -> None:
    found = load_model(source)
    reads.clear()
    plan = half(found)
    only = Plan(plan.model_sha256, plan.groups[:1])
    pruned = remove(found.proto, found.sha256, only)
    whole = by_name(models.sequential())
    cut = [name for name, t in by_name(pruned).items() if t.dims != whole[name].dims]
    assert cut
    large = sorted(len(whole[n].raw_data) for n in cut if len(whole[n].raw_data) >= 100)
    assert sorted(reads) == large
    for name, tensor in by_name(pruned).items():
        if name not in cut:
            assert tensor == by_name(found.proto)[name]
    assert with_weights(pruned) == remove(models.sequential(), found.sha256, only)


def test_surgery_leaves_a_model_in_memory_as_it_is() -> None:
    model = load_model(models.sequential())
    remove(model.proto, model.sha256, half(model))
    assert model.proto == models.sequential()


@SOURCES
def test_all_kinds_of_sessions(source: str) -> None:
    """Masked, cut off at the front, with inner tensors, and pruned but not saved."""
    found = load_model(source)
    data = load_calibration("data.npz", found.inputs)
    results, expected = (
        prune(Bench(m, data), keep=0.5, scoring=Scoring("leave-one-out"))
        for m in (found, load_model(models.sequential()))
    )
    assert [part.kept.tolist() for part in results.plan.groups] == [
        part.kept.tolist() for part in expected.plan.groups
    ]
    assert results.model == expected.model
    assert results.report.after == expected.report.after
    assert file_size(results.proto) == len(results.model.SerializeToString())


def captured() -> onnx.ModelProto:
    """A model whose first kernel is read by a branch too, and a weight that nobody reads."""
    proto = models.sequential()
    kernel = proto.graph.initializer[0]
    body = helper.make_graph(
        [helper.make_node("ReduceSum", [kernel.name], ["s"], keepdims=0)],
        "body",
        [],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [])],
    )
    flag = numpy_helper.from_array(np.asarray(True), "flag")
    unread = numpy_helper.from_array(np.ones(500, np.float32), "unread")
    proto.graph.initializer.extend([flag, unread])
    proto.graph.node.append(
        helper.make_node("If", ["flag"], ["sum"], then_branch=body, else_branch=body)
    )
    proto.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))
    return proto


@pytest.mark.parametrize("external_data", [False, True])
def test_weights_that_bodies_read(external_data: bool) -> None:
    save_model(captured(), "captured.onnx", external_data=external_data)
    found = load_model("captured.onnx")
    expected = runtime.Session(captured()).run({"x": models.samples()})
    graph = Graph(found.proto)
    masked = masked_model(graph, find_groups(graph).groups, {})
    for model in (found.proto, masked):
        for one, other in zip(
            runtime.Session(model).run({"x": models.samples()}), expected, strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5)


# --- writing ---------------------------------------------------------------------------------


@SOURCES
@pytest.mark.parametrize("external_data", [False, True])
def test_save_and_load(source: str, external_data: bool) -> None:
    save_model(load_model(source).proto, "out.onnx", external_data=external_data)
    assert Path("out.onnx.data").exists() == external_data
    assert with_weights(load_model("out.onnx").proto) == models.sequential()
    np.testing.assert_array_equal(in_plain_runtime(Path("out.onnx")), outputs(models.sequential()))


def test_large_tensors_start_at_a_page_and_small_ones_stay_inside() -> None:
    save_model(models.sequential(), "out.onnx", external_data=True)
    saved = onnx.load("out.onnx", load_external_data=False)
    places = {t.name: t for t in saved.graph.initializer if weights.is_reference(t)}
    whole = by_name(models.sequential())
    assert set(places) == {name for name, t in whole.items() if len(t.raw_data) >= 100}
    assert len(places) < len(whole)
    assert all(weights.entry(t, "location") == "out.onnx.data" for t in places.values())
    assert all(int(weights.entry(t, "offset")) % PAGE == 0 for t in places.values())


def test_nothing_large_leaves_no_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shapprune.weight_files.LEAST_BESIDE", 10**6)
    save_model(models.sequential(), "out.onnx", external_data=True)
    assert not Path("out.onnx.data").exists()


@SOURCES
def test_prune_with_external_data(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair runs wherever it lies and whoever runs it, and is the same as one file."""
    for name, options in (("one", ()), ("pair", ("--external-data",))):
        Path(name).mkdir()
        done = run("prune", source, "-o", f"{name}/small.onnx", *PRUNE, *options)
        assert done.exit_code == 0, done.output
    assert {p.name for p in Path("pair").iterdir()} == {"small.onnx", "small.onnx.data"}
    assert {p.name for p in Path("one").iterdir()} == {"small.onnx"}
    found = [with_weights(load_model(f"{name}/small.onnx").proto) for name in ("one", "pair")]
    assert found[0] == found[1]
    one, pair = (Path(name, "small.onnx").absolute() for name in ("one", "pair"))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    np.testing.assert_array_equal(in_plain_runtime(one), in_plain_runtime(pair))


def test_above_the_limit_weights_are_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", 1500)
    done = run("prune", "far/external.onnx", "-o", "out.onnx", *PRUNE)
    assert done.exit_code == 0, done.output
    assert Path("out.onnx.data").stat().st_size
    assert in_plain_runtime(Path("out.onnx").absolute()).shape == (12, models.CLASSES)


def test_nothing_to_prune_with_external_data() -> None:
    everything = ("--exclude", "conv*", "--external-data")
    assert run("prune", "net.onnx", "-o", "out.onnx", *PRUNE, *everything).exit_code == 3
    assert Path("out.onnx.data").exists()
    assert with_weights(load_model("out.onnx").proto) == models.sequential()


@pytest.mark.parametrize("form", [(), ("--external-data",)])
def test_the_sources_weights_are_no_output(form: tuple[str, ...]) -> None:
    """Neither as the model nor as the file beside it, even with --force."""
    save_model(models.sequential(), "far/small.onnx", external_data=True)
    Path("far/small.onnx").rename("far/source.onnx")
    before = models.contents(Path("far"))
    how = (*PRUNE, *form, "--force")
    taken = "far/small.onnx" if form else "far/small.onnx.data"
    done = run("prune", "far/source.onnx", "-o", taken, *how)
    assert done.exit_code == 1
    assert "is read by this command" in done.stderr
    assert models.contents(Path("far")) == before


@SOURCES
def test_saving_onto_what_the_model_refers_to(source: str) -> None:
    found = load_model(source)
    taken = found.files[-1]
    before = taken.read_bytes()
    with pytest.raises(OutputError, match="is read by this command"):
        save_model(found.proto, taken, force=True)
    assert taken.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="has no such links")
def test_saving_onto_a_link_to_the_weights() -> None:
    found = load_model("far/external.onnx")
    Path("out.onnx.data").symlink_to("far/weights.bin")
    with pytest.raises(OutputError, match="is read by this command"):
        save_model(found.proto, "out.onnx", force=True, external_data=True)


@pytest.mark.parametrize("external_data", [False, True])
def test_a_full_disk_leaves_nothing(external_data: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = load_model("far/external.onnx").proto
    before = models.contents(Path())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Stretch, "chunks", refuse)
    monkeypatch.setattr("onnx_shapprune.weight_files._align", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        save_model(proto, "out.onnx", external_data=external_data)
    assert models.contents(Path()) == before


# --- what is not cut -----------------------------------------------------------------------------


def with_oddities() -> onnx.ModelProto:
    """The sequential model with a sparse constant and strings, both read by somebody."""
    proto = models.sequential()
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.arange(1, 301, dtype=np.float32), "sparse"),
        numpy_helper.from_array(np.arange(0, 600, 2), "where"),
        [600],
    )
    proto.graph.sparse_initializer.append(sparse)
    words = [f"word {number}".encode() for number in range(100)]
    proto.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [100], words))
    proto.graph.node.append(helper.make_node("Identity", ["words"], ["said"]))
    proto.graph.node.append(helper.make_node("ReduceSum", ["sparse"], ["total"], keepdims=0))
    for name, kind, shape in (("said", TensorProto.STRING, [100]), ("total", 1, [])):
        proto.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    return proto


@pytest.mark.parametrize("external_data", [False, True])
def test_sparse_tensors_and_strings_stay_to_the_byte(external_data: bool) -> None:
    models.save(with_oddities(), Path("odd.onnx"))
    found = load_model("odd.onnx")
    pruned = remove(found.proto, found.sha256, half(found))
    save_model(pruned, "out.onnx", external_data=external_data)
    saved = onnx.load("out.onnx", load_external_data=False)
    for proto in (found.proto, pruned, saved):
        source = with_oddities().graph
        assert [t.SerializeToString() for t in proto.graph.sparse_initializer] == [
            t.SerializeToString() for t in source.sparse_initializer
        ]
        assert (
            by_name(proto)["words"].SerializeToString()
            == source.initializer[-1].SerializeToString()
        )
    assert by_name(saved)["conv1.w"].dims[0] < by_name(with_oddities())["conv1.w"].dims[0]
