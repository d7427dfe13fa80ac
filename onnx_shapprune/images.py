"""Images to arrays: which files, which pixels, which numbers.

A `Preprocess` says what the user wants, an `ImageFormat` what it comes to for one
input of one model. Pillow is imported only when an image is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .errors import DataError, OptionError
from .settings import nearest, quoted, read_toml, unknown_key
from .types import Array, IntArray, Shape, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

Layout = Literal["auto", "nchw", "nhwc"]
Color = Literal["rgb", "bgr", "gray"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files that count as images, by their lower-case ending."""

NO_DIMS: Mapping[str, int] = MappingProxyType({})
"""No symbolic dimension has a value."""

_IMAGE_RANK = 4
_CHANNELS = (1, 3)
_SHOWN = 5
_WIDE_TO_BYTE = 257  # 65535 / 255


# --- words for messages ------------------------------------------------------------


def shape_text(shape: Shape) -> str:
    """``shape`` as users write it: (N, 3, ?), a lone entry as (N,)."""
    entries = ["?" if dim is None else str(dim) for dim in shape]
    return f"({', '.join(entries)}{',' * (len(entries) == 1)})"


def resolved(shape: Shape, dims: Mapping[str, int]) -> Shape:
    """``shape`` with the symbols that ``dims`` knows replaced by their values."""
    return tuple(dims.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)


