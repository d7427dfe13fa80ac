"""Models in and out: what is read is checked, what is written is whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import models
from onnx_shapprune import runtime
from onnx_shapprune.errors import ModelError, OutputError, ShapPruneError
from onnx_shapprune.files import atomic_file, claim
from onnx_shapprune.inspection import inspect_model
from onnx_shapprune.model_io import Model, load_model, save_model

LIMIT = 500
"""Stands for the 2 GiB that a protobuf can carry."""

shared_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    derandomize=True,
    max_examples=300,
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(models.sequential(), Path("net.onnx"))


def outputs(proto: onnx.ModelProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What a model computes from the samples."""
    return runtime.Session(proto).run({"x": models.samples()})[0]


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_load_from_a_path(kind: type) -> None:
    found = load_model(kind("net.onnx"))
    assert found.proto == models.sequential()
    assert found.sha256 == hashlib.sha256(Path("net.onnx").read_bytes()).hexdigest()
    assert found.path == Path("net.onnx")
    assert found.files == (Path("net.onnx"),)


def test_load_from_memory() -> None:
    """The same model has the same digest, another one another."""
    one, same, other = (load_model(models.sequential(seed=seed)) for seed in (0, 0, 1))
    assert one.path is None
    assert one.sha256 == same.sha256 != other.sha256


def test_load_what_is_loaded() -> None:
    found = load_model("net.onnx")
    assert load_model(found) is found


def test_a_model_in_memory_is_checked_too() -> None:
    with pytest.raises(ModelError, match="the model is invalid"):
        load_model(models.dangling())
    newer = models.sequential()
    newer.ir_version = 14
    with pytest.raises(ModelError, match="IR version 14"):
        load_model(newer)


def test_inputs_are_those_that_have_to_be_fed() -> None:
    """Older models list their weights among the inputs."""
    proto = models.sequential()
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    (found,) = load_model(proto).inputs
    assert (found.name, found.dtype, found.shape) == ("x", "float32", ("N", 2, 6, 6))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT64, "int64"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.STRING, "str"),
        (TensorProto.BFLOAT16, "bfloat16"),
    ],
)
def test_dtypes(kind: int, dtype: str) -> None:
    info = helper.make_tensor_value_info("x", kind, [2, None, "n"])
    node = helper.make_node("Identity", ["x"], ["y"])
    result = helper.make_tensor_value_info("y", kind, [2, None, "n"])
    graph = helper.make_graph([node], "g", [info], [result])
    opset = [helper.make_opsetid("", models.OPSET)]
    found = load_model(helper.make_model(graph, opset_imports=opset, ir_version=models.IR))
    assert [(s.dtype, s.shape) for s in found.inputs] == [(dtype, (2, None, "n"))]
    assert [s.name for s in found.outputs] == ["y"]


def test_external_weights_come_in() -> None:
    found = load_model(models.external(Path()))
    assert [file.name for file in found.files] == ["external.onnx", "weights.bin"]
    assert not any(tensor.external_data for tensor in found.proto.graph.initializer)
    np.testing.assert_array_equal(outputs(found.proto), outputs(models.sequential()))


def test_digest_covers_the_weights() -> None:
    """Two exports of one network differ in nothing else."""
    found = []
    for seed in (0, 0, 1):
        folder = Path(f"{len(found)}")
        folder.mkdir()
        found.append(load_model(models.external(folder, seed=seed)).sha256)
    assert found[0] == found[1] != found[2]


def test_weights_inside_of_attributes_are_checked_too() -> None:
    """A Constant's tensor may name a file as well, also in the body of an If."""
    outside = onnx.numpy_helper.from_array(np.ones(3, np.float32), "value")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    result = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])
    body = helper.make_graph([constant], "body", [], [result])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    flag = helper.make_tensor_value_info("x", TensorProto.BOOL, [])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([branch], "g", [flag], [output])
    opset = [helper.make_opsetid("", models.OPSET)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=models.IR)
    models.save(proto, Path("secretive.onnx"))
    with pytest.raises(ModelError, match="outside of the model's folder"):
        load_model("secretive.onnx")


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match=r"can't read 'net\.onnx': Permission denied"):
        load_model("net.onnx")


