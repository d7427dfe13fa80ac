"""Images to arrays: which files, which pixels, which numbers."""

from __future__ import annotations

import builtins
import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from onnx_shapprune.errors import DataError, OptionError, ShapPruneError
from onnx_shapprune.images import (
    PRESETS,
    SUFFIXES,
    ImageFormat,
    Preprocess,
    find_images,
    image_format,
    load_preprocess,
    read_image,
    shape_text,
)
from onnx_shapprune.settings import nearest
from onnx_shapprune.types import Array, TensorSpec

RED = (200, 100, 50)
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def spec(*shape: int | str | None, dtype: str = "float32") -> TensorSpec:
    """An input called x."""
    return TensorSpec("x", dtype, shape)


def plain(height: int = 1, width: int = 1, **changes: Any) -> ImageFormat:
    """RGB pixels as they are, channels last, with ``changes`` of the preprocessing."""
    wanted = replace(PRESETS["raw"], **changes)
    return ImageFormat(height, width, 3, False, np.dtype(np.float32), wanted)


def saved(image: Image.Image, path: str = "a.png", **options: Any) -> Path:
    """The file that ``image`` was written to."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return Path(path)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """An RGB image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, so that messages can be compared as a whole."""
    monkeypatch.chdir(tmp_path)


# --- Preprocess ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", (np.array(RED) / 255 - MEAN) / STD),
        ("unit", np.array(RED) / 255),
        ("symmetric", np.array(RED) / 127.5 - 1),
        ("raw", np.array(RED)),
    ],
)
def test_presets_give_their_numbers(name: str, expected: Array) -> None:
    """Each preset turns a colour into the numbers it promises."""
    path = saved(Image.new("RGB", (5, 7), RED))
    got = read_image(path, image_format(spec("N", 3, 4, 6), load_preprocess(name)))
    np.testing.assert_allclose(got, np.broadcast_to(expected[:, None, None], (3, 4, 6)), rtol=1e-6)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (299, 342), (112, 128), (32, 37)])
def test_imagenet_keeps_its_proportion_at_other_sizes(side: int, shorter: int) -> None:
    """256 pixels for a crop of 224, and as much of the image at other sizes."""
    assert image_format(spec(1, 3, side, side), PRESETS["imagenet"]).shorter_side == shorter


TOML = [
    ("", Preprocess()),
    ("size = 1", Preprocess(size=(1, 1))),
    ("size = [4, 6]", Preprocess(size=(4, 6))),
    ("mean = 0.5\nstd = [1, 2, 4]", Preprocess(mean=(0.5,), std=(1.0, 2.0, 4.0))),
    ("scale = 1", Preprocess(scale=1.0)),
    ("crop = true\nresize = 40", Preprocess(crop=True, resize=40)),
    ("crop = true\nzoom = 1.5", Preprocess(crop=True, zoom=1.5)),
    (
        "layout = 'nhwc'\ncolor = 'gray'\ninterpolation = 'bicubic'",
        Preprocess(layout="nhwc", color="gray", interpolation="bicubic"),
    ),
    ("preset = 'raw'", PRESETS["raw"]),
    ("preset = 'imagenet'\nresize = 232", replace(PRESETS["imagenet"], resize=232)),
    ("preset = 'imagenet'\ncrop = false", replace(PRESETS["imagenet"], crop=False)),
    (
        "preset = 'imagenet'\ncolor = 'bgr'\nstd = [1, 2, 3]",
        replace(PRESETS["imagenet"], color="bgr", mean=(0.406, 0.456, 0.485), std=(1.0, 2.0, 3.0)),
    ),
]


@pytest.mark.parametrize(("text", "expected"), TOML)
@pytest.mark.parametrize("kind", [str, Path])
def test_toml_is_read(text: str, expected: Preprocess, kind: type) -> None:
    """Every key of the file ends in its field, given as str or as Path."""
    Path("p.toml").write_text(text, encoding="utf-8")
    assert load_preprocess(kind("p.toml")) == expected


WRONG_VALUES = [
    ("preset = 'x'", "'preset' is 'x'", "one of 'imagenet', 'unit', 'symmetric', 'raw'"),
    ("preset = ['raw']", "'preset' is ['raw']", "one of 'imagenet', 'unit', 'symmetric', 'raw'"),
    ("size = 0", "'size' is 0", "a number of pixels or [height, width]"),
    ("size = true", "'size' is True", "a number of pixels or [height, width]"),
    ("size = [4]", "'size' is [4]", "a number of pixels or [height, width]"),
    ("size = [4, 5, 6]", "'size' is [4, 5, 6]", "a number of pixels or [height, width]"),
    ("size = [4, 5.0]", "'size' is [4, 5.0]", "a number of pixels or [height, width]"),
    ("crop = 1", "'crop' is 1", "true or false"),
    ("crop = true\nresize = -1", "'resize' is -1", "a number of pixels"),
    ("zoom = 0.9", "'zoom' is 0.9", "a number, 1 or more"),
    ("scale = 0", "'scale' is 0", "a number above 0"),
    ("scale = nan", "'scale' is nan", "a number above 0"),
    ("mean = inf", "'mean' is inf", "a number, or a list of 1 or 3 numbers"),
    ("mean = false", "'mean' is False", "a number, or a list of 1 or 3 numbers"),
    ("mean = [1, 2]", "'mean' is [1, 2]", "a number, or a list of 1 or 3 numbers"),
    ("mean = []", "'mean' is []", "a number, or a list of 1 or 3 numbers"),
    ("mean = [1, 'b', 2]", "'mean' is [1, 'b', 2]", "a number, or a list of 1 or 3 numbers"),
    ("std = [1, 0, 1]", "'std' is [1, 0, 1]", "a number above 0, or a list of 1 or 3"),
    ("color = 'RGB'", "'color' is 'RGB'", "one of 'rgb', 'bgr', 'gray'"),
    ("layout = 'chw'", "'layout' is 'chw'", "one of 'auto', 'nchw', 'nhwc'"),
    ("interpolation = 2", "'interpolation' is 2", "one of 'nearest', 'bilinear', 'bicubic'"),
]


@pytest.mark.parametrize(("text", "problem", "needed"), WRONG_VALUES)
def test_toml_value_is_refused(text: str, problem: str, needed: str) -> None:
    """Values that a key can't have are named, with what it needs."""
    Path("p.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        load_preprocess("p.toml")
    assert (str(caught.value), caught.value.hint) == (f"p.toml: {problem}", f"give {needed}")


ALL_KEYS = (
    "'preset', 'size', 'crop', 'resize', 'zoom', 'scale', 'mean', 'std', 'color', 'layout', "
    "'interpolation'"
)
UNUSABLE = [
    (
        "imagnet",
        "unknown preprocessing 'imagnet'",
        "did you mean 'imagenet'? give one of 'imagenet', 'unit', 'symmetric', 'raw', "
        "or a .toml file",
    ),
    (
        "p.json",
        "unknown preprocessing 'p.json'",
        "give one of 'imagenet', 'unit', 'symmetric', 'raw', or a .toml file",
    ),
    (
        "none.toml",
        "none.toml can't be read: No such file or directory",
        "check the path given for --preprocess",
    ),
    ("key.toml", "key.toml: unknown key 'meen'", "did you mean 'mean'?"),
    ("odd.toml", "odd.toml: unknown key 'qqq'", f"the keys are {ALL_KEYS}"),
    (
        "resize.toml",
        "resize.toml: 'resize' does nothing without 'crop'",
        "add crop = true, or leave resize out",
    ),
]


@pytest.mark.parametrize(("given_", "message", "hint"), UNUSABLE)
def test_preprocessing_is_refused(given_: str, message: str, hint: str) -> None:
    """What is neither a preset nor a usable file."""
    for name, text in (("key", "meen = 1"), ("odd", "qqq = 1"), ("resize", "resize = 9")):
        Path(f"{name}.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        load_preprocess(given_)
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize("content", [b"size 4", b"\xff = 1"])
def test_not_toml(content: bytes) -> None:
    """Broken TOML tells where, also where it isn't even text."""
    Path("p.toml").write_bytes(content)
    with pytest.raises(ValueError) as reason, Path("p.toml").open("rb") as file:  # noqa: PT011
        tomllib.load(file)
    with pytest.raises(OptionError) as caught:
        load_preprocess("p.toml")
    assert str(caught.value) == f"p.toml is not TOML: {reason.value}"
    assert caught.value.hint == "write lines such as: size = [224, 224]"


def test_toml_that_is_nested_too_deeply() -> None:
    Path("p.toml").write_text(f"size = {'[' * 100_000}", encoding="utf-8")
    with pytest.raises(OptionError, match="is not TOML: maximum recursion"):
        load_preprocess("p.toml")


# --- ImageFormat -----------------------------------------------------------------------

FORMATS = [
    (spec("N", 3, 4, 6), Preprocess(), (3, 4, 6)),
    (spec("N", 4, 6, 3), Preprocess(), (4, 6, 3)),
    (spec(1, 1, 4, 6), Preprocess(), (1, 4, 6)),
    (spec(None, 4, 6, 1), Preprocess(), (4, 6, 1)),
    (spec("N", 3, 4, 3), Preprocess(), (3, 4, 3)),
    (spec("N", 3, 4, 3), Preprocess(layout="nhwc"), (3, 4, 3)),
    (spec("N", 3, "H", "W"), Preprocess(), (3, 8, 9)),
    (spec("N", "C", 4, 6), Preprocess(), (1, 4, 6)),
    (spec("N", 3, None, None), Preprocess(size=(5, 7)), (3, 5, 7)),
    (spec("N", 3, None, 6), Preprocess(size=(5, 6)), (3, 5, 6)),
    (spec("N", 3, 4, 6), Preprocess(size=(4, 6)), (3, 4, 6)),
    (spec("N", None, None, None), Preprocess(size=(4, 6), layout="nhwc"), (4, 6, 3)),
    (spec("N", None, 4, 6), Preprocess(layout="nchw", color="gray"), (1, 4, 6)),
    (spec("N", 4, 6, 3, dtype="uint8"), PRESETS["raw"], (4, 6, 3)),
    (spec("N", 4, 6, 3, dtype="float16"), Preprocess(), (4, 6, 3)),
]


@pytest.mark.parametrize(("input_", "wanted", "shape"), FORMATS)
def test_format_follows_the_input(
    input_: TensorSpec, wanted: Preprocess, shape: tuple[int, ...]
) -> None:
    """Layout, channels, size and dtype come from the input, then from the preprocessing."""
    saved(noise(10, 12))
    made = image_format(input_, wanted, {"H": 8, "W": 9, "C": 1})
    got = read_image(Path("a.png"), made)
    assert (got.shape, made.shape, got.dtype.name) == (shape, shape, input_.dtype)


@pytest.mark.parametrize(
    ("wanted", "shorter"),
    [
        (Preprocess(crop=True), 4),
        (Preprocess(crop=True, zoom=2.0), 8),
        (Preprocess(crop=True, resize=4), 4),
        (Preprocess(crop=True, resize=9, zoom=2.0), 9),
    ],
)
def test_shorter_side_before_the_crop(wanted: Preprocess, shorter: int) -> None:
    """The crop just fits, unless resize or else zoom asks for more."""
    assert image_format(spec("N", 3, 4, 6), wanted).shorter_side == shorter


def test_layout_decides_where_both_are_possible() -> None:
    """(N, 3, 4, 3) is channels first unless the preprocessing says else."""
    assert image_format(spec("N", 3, 4, 3), Preprocess()).channels_first
    assert not image_format(spec("N", 3, 4, 3), Preprocess(layout="nhwc")).channels_first


NOT_IMAGES = "images need an input of 4 dimensions with 1 or 3 channels; give the samples as .npz"
SAY_SIZE = "write size = [height, width] in a .toml file for --preprocess"
REFUSED = [
    (
        spec("N", 8),
        Preprocess(),
        DataError,
        "input 'x' float32 (N, 8) does not take images",
        NOT_IMAGES,
    ),
    (
        spec("N", 4, 8, 8),
        Preprocess(),
        DataError,
        "input 'x' float32 (N, 4, 8, 8) does not take images",
        NOT_IMAGES,
    ),
    (
        spec("N", 8, 8, 3),
        Preprocess(layout="nchw"),
        DataError,
        "input 'x' float32 (N, 8, 8, 3) does not take images",
        NOT_IMAGES,
    ),
    (
        spec("N", 3, 8, 8, dtype="int8"),
        PRESETS["raw"],
        DataError,
        "input 'x' int8 (N, 3, 8, 8) does not take images",
        NOT_IMAGES,
    ),
    (
        spec("N", 3, 8, 8, dtype="float8e4m3"),
        PRESETS["raw"],
        DataError,
        "input 'x' float8e4m3 (N, 3, 8, 8) does not take images",
        NOT_IMAGES,
    ),
    (
        spec("N", "C", None, 8),
        Preprocess(),
        DataError,
        "input 'x' (N, C, ?, 8): can't tell which axis is the channels",
        'write layout = "nchw" or layout = "nhwc" in a .toml file for --preprocess',
    ),
    (
        spec("N", 4, 4, "C"),
        Preprocess(),
        DataError,
        "input 'x' (N, 4, 4, C): can't tell which axis is the channels",
        'write layout = "nchw" or layout = "nhwc" in a .toml file for --preprocess',
    ),
    (
        spec("N", 3, "H", "W"),
        Preprocess(),
        DataError,
        "input 'x' (N, 3, H, W): height and width are not known",
        f"give --dim H=PIXELS --dim W=PIXELS, or {SAY_SIZE}",
    ),
    (
        spec("N", 3, "H", 8),
        Preprocess(),
        DataError,
        "input 'x' (N, 3, H, 8): height and width are not known",
        f"give --dim H=PIXELS, or {SAY_SIZE}",
    ),
    (
        spec("N", 3, "H", None),
        Preprocess(),
        DataError,
        "input 'x' (N, 3, H, ?): height and width are not known",
        SAY_SIZE,
    ),
    (
        spec("N", 3, 8, 8),
        Preprocess(size=(8, 9)),
        OptionError,
        "size (8, 9) does not fit input 'x' (N, 3, 8, 8)",
        "leave size out, or give the model's own",
    ),
    (
        spec("N", 1, 8, 8),
        PRESETS["imagenet"],
        OptionError,
        "mean has 3 values, input 'x' has 1 channel",
        "give mean one value in a .toml file for --preprocess",
    ),
    (
        spec("N", 1, 8, 8),
        Preprocess(std=(1.0, 2.0, 3.0)),
        OptionError,
        "std has 3 values, input 'x' has 1 channel",
        "give std one value in a .toml file for --preprocess",
    ),
    (
        spec("N", 3, 8, 8, dtype="uint8"),
        Preprocess(),
        OptionError,
        "input 'x' takes uint8, the preprocessing makes fractions",
        "use --preprocess raw",
    ),
    (
        spec("N", 3, 8, 9),
        Preprocess(crop=True, resize=7),
        OptionError,
        "resize 7 is less than the crop of 8 x 9 pixels",
        "give a larger resize, or leave it out",
    ),
]


@pytest.mark.parametrize(("input_", "wanted", "kind", "message", "hint"), REFUSED)
def test_format_is_refused(
    input_: TensorSpec, wanted: Preprocess, kind: type[ShapPruneError], message: str, hint: str
) -> None:
    """Inputs that take no images, and preprocessing that contradicts the input."""
    with pytest.raises(kind) as caught:
        image_format(input_, wanted)
    assert (str(caught.value), caught.value.hint) == (message, hint)


# --- pixels ----------------------------------------------------------------------------


def test_lossless_pixels_come_through() -> None:
    """A PNG of the model's size is its pixels, in both layouts."""
    pixels = np.asarray(noise(4, 6))
    path = saved(noise(4, 6))
    np.testing.assert_array_equal(read_image(path, plain(4, 6)), pixels)
    first = read_image(path, replace(plain(4, 6), channels_first=True))
    np.testing.assert_array_equal(first, pixels.transpose(2, 0, 1))


def test_color_order() -> None:
    """Order bgr reverses, gray repeats, and mean and std follow the model's channels."""
    path = saved(Image.new("RGB", (1, 1), RED))
    swapped = read_image(path, plain(color="bgr", mean=(50.0, 100.0, 199.0)))
    gray = read_image(path, plain(color="gray", std=(1.0, 2.0, 4.0)))
    luma = 124  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    np.testing.assert_array_equal(swapped.ravel(), [0, 0, 1])
    np.testing.assert_array_equal(gray.ravel(), [luma, luma / 2, luma / 4])


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_one_channel_is_gray(color: str) -> None:
    """A model with one channel gets luminance, whatever the colour order."""
    path = saved(Image.new("RGB", (1, 1), RED))
    made = replace(plain(color=color), channels=1)
    np.testing.assert_array_equal(read_image(path, made), [[[124]]])


def _palette() -> Image.Image:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, *RED])
    return image


