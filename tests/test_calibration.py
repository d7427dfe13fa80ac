"""Samples for a model's inputs: every form of data, every error, every note."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from onnx_shapprune.calibration import batches, fixed_batch, load_calibration
from onnx_shapprune.errors import DataError, OptionError, ShapPruneError
from onnx_shapprune.types import Array, Calibration, Shape, TensorSpec

Inputs = tuple[TensorSpec, ...]
Data = str | Path | Array | Mapping[str, Array]
Row = tuple[str, Data, Inputs, str, str]


def spec(name: str, *shape: int | str | None, dtype: str = "float32") -> TensorSpec:
    """One input."""
    return TensorSpec(name, dtype, shape)


ROWS = (spec("x", "N", 3),)
PAIR = (spec("a", "N", 3), spec("b", "N", dtype="int64"))
PICTURE = (spec("x", "N", 3, 4, 6),)
SCALED = (spec("x", "N", 3), spec("factor"))


def ones(*shape: int, dtype: str = "float32") -> Array:
    """An array of ones."""
    return np.ones(shape, dtype)


def counted(*shape: int, dtype: str = "float32") -> Array:
    """An array in which every value is another one."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, so that messages can be compared as a whole."""
    monkeypatch.chdir(tmp_path)


def images(*paths: str, color: tuple[int, int, int] = (255, 0, 51)) -> None:
    """Small images of one colour at ``paths``."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 5), color).save(path)


def check(got: Calibration, expected: Mapping[str, Array]) -> None:
    """The same arrays, exactly, with the same dtypes, ready for a runtime."""
    assert list(got.inputs) == list(expected)
    for name, array in got.inputs.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == expected[name].dtype
        assert array.flags.c_contiguous


# --- forms of data -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_npz(kind: type) -> None:
    """Arrays by name, in the order of the inputs, with labels."""
    a, b, labels = counted(4, 3), counted(4, dtype="int64"), np.array([0, 2, 1, 5], np.uint8)
    np.savez("d.NPZ", b=b, a=a, labels=labels)
    Path("d.NPZ.npz").rename("d.NPZ")
    got = load_calibration(kind("d.NPZ"), PAIR)
    check(got, {"a": a, "b": b})
    assert got.labels is not None
    assert (got.labels.dtype.name, got.labels.tolist()) == ("int64", [0, 2, 1, 5])
    assert (got.batched, got.source, got.notes, got.samples) == (True, "d.NPZ", (), len(a))


def test_npy() -> None:
    """One array for the one input."""
    np.save("d.npy", counted(4, 3))
    got = load_calibration("d.npy", ROWS)
    check(got, {"x": counted(4, 3)})
    assert (got.labels, got.source) == (None, "d.npy")


def test_arrays_in_memory() -> None:
    """A mapping like an .npz, or one array; the mapping stays as it was."""
    given_ = {"x": counted(2, 3), "labels": np.array([1, 0])}
    got = load_calibration(given_, ROWS)
    check(got, {"x": counted(2, 3)})
    assert got.labels is not None
    assert (got.labels.tolist(), got.source, list(given_)) == ([1, 0], "arrays", ["x", "labels"])
    alone = load_calibration(counted(2, 3), ROWS)
    check(alone, {"x": counted(2, 3)})
    assert (alone.labels, alone.source) == (None, "an array")


def test_arrays_that_fit_are_not_copied() -> None:
    """Large data in memory stay where they are."""
    for dtype in ("float32", "int64"):
        array = ones(2, 3, dtype=dtype)
        got = load_calibration(array, (spec("x", "N", 3, dtype=dtype),)).inputs["x"]
        assert np.shares_memory(array, got)


def test_largest_label() -> None:
    """Labels of any integer dtype become int64, up to its last value."""
    labels = np.array([0, 2**63 - 1], np.uint64)
    got = load_calibration({"x": ones(2, 3), "labels": labels}, ROWS)
    assert got.labels is not None
    assert got.labels.tolist() == labels.tolist()


def test_input_called_labels_is_an_input() -> None:
    """Where the model has an input of that name, the array is not labels."""
    got = load_calibration({"labels": counted(2, 3)}, (spec("labels", "N", 3),))
    check(got, {"labels": counted(2, 3)})
    assert got.labels is None


def test_strings() -> None:
    """Strings become objects, as runtimes want them; they are loaded without pickle."""
    words = np.array([["to"], ["be"]])
    np.savez("d.npz", t=words)
    for dtype in ("object", "str", "string"):
        for data in ("d.npz", {"t": words}, {"t": words.astype(object)}):
            check(
                load_calibration(data, (spec("t", "N", 1, dtype=dtype),)),
                {"t": words.astype(object)},
            )


IMAGE_VALUES = [
    (None, "float32", (1.0, 0.0, 0.2)),
    ("unit", "float32", (1.0, 0.0, 0.2)),
    ("symmetric", "float16", (1.0, -1.0, -0.6)),
    ("raw", "float64", (255.0, 0.0, 51.0)),
    (None, "uint8", (255.0, 0.0, 51.0)),
    ("p.toml", "float32", (51.0, 0.0, 255.0)),
]


@pytest.mark.parametrize(("preprocess", "dtype", "expected"), IMAGE_VALUES)
@pytest.mark.parametrize("kind", [str, Path])
def test_folder_of_images(
    preprocess: str | None, dtype: str, expected: tuple[float, ...], kind: type
) -> None:
    """Pixels through presets and a TOML file, in the model's layout and dtype."""
    images("d/a.png", "d/b.png")
    Path("p.toml").write_text("scale = 1\ncolor = 'bgr'", encoding="utf-8")
    got = load_calibration(
        kind("d"), (spec("x", "N", 3, 4, 6, dtype=dtype),), preprocess=preprocess
    )
    want = np.broadcast_to(np.array(expected)[:, None, None], (2, 3, 4, 6)).astype(dtype)
    np.testing.assert_allclose(got.inputs["x"], want, rtol=1e-3)
    assert (got.inputs["x"].dtype, got.source, got.labels) == (np.dtype(dtype), "d", None)
    assert (got.batched, got.inputs["x"].shape) == (True, (2, 3, 4, 6))