def test_every_truncation_is_noticed() -> None:
    whole = Path("net.onnx").read_bytes()
    for length in range(0, len(whole), 3):
        Path("part.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="no ONNX model"):
            load_model("part.onnx")


@shared_folder
@given(st.binary(max_size=200))
def test_random_bytes_are_no_model(content: bytes) -> None:
    Path("random.onnx").write_bytes(content)
    with pytest.raises(ModelError):
        load_model("random.onnx")


@shared_folder
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_an_error_or_another_model(flips: list[tuple[int, int]]) -> None:
    """Whatever a damaged file says, the answer is one of ours."""
    content = bytearray(models.sequential().SerializeToString())
    for position, value in flips:
        content[position] = value
    Path("flipped.onnx").write_bytes(content)
    with suppress(ShapPruneError):
        inspect_model(load_model("flipped.onnx"))


def test_an_unknown_element_type_is_an_error() -> None:
    """onnx's checker lets it pass."""
    proto = models.sequential()
    proto.graph.input[0].type.tensor_type.elem_type = 89
    models.save(proto, Path("odd.onnx"))
    with pytest.raises(ShapPruneError):
        inspect_model(load_model("odd.onnx"))


# --- writing ---------------------------------------------------------------------------------


def test_save_and_load() -> None:
    save_model(models.residual(), Path("out.onnx"))
    assert load_model("out.onnx").proto == models.residual()
    assert {path.name for path in Path().iterdir()} == {"net.onnx", "out.onnx"}


def test_save_does_not_replace_without_force() -> None:
    before = Path("net.onnx").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        save_model(models.residual(), Path("net.onnx"))
    assert Path("net.onnx").read_bytes() == before
    save_model(models.residual(), Path("net.onnx"), force=True)
    assert load_model("net.onnx").proto == models.residual()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("limit", [2**31, LIMIT], ids=["one file", "two files"])
def test_files_get_the_usual_permissions(
    limit: int, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the user's mask allows, not those of a temporary file."""
    monkeypatch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", limit)
    before = os.umask(mask)
    try:
        save_model(wide(), Path("wide.onnx"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path().glob("wide.*")}
    names = ["wide.onnx", *(["wide.onnx.data"] if limit == LIMIT else [])]
    assert modes == dict.fromkeys(names, 0o666 & ~mask)


def test_a_failed_block_leaves_what_was_there() -> None:
    Path("kept.txt").write_text("precious")

    def fail() -> None:
        with atomic_file(Path("kept.txt")) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert Path("kept.txt").read_text() == "precious"
    assert {path.name for path in Path().iterdir()} == {"net.onnx", "kept.txt"}


def test_the_old_file_stays_until_the_new_one_is_whole() -> None:
    Path("kept.txt").write_text("old")
    with atomic_file(Path("kept.txt")) as temporary:
        temporary.write_text("new")
        assert Path("kept.txt").read_text() == "old"
        assert temporary.parent == Path("kept.txt").absolute().parent
    assert Path("kept.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda: Path("out").mkdir(), "'out' is a directory"),
        (lambda: Path("out").write_text("x"), "'out' exists already"),
        (lambda: Path("out").hardlink_to("net.onnx"), "'out' is read by this command"),
    ],
    ids=["directory", "file", "source"],
)
def test_not_writable(prepare: Callable[[], object], message: str) -> None:
    prepare()
    with pytest.raises(OutputError, match=message):
        claim([Path("out")], [Path("weights.bin"), Path("net.onnx")])


def test_writable() -> None:
    claim([Path("out")], [Path("weights.bin"), Path("net.onnx")])
    claim([Path("out")], [Path("nowhere.onnx")])
    assert not Path("out").exists()


# --- more than a protobuf can carry ------------------------------------------------------------


def wide() -> onnx.ModelProto:
    """A model with weights that onnx stores outside if it is asked to."""
    return models.sequential(widths=(32, 32))


def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every tensor as one that is too large to be copied."""
    for name, limit in (("LARGE", 100), ("HEAVY", 200)):
        monkeypatch.setattr(f"onnx_shapprune.passes.weights.{name}", limit)


def test_large_models_keep_their_weights_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", LIMIT)
        save_model(wide(), Path("large.onnx"))
    assert Path("large.onnx.data").is_file()
    np.testing.assert_array_equal(outputs(load_model("large.onnx").proto), outputs(wide()))


def test_saving_leaves_a_large_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights stay in memory."""
    monkeypatch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", LIMIT)
    proto = wide()
    save_model(proto, Path("large.onnx"))
    assert proto == wide()


def test_running_leaves_a_large_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs a second time, and can still be cut."""
    everything_is_large(monkeypatch)
    proto = wide()
    first = outputs(proto)
    assert proto == wide()
    np.testing.assert_array_equal(outputs(proto), first)


def test_a_full_disk_leaves_the_old_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", LIMIT)
    Path("large.onnx").write_text("precious")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx_shapprune.weight_files._align", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        save_model(wide(), Path("large.onnx"), force=True)
    assert Path("large.onnx").read_text() == "precious"
    assert {path.name for path in Path().iterdir()} == {"net.onnx", "large.onnx"}


@pytest.mark.parametrize("folder", [".", "sub"])
def test_weights_beside_a_large_model_are_replaced_with_force_only(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_shapprune.model_io._PROTOBUF_LIMIT", LIMIT)
    Path(folder).mkdir(exist_ok=True)
    weights, path = Path(folder, "large.onnx.data"), Path(folder, "large.onnx")
    weights.write_text("precious")
    with pytest.raises(OutputError):
        save_model(wide(), path)
    assert weights.read_text() == "precious"
    save_model(wide(), path, force=True)
    assert weights.stat().st_size > 32 * 32 * 9


def test_specs_of_something_that_is_no_tensor() -> None:
    """A sequence has neither a dtype nor a shape that data could have."""
    proto = models.sequential()
    proto.graph.input[0].CopyFrom(
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])
    )
    (found,) = Model(proto, "", None).inputs
    assert (found.dtype, found.shape) == ("unknown", ())
