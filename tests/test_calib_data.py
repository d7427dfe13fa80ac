"""The shipped model and photos are those that the manifest tells of."""

from __future__ import annotations

import hashlib
import tomllib
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shapprune import calib_data

MODEL = "lenet5_fashion_mnist.onnx"
FILES = (MODEL, "fashion_mnist.npz", "LICENSE.fashion-mnist")
Part = Literal["calibration", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
COUNTS: dict[Part, int] = {"calibration": 512, "test": 2000}


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Any]]:
    return tomllib.loads(calib_data.path("MANIFEST.toml").read_text())["files"]


def test_manifest_names_every_file(files: dict[str, dict[str, Any]]) -> None:
    present = {entry.name for entry in calib_data.path("MANIFEST.toml").parent.iterdir()}
    assert set(files) == set(FILES)
    assert present - {"__init__.py", "__pycache__"} == {*FILES, "MANIFEST.toml"}


@pytest.mark.parametrize("name", FILES)
def test_files_are_those_of_the_manifest(name: str, files: dict[str, dict[str, Any]]) -> None:
    content = calib_data.path(name).read_bytes()
    assert len(content) == files[name]["bytes"]
    assert hashlib.sha256(content).hexdigest() == files[name]["sha256"]
    assert files[name]["licence"]
    assert files[name]["source"]


@pytest.mark.parametrize("part", PARTS)
def test_stored_photos_are_bytes_and_balanced(part: Part) -> None:
    with np.load(calib_data.path("fashion_mnist.npz"), allow_pickle=False) as arrays:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        assert len(arrays["class_names"]) == 10
    assert (images.shape, images.dtype) == ((COUNTS[part], 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((COUNTS[part],), np.uint8)
    per_class = np.bincount(labels, minlength=10)
    assert len(per_class) == 10
    assert per_class.max() - per_class.min() <= 1


@pytest.mark.parametrize("part", PARTS)
def test_loaded_photos_are_model_input(part: Part) -> None:
    images, labels = calib_data.fashion_mnist(part)
    assert (images.shape, images.dtype) == ((COUNTS[part], 1, 28, 28), np.float32)
    assert (labels.shape, labels.dtype) == ((COUNTS[part],), np.int64)
    assert (images.min(), images.max()) == (0, 1)


def test_calibration_and_test_photos_differ() -> None:
    calibration, test = ({i.tobytes() for i in calib_data.fashion_mnist(p)[0]} for p in PARTS)
    assert not calibration & test


def test_model_keeps_batchnorm_and_passes_the_checker() -> None:
    model = onnx.load(calib_data.path(MODEL))
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == kinds.count("BatchNormalization") == 2
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]


def test_model_is_as_accurate_as_the_manifest_says(files: dict[str, dict[str, Any]]) -> None:
    session = ort.InferenceSession(calib_data.path(MODEL), providers=["CPUExecutionProvider"])
    images, labels = calib_data.fashion_mnist("test")
    (logits,) = session.run(None, {"image": images})
    # Other processors round otherwise, which may turn one photo at a border.
    stated = files[MODEL]["accuracy_test_images"]
    assert abs((logits.argmax(axis=1) == labels).mean() - stated) <= 1.01 / len(labels)
    assert files[MODEL]["accuracy_test_set"] > 0.91


def test_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"no 'lenet'.*fashion_mnist\.npz.*lenet5_fashion"):
        calib_data.path("lenet")