MODES: list[tuple[str, Callable[[], Image.Image], str, dict[str, Any], tuple[int, int, int]]] = [
    ("RGBA", lambda: Image.new("RGBA", (1, 1), (*RED, 7)), "a.png", {}, RED),
    ("palette", _palette, "a.png", {}, RED),
    ("palette, one clear", _palette, "a.png", {"transparency": 0}, RED),
    ("palette, alpha", _palette, "a.png", {"transparency": b"\x80\x80"}, RED),
    ("gray", lambda: Image.new("L", (1, 1), 9), "a.png", {}, (9, 9, 9)),
    ("gray, one clear", lambda: Image.new("L", (1, 1), 9), "a.png", {"transparency": 9}, (9, 9, 9)),
    ("gray, alpha", lambda: Image.new("LA", (1, 1), (9, 7)), "a.png", {}, (9, 9, 9)),
    ("bits", lambda: Image.new("1", (1, 1), 1), "a.png", {}, (255, 255, 255)),
    ("CMYK", lambda: Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "a.tif", {}, (0, 255, 255)),
    (
        "16 bits",
        lambda: Image.fromarray(np.array([[51500]], np.uint16)),
        "a.png",
        {},
        (200, 200, 200),
    ),
    ("32 bits, low", lambda: Image.new("I", (1, 1), 0), "a.tif", {}, (0, 0, 0)),
    ("32 bits, high", lambda: Image.new("I", (1, 1), 65535), "a.tif", {}, (255, 255, 255)),
    ("gif", _palette, "a.gif", {}, RED),
]