def test_folder_keeps_images_apart() -> None:
    """Every image is in its own place, with its own label."""
    images("d/4/b.png", color=(1, 1, 1))
    images("d/4/a.png", color=(2, 2, 2))
    images("d/0/c.png", color=(3, 3, 3))
    got = load_calibration("d", PICTURE, preprocess="raw")
    assert got.labels is not None
    assert got.labels.tolist() == [0, 4, 4]
    assert got.inputs["x"][:, 0, 0, 0].tolist() == [3, 2, 1]


def test_images_take_dims() -> None:
    """Height and width from ``dims``."""
    images("d/a.png")
    got = load_calibration("d", (spec("x", "N", "H", "W", 3),), dims={"H": 4, "W": 6})
    assert got.inputs["x"].shape == (1, 4, 6, 3)


RANDOM = (
    spec("x", "N", 3, "T", dtype="float16"),
    spec("ids", "N", "T", dtype="int64"),
    spec("bytes", "N", dtype="uint8"),
    spec("mask", "N", "T", dtype="bool"),
)


def test_random() -> None:
    """Seeded samples in the shapes and dtypes of the inputs."""
    got = load_calibration("random:64", RANDOM, dims={"T": 5}, seed=3)
    shapes = {name: (array.shape, array.dtype.name) for name, array in got.inputs.items()}
    assert shapes == {
        "x": ((64, 3, 5), "float16"),
        "ids": ((64, 5), "int64"),
        "bytes": ((64,), "uint8"),
        "mask": ((64, 5), "bool"),
    }
    assert [set(got.inputs[name].ravel().tolist()) for name in ("ids", "bytes", "mask")] == [
        {0, 1}
    ] * 3
    spread = got.inputs["x"].astype(float)
    np.testing.assert_allclose([spread.mean(), spread.std()], [0, 1], atol=0.15)
    assert (got.labels, got.source, got.batched) == (None, "random:64", True)


def test_random_repeats_by_its_seed() -> None:
    """The same seed gives the same, another one gives others."""
    one, same, other = (load_calibration("random:4", ROWS, seed=seed) for seed in (1, 1, 2))
    check(same, one.inputs)
    assert not np.array_equal(one.inputs["x"], other.inputs["x"])