# --- what the user wants -------------------------------------------------------------


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes numbers: ``(pixel * scale - mean) / std``, pixels 0 to 255.

    ``size`` is (height, width) in pixels, None: the model's own. Without ``crop`` the
    whole image is stretched to it. With ``crop`` the shorter side is first resized to
    ``resize`` pixels (None: ``zoom`` times the shorter side of ``size``), and the centre
    is cut out. ``mean`` and ``std`` have one value, or one per channel in the order of the
    model's channels. ``color`` is the order of three channels; a model with one
    channel gets gray, and "gray" gives a model with three the same value in each.
    """

    size: tuple[int, int] | None = None
    resize: int | None = None
    zoom: float = 1.0
    crop: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: Layout = "auto"
    color: Color = "rgb"
    interpolation: Interpolation = "bilinear"

    @property
    def keeps_bytes(self) -> bool:
        """Whether the numbers are the pixels themselves, integers from 0 to 255."""
        return self.scale == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}


PRESETS: Mapping[str, Preprocess] = MappingProxyType(
    {
        # A ratio, so that a model of 299 pixels sees as much of the image as one of 224.
        "imagenet": Preprocess(
            zoom=256 / 224, crop=True, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        "unit": Preprocess(),
        "symmetric": Preprocess(mean=(0.5,), std=(0.5,)),
        "raw": Preprocess(scale=1.0),
    }
)
"""Preprocessing by name; mean and std in the order r, g, b."""


def load_preprocess(spec: str | Path) -> Preprocess:
    """The preset of that name, or what a .toml file says.

    The keys of the file are the fields of `Preprocess` and ``preset``, from which the
    other keys then differ (without it: from "unit").

    Raises:
        OptionError: no such preset or file, not TOML, an unknown key, or a wrong value.
    """
    text = str(spec)
    if text in PRESETS:
        return PRESETS[text]
    if Path(text).suffix.lower() != ".toml":
        guess = nearest(text, PRESETS)
        meant = f"did you mean '{guess}'? " if guess else ""
        raise OptionError(
            f"unknown preprocessing '{text}'",
            f"{meant}give one of {quoted(PRESETS)}, or a .toml file",
        )
    table = read_toml(Path(text), "--preprocess", "size = [224, 224]")
    return _from_table(table, text)


def _from_table(table: Mapping[str, object], source: str) -> Preprocess:
    values: dict[str, Any] = {key: _value(key, raw, source) for key, raw in table.items()}
    base = PRESETS[values.pop("preset", "unit")]
    if values.get("color") == "bgr":  # the presets' numbers are in the order r, g, b
        base = replace(base, mean=base.mean[::-1], std=base.std[::-1])
    made = replace(base, **values)
    if "resize" in values and not made.crop:
        raise OptionError(
            f"{source}: 'resize' does nothing without 'crop'",
            "add crop = true, or leave resize out",
        )
    return made


def _value(key: str, raw: object, source: str) -> object:
    if key not in _KEYS:
        raise unknown_key(key, _KEYS, source)
    expected, read = _KEYS[key]
    value = read(raw)
    if value is None:
        raise OptionError(f"{source}: '{key}' is {raw!r}", f"give {expected}")
    return value


# Readers of one TOML value: None where it isn't what the key needs.


def _pixels(raw: object) -> int | None:
    return raw if type(raw) is int and raw > 0 else None  # bool is an int, too


def _size(raw: object) -> tuple[int, int] | None:
    entries = raw if isinstance(raw, list) else [raw, raw]
    match [_pixels(entry) for entry in entries]:
        case [int(height), int(width)]:
            return height, width
    return None


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    return float(raw) if math.isfinite(raw) else None


def _positive(raw: object) -> float | None:
    number = _number(raw)
    return number if number is not None and number > 0 else None


def _zoom(raw: object) -> float | None:
    number = _number(raw)
    return number if number is not None and number >= 1 else None


def _per_channel(read: Callable[[object], float | None]) -> Callable[[object], object]:
    def numbers(raw: object) -> tuple[float, ...] | None:
        found = [read(entry) for entry in (raw if isinstance(raw, list) else [raw])]
        usable = tuple(number for number in found if number is not None)
        return usable if len(usable) == len(found) and len(found) in _CHANNELS else None

    return numbers


def _flag(raw: object) -> bool | None:
    return raw if isinstance(raw, bool) else None


def _one_of(words: Iterable[str]) -> tuple[str, Callable[[object], object]]:
    known = tuple(words)
    return f"one of {quoted(known)}", lambda raw: raw if raw in known else None


_KEYS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "preset": _one_of(PRESETS),
    "size": ("a number of pixels or [height, width]", _size),
    "crop": ("true or false", _flag),
    "resize": ("a number of pixels", _pixels),
    "zoom": ("a number, 1 or more", _zoom),
    "scale": ("a number above 0", _positive),
    "mean": ("a number, or a list of 1 or 3 numbers", _per_channel(_number)),
    "std": ("a number above 0, or a list of 1 or 3", _per_channel(_positive)),
    "color": _one_of(get_args(Color)),
    "layout": _one_of(get_args(Layout)),
    "interpolation": _one_of(get_args(Interpolation)),
}


# --- what it comes to for one model --------------------------------------------------


@dataclass(frozen=True)
class ImageFormat:
    """The array that one image becomes.

    (channels, height, width) if ``channels_first``, else (height, width, channels), in
    pixels; ``channels`` is 1 or 3.
    """

    height: int
    width: int
    channels: int
    channels_first: bool
    dtype: np.dtype[Any]
    preprocess: Preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array."""
        if self.channels_first:
            return self.channels, self.height, self.width
        return self.height, self.width, self.channels

    @property
    def shorter_side(self) -> int:
        """Pixels that the shorter side of an image has before the crop, at least."""
        side = min(self.height, self.width)
        return self.preprocess.resize or round(self.preprocess.zoom * side)


def image_format(
    spec: TensorSpec, preprocess: Preprocess, dims: Mapping[str, int] = NO_DIMS
) -> ImageFormat:
    """What ``preprocess`` comes to for the input ``spec``, symbols valued by ``dims``.

    Raises:
        DataError: the input doesn't take images, or its layout or size isn't known.
        OptionError: ``preprocess`` contradicts the input.
    """
    shape = resolved(spec.shape, dims)
    if len(shape) != _IMAGE_RANK or not _holds_bytes(spec.dtype):
        raise _not_for_images(spec)
    first = _channels_first(spec, shape, preprocess.layout)
    channels = _channels(spec, shape[1 if first else -1], preprocess)
    height, width = _extent(spec, shape[2:] if first else shape[1:3], preprocess.size)
    made = ImageFormat(height, width, channels, first, np.dtype(spec.dtype), preprocess)
    _check_format(spec, made)
    return made


def _holds_bytes(dtype: str) -> bool:
    """Whether every pixel from 0 to 255 has a value in this dtype."""
    try:
        return np.can_cast(np.uint8, dtype) and np.dtype(dtype).kind in "fiu"
    except TypeError:  # not a dtype of numpy's, e.g. string or bfloat16
        return False