@pytest.mark.parametrize(
    ("make", "path", "options", "expected"),
    [each[1:] for each in MODES],
    ids=[each[0] for each in MODES],
)
def test_modes_become_rgb(
    make: Callable[[], Image.Image],
    path: str,
    options: dict[str, Any],
    expected: tuple[int, int, int],
) -> None:
    """Palettes, alpha, CMYK, bits and 16-bit gray; transparency is dropped."""
    got = read_image(saved(make(), path, **options), plain())
    np.testing.assert_array_equal(got.ravel(), expected)


def test_exif_orientation_is_followed() -> None:
    """Orientation 6 (stored on its side) is turned clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(noise(4, 6), exif=exif)
    upright = np.rot90(np.asarray(noise(4, 6)), -1)
    np.testing.assert_array_equal(read_image(path, plain(6, 4)), upright)


def test_first_frame_counts() -> None:
    """Of an animation only the first frame is used."""
    frames = [Image.new("L", (1, 1), value) for value in (10, 200)]
    path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path, plain()).ravel(), [10, 10, 10])


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
def test_without_crop_the_whole_image_is_stretched(name: str) -> None:
    """The same as Pillow's resize with that filter."""
    path = saved(noise(9, 20))
    oracle = noise(9, 20).resize((8, 6), Image.Resampling[name.upper()])
    got = read_image(path, plain(6, 8, interpolation=name))
    np.testing.assert_array_equal(got, np.asarray(oracle))