def test_random_feeds() -> None:
    """Inputs without a common batch get whole feeds."""
    got = load_calibration("random:4", SCALED, dims={"N": 2})
    shapes = {name: array.shape for name, array in got.inputs.items()}
    assert (shapes, got.batched) == ({"x": (4, 2, 3), "factor": (4,)}, False)


# --- batches -----------------------------------------------------------------------------

BATCHED: list[tuple[tuple[Shape, ...], bool, int | None]] = [
    ((("N", 3),), True, None),
    (((None, 3),), True, None),
    (((1, 3),), True, 1),
    (((4, 3),), True, 4),
    (((4, 3), (4,)), True, 4),
    ((("N", 3), ("N",)), True, None),
    (((None, 3), (None,)), True, None),
    (((None, 3), (4,)), True, 4),
    ((("N", 3), ("M",)), False, None),
    ((("N", 3), (1,)), False, None),
    (((1, 3), (2, 3)), False, None),
    ((("N", 3), ()), False, None),
    (((4, 3), ()), False, None),
    (((),), False, None),
]


@pytest.mark.parametrize(("shapes", "batched", "batch"), BATCHED)
def test_what_is_batched(shapes: tuple[Shape, ...], batched: bool, batch: int | None) -> None:
    """One first dimension for all inputs, unknown ones agreeing with any."""
    inputs = tuple(TensorSpec(f"i{at}", "float32", shape) for at, shape in enumerate(shapes))
    symbols = {dim for shape in shapes for dim in shape if isinstance(dim, str)}
    got = load_calibration("random:4", inputs, dims=dict.fromkeys(symbols, 2))
    assert (got.batched, fixed_batch(inputs), got.samples) == (batched, batch, 4)


def test_batches_join_samples() -> None:
    """Feeds in order, all inputs in step, the last one smaller."""
    data = {"a": counted(5, 3), "b": counted(5, dtype="int64")}
    feeds = list(batches(load_calibration(data, PAIR), 2))
    assert [feed["b"].tolist() for feed in feeds] == [[0, 1], [2, 3], [4]]
    assert [feed["a"][:, 0].tolist() for feed in feeds] == [[0, 3], [6, 9], [12]]


def test_feeds_go_one_by_one() -> None:
    """Unbatched: the sample axis is gone, and a scalar is an array still."""
    data = {"x": counted(2, 4, 3), "factor": np.array([5, 6], np.float32)}
    feeds = list(batches(load_calibration(data, SCALED), 8))
    assert [feed["x"].tolist() for feed in feeds] == counted(2, 4, 3).tolist()
    assert [feed["factor"].tolist() for feed in feeds] == [5, 6]
    assert all(isinstance(feed["factor"], np.ndarray) for feed in feeds)


@settings(max_examples=60, deadline=None, database=None)
@given(array=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=3)), size=st.integers(1, 7))
def test_batches_join_to_the_whole(array: Array, size: int) -> None:
    """Nothing is lost, doubled or moved, and no feed is too large."""
    inputs = (TensorSpec("x", "int32", (None,) * array.ndim),)
    feeds = [feed["x"] for feed in batches(load_calibration(array, inputs), size)]
    np.testing.assert_array_equal(np.concatenate(feeds), array)
    assert {len(feed) for feed in feeds[:-1]} <= {size}
    assert len(feeds[-1]) <= size


def test_batch_of_nothing() -> None:
    """Refused at once, not at the first feed."""
    with pytest.raises(OptionError, match=r"^a batch of 0 samples$") as caught:
        batches(load_calibration(ones(2, 3), ROWS), 0)
    assert caught.value.hint == "give 1 or more"


# --- dtypes ------------------------------------------------------------------------------

CASTS = [
    (np.array([[0.1, 2, 3]]), "float32", np.array([[0.1, 2, 3]], np.float32)),
    (np.array([[0.1, 2, 3]], np.float16), "float64", np.array([[float(np.float16(0.1)), 2, 3]])),
    (np.array([[0.5, 2, 3]], ">f4"), "float32", np.array([[0.5, 2, 3]], np.float32)),
    (np.array([[0, 255, 3]]), "uint8", np.array([[0, 255, 3]], np.uint8)),
    (np.array([[0, 255, 3]], np.uint8), "int64", np.array([[0, 255, 3]])),
    (np.array([[1, 2, 2**63 - 1]], np.uint64), "int64", np.array([[1, 2, 2**63 - 1]])),
    (np.array([[True, False, True]]), "int32", np.array([[1, 0, 1]], np.int32)),
    (np.array([[True, False, True]]), "bool", np.array([[True, False, True]])),
    (np.array([[1j, 0, 0]], np.complex64), "complex64", np.array([[1j, 0, 0]], np.complex64)),
    (counted(3, 1).T, "float32", np.array([[0, 1, 2]], np.float32)),
]