def _not_for_images(spec: TensorSpec) -> DataError:
    return DataError(
        f"input '{spec.name}' {spec.dtype} {shape_text(spec.shape)} does not take images",
        "images need an input of 4 dimensions with 1 or 3 channels; give the samples as .npz",
    )


def _channels_first(spec: TensorSpec, shape: Shape, layout: Layout) -> bool:
    if layout != "auto":
        return layout == "nchw"
    if shape[1] in _CHANNELS:
        return True
    if shape[-1] in _CHANNELS:
        return False
    if isinstance(shape[1], int) and isinstance(shape[-1], int):
        raise _not_for_images(spec)
    raise DataError(
        f"input '{spec.name}' {shape_text(spec.shape)}: can't tell which axis is the channels",
        'write layout = "nchw" or layout = "nhwc" in a .toml file for --preprocess',
    )


def _channels(spec: TensorSpec, found: int | str | None, preprocess: Preprocess) -> int:
    if not isinstance(found, int):
        return 1 if preprocess.color == "gray" else 3
    if found not in _CHANNELS:
        raise _not_for_images(spec)
    return found


def _extent(spec: TensorSpec, model: Shape, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width: the model's where it has them, else the wanted ones."""
    pairs = zip(model, wanted or (None, None), strict=True)
    match [own if isinstance(own, int) else other for own, other in pairs]:
        case [int(height), int(width)] if wanted in (None, (height, width)):
            return height, width
        case [int(), int()]:
            raise OptionError(
                f"size {shape_text(wanted or ())} does not fit input '{spec.name}' "
                f"{shape_text(spec.shape)}",
                "leave size out, or give the model's own",
            )
    names = [f"--dim {dim}=PIXELS" for dim in model if isinstance(dim, str)]
    written = "write size = [height, width] in a .toml file for --preprocess"
    raise DataError(
        f"input '{spec.name}' {shape_text(spec.shape)}: height and width are not known",
        f"give {' '.join(names)}, or {written}" if names and None not in model else written,
    )


def _check_format(spec: TensorSpec, made: ImageFormat) -> None:
    wanted = made.preprocess
    for key, values in (("mean", wanted.mean), ("std", wanted.std)):
        if len(values) not in (1, made.channels):
            raise OptionError(
                f"{key} has {len(values)} values, input '{spec.name}' has {made.channels} channel",
                f"give {key} one value in a .toml file for --preprocess",
            )
    if made.dtype.kind != "f" and not wanted.keeps_bytes:
        raise OptionError(
            f"input '{spec.name}' takes {spec.dtype}, the preprocessing makes fractions",
            "use --preprocess raw",
        )
    if wanted.crop and made.shorter_side < min(made.height, made.width):
        raise OptionError(
            f"resize {wanted.resize} is less than the crop of {made.height} x {made.width} pixels",
            "give a larger resize, or leave it out",
        )


# --- files -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images of a folder in sorted order; ``labels`` int64[len(paths)] or None."""

    paths: tuple[Path, ...]
    labels: IntArray | None
    notes: tuple[str, ...] = ()


def find_images(folder: Path) -> ImageFolder:
    """Images in ``folder``, or in its sub-folders, which are then the labels.

    Sub-folders that are all called by non-negative integers are those labels; else the
    label is the index of the sub-folder in sorted order, empty ones counted.
    Hidden files and folders are left out.

    Raises:
        DataError: no images, images both beside and in sub-folders, or unreadable.
    """
    entries = _entries(folder)
    loose = _images(entries)
    classes = [entry for entry in entries if entry.is_dir()]
    sorted_in = [_images(_entries(each)) for each in classes]
    if not loose and not any(sorted_in):
        raise DataError(f"no images in {folder}", f"images end in {', '.join(sorted(SUFFIXES))}")
    if loose and any(sorted_in):
        raise DataError(
            f"{folder} has images both beside its sub-folders and in them",
            "put every image in the sub-folder of its label, or none",
        )
    return ImageFolder(tuple(loose), None) if loose else _labelled(classes, sorted_in)


def _entries(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder} can't be read: {error.strerror}", "check its permissions"
        ) from error
    return [path for path in found if not path.name.startswith((".", "__MACOSX"))]


def _images(entries: Iterable[Path]) -> list[Path]:
    return [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]