@settings(max_examples=60, deadline=None, database=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    more=st.integers(0, 30),
)
def test_crop_is_resize_then_cut(size: tuple[int, int], crop: tuple[int, int], more: int) -> None:
    """Resizing the visible part equals resizing all and cutting out the centre."""
    image = noise(*size)
    shorter = min(crop) + more
    factor = max(shorter / min(size), crop[0] / size[0], crop[1] / size[1])
    height, width = (
        max(goal, int(side * factor + 1e-6)) for side, goal in zip(size, crop, strict=True)
    )
    left, top = round((width - crop[1]) / 2), round((height - crop[0]) / 2)
    oracle = image.resize((width, height), Image.Resampling.BILINEAR).crop(
        (left, top, left + crop[1], top + crop[0])
    )
    path = saved(image)
    got = read_image(path, plain(*crop, crop=True, resize=shorter))
    # Each of Pillow's two passes rounds: either side is off by 1 at most.
    np.testing.assert_allclose(got, np.asarray(oracle), atol=2)


@settings(max_examples=40, deadline=None, database=None)
@given(
    color=st.tuples(*[st.integers(0, 255)] * 3),
    mean=st.floats(-2, 2),
    std=st.floats(0.1, 4),
    order=st.sampled_from(["rgb", "bgr"]),
)
def test_numbers_lead_back_to_pixels(
    color: tuple[int, int, int], mean: float, std: float, order: str
) -> None:
    """(pixel * scale - mean) / std, undone, is the pixel."""
    path = saved(Image.new("RGB", (1, 1), color))
    got = read_image(path, plain(scale=1 / 255, mean=(mean,), std=(std,), color=order)).ravel()
    back = (got.astype(float) * std + mean) * 255
    np.testing.assert_allclose(back if order == "rgb" else back[::-1], color, atol=1e-2)