@pytest.mark.parametrize(("array", "dtype", "expected"), CASTS)
def test_dtypes_that_are_cast(array: Array, dtype: str, expected: Array) -> None:
    """Floats among themselves, integers where no value changes."""
    check(load_calibration(array, (spec("x", "N", 3, dtype=dtype),)), {"x": expected})


@settings(max_examples=60, deadline=None, database=None)
@given(
    array=hnp.arrays(
        st.sampled_from(["float32", "int8", "uint16", "int64", "bool"]),
        hnp.array_shapes(min_dims=1, max_dims=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_npz_round_trip(array: Array) -> None:
    """What was saved is what comes out."""
    np.savez("d.npz", x=array)
    inputs = (TensorSpec("x", array.dtype.name, (None,) * array.ndim),)
    check(load_calibration("d.npz", inputs), {"x": np.ascontiguousarray(array)})


@settings(max_examples=60, deadline=None, database=None)
@given(
    array=hnp.arrays(st.sampled_from(["int16", "int64", "uint64"]), 3),
    target=st.sampled_from(["int8", "uint8", "int32", "uint32", "int64", "uint64"]),
)
def test_integers_stay_or_are_refused(array: Array, target: str) -> None:
    """No value is ever changed on the way to another integer dtype."""
    inputs = (spec("x", "N", dtype=target),)
    try:
        got = load_calibration(array, inputs).inputs["x"]
    except DataError:
        info = np.iinfo(target)
        assert any(not info.min <= value <= info.max for value in array.tolist())
    else:
        assert got.tolist() == array.tolist()


# --- notes -------------------------------------------------------------------------------


def _note(data: Data, inputs: Inputs, preprocess: str | None = None) -> tuple[str, ...]:
    return load_calibration(data, inputs, preprocess=preprocess).notes


def test_notes_tell_the_choices() -> None:
    """Each choice made for the user is told, and nothing else."""
    images("d/a.png", "e/cat/a.png", "e/dog/a.png")
    unit = (
        "preprocessing is 'unit', as none was given: "
        "whole image stretched to fit, values from 0 to 1"
    )
    raw = (
        "preprocessing is 'raw', as none was given: "
        "whole image stretched to fit, values from 0 to 255"
    )
    labels = "labels are the indices of the sub-folders in sorted order: 0 = cat, 1 = dog"
    poor = "random data are a poor choice: scores then say little about the model's real work"
    rest = "2 of 8 samples are left out: they don't fill the model's batch of 3"
    assert _note("d", PICTURE) == (unit,)
    assert _note("d", (spec("x", "N", 3, 4, 6, dtype="uint8"),)) == (raw,)
    assert _note("d", PICTURE, preprocess="unit") == ()
    assert _note("e", PICTURE) == (unit, labels)
    assert _note("random:8", (spec("x", 3, 2),)) == (poor, rest)
    assert _note(ones(6, 2), (spec("x", 3, 2),)) == ()


def test_samples_that_fill_no_batch_are_left_out() -> None:
    """A model with a fixed batch only gets whole ones, and their labels."""
    got = load_calibration({"x": counted(8, 2), "labels": np.arange(8)}, (spec("x", 3, 2),))
    check(got, {"x": counted(6, 2)})
    assert got.labels is not None
    assert got.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert [len(feed["x"]) for feed in batches(got, 3)] == [3, 3]


# --- errors ------------------------------------------------------------------------------

FORMS = "data are an .npz or .npy file, a folder of images, or random:N"
COUNT_AXIS = "the first axis counts the samples, the others are the model's"
ONE_CLASS = "give one class index per sample, in an array of integers"
BAD_SAMPLES = "correct these samples or leave them out"
NAN, INF = float("nan"), float("inf")
BIG = (spec("x", "N", dtype="float16"),)

NAMES: list[Row] = [
    (
        "misspelt",
        {"imgae": ones(2, 3)},
        (spec("image", "N", 3),),
        "no array for input 'image': got 'imgae', the model has 'image' float32 (N, 3)",
        "rename 'imgae' to 'image'",
    ),
    (
        "one other name",
        {"arr_0": ones(2, 3)},
        ROWS,
        "no array for input 'x': got 'arr_0', the model has 'x' float32 (N, 3)",
        "rename 'arr_0' to 'x'",
    ),
    (
        "nearest of several",
        {"b_": ones(2), "q": ones(2)},
        (spec("a", "N"), spec("bb", "N", None)),
        "no array for input 'a', 'bb': got 'b_', 'q', "
        "the model has 'a' float32 (N,), 'bb' float32 (N, ?)",
        "give one array per input, by its name",
    ),
    (
        "one missing",
        {"a": ones(2, 3)},
        PAIR,
        "no array for input 'b': got 'a', the model has 'a' float32 (N, 3), 'b' int64 (N,)",
        "give one array per input, by its name",
    ),
    (
        "only labels",
        {"labels": np.array([1])},
        ROWS,
        "no array for input 'x': got no arrays, the model has 'x' float32 (N, 3)",
        "give one array per input, by its name",
    ),
    (
        "one too many",
        {"x": ones(2, 3), "y": ones(2)},
        ROWS,
        "'y' is not an input: the model has 'x' float32 (N, 3)",
        "leave it out; labels go by the name 'labels'",
    ),
    (
        "array for two inputs",
        ones(2, 3),
        PAIR,
        "an array fills one input, the model has 2: 'a' float32 (N, 3), 'b' int64 (N,)",
        "give an .npz with one array per input",
    ),
    (
        "no inputs",
        ones(2, 3),
        (),
        "the model has no inputs",
        "there is nothing to give samples to",
    ),
]

VALUES: list[Row] = [
    (
        "integers for floats",
        ones(2, 3, dtype="uint8"),
        ROWS,
        "input 'x' is uint8, the model expects float32",
        "scale it as in training, e.g. array.astype('float32') / 255",
    ),
    (
        "bool for floats",
        ones(2, 3, dtype="bool"),
        ROWS,
        "input 'x' is bool, the model expects float32",
        "if the values mean the same, give array.astype('float32')",
    ),
    (
        "floats for integers",
        ones(2),
        (spec("x", "N", dtype="int64"),),
        "input 'x' is float32, the model expects int64",
        "if the values mean the same, give array.astype('int64')",
    ),
    (
        "integers for bool",
        ones(2, dtype="int64"),
        (spec("x", "N", dtype="bool"),),
        "input 'x' is int64, the model expects bool",
        "if the values mean the same, give array.astype('bool')",
    ),
    (
        "strings for floats",
        np.array([["a", "b", "c"]]),
        ROWS,
        "input 'x' is <U1, the model expects float32",
        "if the values mean the same, give array.astype('float32')",
    ),
    (
        "numbers for strings",
        ones(2),
        (spec("x", "N", dtype="string"),),
        "input 'x' is float32, the model expects string",
        "give an array of dtype str",
    ),
    (
        "objects for strings",
        np.array(["a", 1], dtype=object),
        (spec("x", "N", dtype="object"),),
        "input 'x' has values that are no strings",
        "give an array of dtype str",
    ),
    (
        "no such dtype",
        ones(2),
        (spec("x", "N", dtype="float4"),),
        "input 'x' takes float4, which numpy does not have",
        "export the model with float32 inputs",
    ),
    (
        "too large for the integer",
        np.array([-1, 300]),
        (spec("x", "N", dtype="uint8"),),
        "input 'x' has values from -1 to 300, the model expects uint8, which can't hold them",
        "check that the array is the one for this input",
    ),
    (
        "NaN",
        np.array([[0, 0, 0], [0, NAN, 0]]),
        ROWS,
        "input 'x' has NaN or infinite values: 1 of 2 samples, the first is sample 1",
        BAD_SAMPLES,
    ),
    (
        "infinite",
        np.array([[0, 0, 0], [0, 0, -INF], [INF, 0, NAN]], np.float32),
        ROWS,
        "input 'x' has NaN or infinite values: 2 of 3 samples, the first is sample 1",
        BAD_SAMPLES,
    ),
    (
        "too large for the float",
        np.array([1.0, 65504.0, 70000.0]),
        BIG,
        "input 'x' has values too large for float16: 1 of 3 samples, the first is sample 2",
        BAD_SAMPLES,
    ),
]

SHAPES: list[Row] = [
    (
        "rank",
        ones(2, 3, 1),
        ROWS,
        "input 'x' has shape (2, 3, 1), the model expects (samples, 3)",
        COUNT_AXIS,
    ),
    (
        "one sample without its axis",
        ones(3),
        ROWS,
        "input 'x' has shape (3,), the model expects (samples, 3)",
        "the first axis counts the samples: give array[None] for one sample",
    ),
    (
        "dimension",
        ones(2, 4),
        (spec("x", 2, 3),),
        "input 'x' has shape (2, 4), the model expects (samples, 3)",
        COUNT_AXIS,
    ),
    (
        "other order of axes",
        ones(2, 8, 9, 3),
        (spec("x", "N", 3, 8, "W"),),
        "input 'x' has shape (2, 8, 9, 3), the model expects (samples, 3, 8, W)",
        "the axes are in another order: give array.transpose(0, 3, 1, 2)",
    ),
    (
        "feeds",
        {"x": ones(2, 3), "factor": ones(2)},
        SCALED,
        "input 'x' has shape (2, 3), the model expects (samples, N, 3)",
        "the first axis counts the samples: give array[None] for one sample",
    ),
    (
        "no samples",
        ones(0, 3),
        ROWS,
        "input 'x' has no values: shape (0, 3)",
        "give at least one sample",
    ),
    (
        "empty samples",
        ones(2, 0),
        (spec("x", "N", "T"),),
        "input 'x' has no values: shape (2, 0)",
        "give at least one sample",
    ),
    (
        "different numbers",
        {"a": ones(2, 3), "b": ones(4, dtype="int64")},
        PAIR,
        "the inputs have different numbers of samples: 'a' has 2, 'b' has 4",
        "give every input the same samples, along the first axis",
    ),
    (
        "less than a batch",
        ones(3, 3),
        (spec("x", 4, 3),),
        "fewer samples than the model's fixed batch: 3, the batch is 4",
        "give 4 samples or more",
    ),
]

LABELS: list[Row] = [
    (
        f"labels {labels.tolist()}",
        {"x": ones(2, 3), "labels": labels},
        ROWS,
        message,
        hint,
    )
    for labels, message, hint in [
        (np.array([1, 2, 3]), "there are 3 labels for 2 samples", ONE_CLASS),
        (np.array([]), "labels are float64, expected integers", ONE_CLASS),
        (np.array([1.0, 2.0]), "labels are float64, expected integers", ONE_CLASS),
        (np.array([True, False]), "labels are bool, expected integers", ONE_CLASS),
        (np.array([[1], [2]]), "labels have shape (2, 1), expected (2,)", ONE_CLASS),
        (np.array(1), "labels have shape (), expected (2,)", ONE_CLASS),
        (
            np.array([3, -1]),
            "labels go from -1 to 3, expected class indices from 0",
            "leave samples without a class out",
        ),
        (
            np.array([0, 2**63], np.uint64),
            "labels go from 0 to 9223372036854775808, expected class indices from 0",
            "leave samples without a class out",
        ),
    ]
]

BY_CHANCE: list[Row] = [
    *(
        (
            text,
            text,
            ROWS,
            f"'{text}' has no usable number of samples",
            "write random:16 for 16 samples, at most 9999999",
        )
        for text in (
            "random:",
            "random:0",
            "random:x",
            "random:-1",
            "random:2.5",
            "random:10000000",
        )
    ),
    (
        "random strings",
        "random:2",
        (spec("t", "N", dtype="object"),),
        "input 't' takes object, which can't be drawn by chance",
        "give the samples as .npz",
    ),
    (
        "random symbols",
        "random:2",
        (spec("x", "N", "T", 3, "T", "U"),),
        "input 'x' (N, T, 3, T, U): not all dimensions are known",
        "give --dim T=NUMBER --dim U=NUMBER",
    ),
    (
        "random unknown",
        "random:2",
        (spec("x", "N", "T", None),),
        "input 'x' (N, T, ?): not all dimensions are known",
        "give the samples as .npz",
    ),
    (
        "random less than a batch",
        "random:2",
        (spec("x", 4, 3),),
        "fewer samples than the model's fixed batch: 2, the batch is 4",
        "give 4 samples or more",
    ),
]

FILES: list[Row] = [
    (
        "missing",
        "none.npz",
        ROWS,
        "no such file or folder: none.npz",
        f"check the path; {FORMS}",
    ),
    (
        "ending",
        "d.csv",
        ROWS,
        "d.csv is of no known kind: its ending is '.csv'",
        FORMS,
    ),
    (
        "no ending",
        Path("bare"),
        ROWS,
        "bare is of no known kind: its ending is ''",
        FORMS,
    ),
    *(
        (
            name,
            name,
            ROWS,
            f"{name} is damaged, or something else",
            f"write it with numpy.{'savez' if name.endswith('z') else 'save'}",
        )
        for name in (
            "empty.npz",
            "text.npz",
            "cut.npz",
            "array.npz",
            "alien.npz",
            "empty.npy",
            "text.npy",
            "cut.npy",
            "archive.npy",
        )
    ),
    *(
        (
            name,
            name,
            ROWS,
            f"{name} has pickled Python objects, which are never loaded",
            "save arrays of numbers, or of strings with dtype str",
        )
        for name in ("pickle.npz", "pickle.npy")
    ),
    (
        "npy for two inputs",
        "good.npy",
        PAIR,
        "good.npy fills one input, the model has 2: 'a' float32 (N, 3), 'b' int64 (N,)",
        "give an .npz with one array per input",
    ),
]

NO_IMAGES = "images need an input of 4 dimensions with 1 or 3 channels; give the samples as .npz"
FOLDERS: list[Row] = [
    (
        "no images",
        "none",
        PICTURE,
        "no images in none",
        "images end in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp",
    ),
    (
        "damaged image",
        "damaged",
        PICTURE,
        f"image {Path('damaged', 'b.png')} can't be read",
        "replace it or take it out of the folder",
    ),
    (
        "images for two inputs",
        "d",
        PAIR,
        "a folder of images (d) fills one input, the model has 2: "
        "'a' float32 (N, 3), 'b' int64 (N,)",
        "give an .npz with one array per input",
    ),
    (
        "images for rows",
        "d",
        ROWS,
        "input 'x' float32 (N, 3) does not take images",
        NO_IMAGES,
    ),
    (
        "images for four channels",
        "d",
        (spec("x", "N", 4, 8, 8),),
        "input 'x' float32 (N, 4, 8, 8) does not take images",
        NO_IMAGES,
    ),
    (
        "fewer images than a batch",
        "d",
        (spec("x", 2, 3, 8, 8),),
        "fewer samples than the model's fixed batch: 1, the batch is 2",
        "give 2 samples or more",
    ),
]


def _write_files() -> None:
    """All files that the tables name."""
    for name in ("d.csv", "bare", "empty.npz", "empty.npy"):
        Path(name).touch()
    for name in ("text.npz", "text.npy"):
        Path(name).write_text("x,y\n1,2\n", encoding="utf-8")
    np.save("good.npy", ones(20, 3))
    np.savez("good.npz", x=ones(20, 3))
    Path("archive.npy").write_bytes(Path("good.npz").read_bytes())
    Path("array.npz").write_bytes(Path("good.npy").read_bytes())
    for name in ("npz", "npy"):
        whole = Path(f"good.{name}").read_bytes()
        Path(f"cut.{name}").write_bytes(whole[: len(whole) * 2 // 3])
    objects: Any = np.array([{}, []], dtype=object)
    np.savez("pickle.npz", x=objects)
    np.save("pickle.npy", objects)
    Path("none").mkdir()
    images("d/a.png", "damaged/a.png")
    Path("damaged/b.png").write_text("no image", encoding="utf-8")

    with zipfile.ZipFile("alien.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")


TABLE = [*NAMES, *VALUES, *SHAPES, *LABELS, *BY_CHANCE, *FILES, *FOLDERS]


@pytest.mark.parametrize(
    ("data", "inputs", "message", "hint"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_data_are_refused(data: Data, inputs: Inputs, message: str, hint: str) -> None:
    """Every data error: what was got, what the model expects, and what to do."""
    _write_files()
    with pytest.raises(DataError) as caught:
        load_calibration(data, inputs)
    assert (str(caught.value), caught.value.hint) == (message, hint)


OPTIONS: list[tuple[Data, Inputs, dict[str, Any], str, str]] = [
    (
        ones(2, 3),
        ROWS,
        {"preprocess": "unit"},
        "preprocessing 'unit' is for images, the data are none",
        "leave it out: arrays go to the model as they are",
    ),
    (
        "random:2",
        PICTURE,
        {"preprocess": "unit"},
        "preprocessing 'unit' is for images, the data are none",
        "leave it out: arrays go to the model as they are",
    ),
    (
        "d",
        PICTURE,
        {"preprocess": "unti"},
        "unknown preprocessing 'unti'",
        "did you mean 'unit'? give one of 'imagenet', 'unit', 'symmetric', 'raw', or a .toml file",
    ),
    (
        "random:2",
        (spec("x", "N", "height", "width"),),
        {"dims": {"hight": 3}},
        "no input has a dimension 'hight'",
        "did you mean 'height'?",
    ),
    (
        "random:2",
        (spec("x", "N", "height", "width"),),
        {"dims": {"T": 3}},
        "no input has a dimension 'T'",
        "the dimensions are 'N', 'height', 'width'",
    ),
    (
        "random:2",
        (spec("x", 1, 3),),
        {"dims": {"T": 3}},
        "no input has a dimension 'T'",
        "all are fixed",
    ),
    ("random:2", ROWS, {"dims": {"N": 0}}, "dimension 'N' is 0", "give 1 or more"),
]


@pytest.mark.parametrize(("data", "inputs", "options", "message", "hint"), OPTIONS)
def test_options_are_refused(
    data: Data, inputs: Inputs, options: dict[str, Any], message: str, hint: str
) -> None:
    """Options that mean nothing for the data or the model."""
    images("d/a.png")
    with pytest.raises(OptionError) as caught:
        load_calibration(data, inputs, **options)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_dims_bind_the_data() -> None:
    """A value given for a symbol is what the arrays must have."""
    inputs = (spec("x", "N", "T"),)
    with pytest.raises(DataError) as caught:
        load_calibration(ones(2, 5), inputs, dims={"T": 4})
    assert str(caught.value) == "input 'x' has shape (2, 5), the model expects (samples, 4)"
    check(load_calibration(ones(2, 4), inputs, dims={"T": 4, "N": 9}), {"x": ones(2, 4)})
    check(load_calibration(ones(2, 1), inputs, dims={"T": 1}), {"x": ones(2, 1)})


def test_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is passed on."""
    np.save("d.npy", ones(2, 3))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", denied)
    with pytest.raises(DataError, match=r"^d\.npy can't be read: Permission denied$") as caught:
        load_calibration("d.npy", ROWS)
    assert caught.value.hint == "check its permissions"


class _Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
def test_pickles_are_never_loaded(name: str) -> None:
    """Code in a file is not run, neither from objects in arrays nor from a bare pickle."""
    trap: Any = np.array([_Trap()], dtype=object)
    np.savez("d.npz", x=trap)
    np.save("d.npy", trap)
    with pytest.raises(DataError):
        load_calibration(name, ROWS)
    trap.dump(name)
    with pytest.raises(DataError):
        load_calibration(name, ROWS)
    assert not Path("sprung").exists()


def test_errors_are_the_package_s_own() -> None:
    """A command line that catches the base catches these."""
    assert issubclass(DataError, ShapPruneError)
    assert issubclass(OptionError, ShapPruneError)


def test_random_samples_that_no_memory_holds() -> None:
    """Said before anything is drawn."""
    inputs = (spec("x", "N", 2**40, 2**40),)
    with pytest.raises(DataError, match="4 samples are too large") as caught:
        load_calibration("random:4", inputs)
    assert "'x' (N, 1099511627776, 1099511627776)" in str(caught.value)
    assert caught.value.hint == "check the model's input; no memory holds them"