def _labelled(classes: list[Path], images: list[list[Path]]) -> ImageFolder:
    names = [each.name for each in classes]
    numbered = all(name.isascii() and name.isdecimal() for name in names)
    values = [int(name) for name in names] if numbered else list(range(len(names)))
    labels = np.repeat(np.array(values, dtype=np.int64), [len(each) for each in images])
    paths = tuple(path for each in images for path in each)
    return ImageFolder(paths, labels, () if numbered else (_label_note(names),))


def _label_note(names: list[str]) -> str:
    shown = ", ".join(f"{index} = {name}" for index, name in enumerate(names[:_SHOWN]))
    rest = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"labels are the indices of the sub-folders in sorted order: {shown}{rest}"


# --- pixels ------------------------------------------------------------------------------


def read_image(path: Path, wanted: ImageFormat) -> Array:
    """The image as ``wanted`` describes it: 3 dimensions, ``wanted.dtype``.

    EXIF orientation is followed, transparency dropped, 16-bit gray scaled to 8 bits; of
    several frames the first counts.

    Raises:
        DataError: Pillow isn't there or can't read the file.
    """
    gray = wanted.channels == 1 or wanted.preprocess.color == "gray"
    image = _decoded(path).convert("L" if gray else "RGB")
    return _numbers(_fitted(image, wanted), wanted)


def _decoded(path: Path) -> Image.Image:
    """The image upright in RGB."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError("reading images needs Pillow", "pip install pillow") from error
    try:
        with Image.open(path) as image:
            return _plain(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise DataError(
            f"image {path} can't be read", "replace it or take it out of the folder"
        ) from error


def _plain(image: Image.Image) -> Image.Image:
    """RGB; palettes with transparency only convert without a warning through RGBA."""
    if image.mode.startswith(("I", "F")):
        image = _narrowed(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _narrowed(image: Image.Image) -> Image.Image:
    """8 bits for 16: Pillow's own conversion clips at 255 instead of scaling."""
    from PIL import Image as Images

    wide = np.asarray(image)
    if wide.dtype.kind == "f" or wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
        raise ValueError("pixels of 32 bits have no known range")
    return Images.fromarray((wide // _WIDE_TO_BYTE).astype(np.uint8))


def _fitted(image: Image.Image, wanted: ImageFormat) -> Image.Image:
    from PIL.Image import Resampling

    filter_ = Resampling[wanted.preprocess.interpolation.upper()]
    seen = _seen(image.size, wanted) if wanted.preprocess.crop else None
    return image.resize((wanted.width, wanted.height), filter_, seen)


def _seen(size: tuple[int, int], wanted: ImageFormat) -> tuple[float, float, float, float]:
    """The part of an image of ``size`` (width, height) that the crop shows, in its pixels.

    Resizing only this part gives, up to rounding, the same pixels as to resize all and then
    crop, without a huge image in between where one side is very long.
    """
    target = (wanted.width, wanted.height)
    cover = max(goal / side for goal, side in zip(target, size, strict=True))
    factor = max(cover, wanted.shorter_side / min(size))
    (left, right), (top, bottom) = (
        _middle(side, goal, factor) for side, goal in zip(size, target, strict=True)
    )
    return left, top, right, bottom


def _middle(side: int, goal: int, factor: float) -> tuple[float, float]:
    """Where the middle ``goal`` of ``side * factor`` pixels lie among the ``side`` pixels."""
    resized = max(goal, int(side * factor + 1e-6))  # whole pixels, no rounding error
    start = round((resized - goal) / 2)
    return start * side / resized, min(side, (start + goal) * side / resized)


def _numbers(image: Image.Image, wanted: ImageFormat) -> Array:
    pixels = np.asarray(image).reshape(wanted.height, wanted.width, -1)
    if wanted.preprocess.color == "bgr":
        pixels = pixels[..., ::-1]
    scaled = pixels * wanted.preprocess.scale - np.array(wanted.preprocess.mean)
    values = np.broadcast_to(
        scaled / np.array(wanted.preprocess.std), (wanted.height, wanted.width, wanted.channels)
    )
    if wanted.channels_first:
        values = values.transpose(2, 0, 1)
    with np.errstate(over="ignore"):  # whoever takes the array looks for infinite values
        return values.astype(wanted.dtype, order="C")