BROKEN: list[tuple[str, bytes]] = [
    ("empty.png", b""),
    ("text.jpg", b"this is text"),
    ("cut.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 20),
]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_unreadable_image_is_named(name: str, content: bytes) -> None:
    """Damaged files are data errors with the file's name."""
    Path(name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(Path(name), plain())
    assert str(caught.value) == f"image {name} can't be read"
    assert caught.value.hint == "replace it or take it out of the folder"


def test_truncated_and_boundless_images_are_unreadable() -> None:
    """Half a JPEG, and 32-bit pixels, which have no range."""
    whole = saved(noise(32, 32), "a.jpg").read_bytes()
    Path("half.jpg").write_bytes(whole[: len(whole) // 2])
    saved(Image.new("F", (1, 1), 0.5), "float.tif")
    saved(Image.new("I", (1, 1), 65536), "large.tif")
    saved(Image.new("I", (1, 1), -1), "negative.tif")
    for name in ("half.jpg", "float.tif", "large.tif", "negative.tif"):
        with pytest.raises(DataError, match=f"^image {name} can't be read$"):
            read_image(Path(name), plain())


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the error says what to install."""
    original = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return original(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError) as caught:
        read_image(Path("a.png"), plain())
    monkeypatch.undo()
    assert (str(caught.value), caught.value.hint) == (
        "reading images needs Pillow",
        "pip install pillow",
    )


def test_import_is_light() -> None:
    """Neither module imports Pillow, ONNX or a runtime."""
    code = (
        "import sys, onnx_shapprune.calibration\n"
        "print([m for m in ('PIL', 'onnx', 'onnxruntime', 'scipy', 'torch') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# --- folders ---------------------------------------------------------------------------


def touch(*paths: str) -> None:
    """Empty files, with their folders."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def test_flat_folder_has_no_labels() -> None:
    """Images by name in sorted order; other and hidden files are left out."""
    touch("d/b.PNG", "d/a.jpg", "d/.c.png", "d/notes.txt", "d/sub/readme.md")
    found = find_images(Path("d"))
    assert [path.name for path in found.paths] == ["a.jpg", "b.PNG"]
    assert (found.labels, found.notes) == (None, ())


def test_every_suffix_counts() -> None:
    """Files with any of the suffixes are images."""
    touch(*(f"d/a{suffix}" for suffix in SUFFIXES))
    assert {path.suffix for path in find_images(Path("d")).paths} == SUFFIXES


def test_names_of_sub_folders_are_labels() -> None:
    """Sub-folders that are numbers are the labels themselves, not their order."""
    touch("d/10/a.png", "d/2/a.png", "d/2/b.png", "d/007/a.png")
    found = find_images(Path("d"))
    assert found.labels is not None
    got = {str(path): label for path, label in zip(found.paths, found.labels, strict=True)}
    assert got == {"d/007/a.png": 7, "d/10/a.png": 10, "d/2/a.png": 2, "d/2/b.png": 2}
    assert (found.labels.dtype.name, found.notes) == ("int64", ())


def test_sub_folders_are_counted_in_order() -> None:
    """Names give indices, also of a class without images; hidden folders don't count."""
    touch("d/cat/a.png", "d/eel/a.png", "d/eel/b.png", "d/bat/none.txt", "d/.git/x.png")
    touch("d/__MACOSX/x.png")
    found = find_images(Path("d"))
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2, 2]
    assert found.notes == (
        "labels are the indices of the sub-folders in sorted order: 0 = bat, 1 = cat, 2 = eel",
    )


def test_one_name_makes_all_indices() -> None:
    """A single sub-folder that is no number turns all of them into indices."""
    touch("d/5/a.png", "d/-1/a.png")
    found = find_images(Path("d"))
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]
    assert found.notes == (
        "labels are the indices of the sub-folders in sorted order: 0 = -1, 1 = 5",
    )


@pytest.mark.parametrize(("names", "rest"), [("abcde", ""), ("abcdefg", ", ... (7 in all)")])
def test_note_on_many_labels_is_short(names: str, rest: str) -> None:
    """Only the first five classes are listed."""
    touch(*(f"d/{name}/a.png" for name in names))
    assert find_images(Path("d")).notes == (
        "labels are the indices of the sub-folders in sorted order: "
        f"0 = a, 1 = b, 2 = c, 3 = d, 4 = e{rest}",
    )


ENDINGS = "images end in .bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"
FOLDERS = [
    (("d/a.txt",), "no images in d", ENDINGS),
    (("d/sub/deep/a.png",), "no images in d", ENDINGS),
    (
        ("d/a.png", "d/cat/b.png"),
        "d has images both beside its sub-folders and in them",
        "put every image in the sub-folder of its label, or none",
    ),
]


@pytest.mark.parametrize(("files", "message", "hint"), FOLDERS)
def test_folder_is_refused(files: tuple[str, ...], message: str, hint: str) -> None:
    """No images, or no telling what they are labelled."""
    touch(*files)
    with pytest.raises(DataError) as caught:
        find_images(Path("d"))
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_unreadable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is passed on."""

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"^d can't be read: Permission denied$") as caught:
        find_images(Path("d"))
    assert caught.value.hint == "check its permissions"


# --- words -----------------------------------------------------------------------------


def test_shapes_as_text() -> None:
    """Unknown dimensions are question marks; a lone one keeps its comma."""
    got = [shape_text(shape) for shape in ((), ("N",), ("N", 3, None))]
    assert got == ["()", "(N,)", "(N, 3, ?)"]


def test_nearest_is_near_or_nothing() -> None:
    """A guess only where words are alike."""
    assert (nearest("hight", ["height", "width"]), nearest("q", ["height"])) == ("height", "")


# --- documentation ---------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def test_documented_keys_are_the_keys() -> None:
    """The table of the TOML keys has every key and no other."""
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    fields = [field.name for field in dataclasses.fields(Preprocess)]
    assert sorted(documented) == sorted(["preset", *fields])


def test_documented_files_load() -> None:
    """Every TOML example is a usable file."""
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for text in examples:
        Path("p.toml").write_text(text, encoding="utf-8")
        assert load_preprocess("p.toml") != Preprocess()
    assert examples
