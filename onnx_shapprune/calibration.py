"""Samples for a model's inputs, from files, images, chance or memory, checked against it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, OptionError
from .images import (
    NO_DIMS,
    PRESETS,
    Preprocess,
    find_images,
    image_format,
    load_preprocess,
    read_image,
    resolved,
    shape_text,
)
from .settings import nearest, quoted
from .types import Array, Calibration, IntArray, Shape, TensorSpec

_MOST_VALUES = 2**40

LABELS = "labels"
"""Name of the array that has the labels, unless a model's input is called so."""

_FORMS = "data are an .npz or .npy file, a folder of images, or random:N"
_STRINGS = frozenset({"object", "str", "string"})


@dataclass(frozen=True)
class _Request:
    """What the caller asks for, beside the data."""

    inputs: Sequence[TensorSpec]
    preprocess: str | Path | None
    dims: Mapping[str, int]
    seed: int


@dataclass(frozen=True, eq=False)
class _Found:
    """Data as they were found, not yet checked."""

    arrays: Mapping[str, Array]
    source: str
    labels: Array | None = None
    notes: tuple[str, ...] = ()


def load_calibration(
    spec: str | Path | Mapping[str, Array] | Array,
    inputs: Sequence[TensorSpec],
    *,
    preprocess: str | Path | None = None,
    dims: Mapping[str, int] = NO_DIMS,
    seed: int = 0,
) -> Calibration:
    """Samples for ``inputs``, in their dtypes, checked against their shapes.

    ``spec`` is the path of an .npz (an array per input by name, and maybe ``labels``), of
    an .npy (one input) or of a folder of images; ``random:N``; an array; or a mapping like
    an .npz. All arrays have the samples along their first axis. That axis is the model's
    own if the first dimensions of all inputs agree; else each sample is a whole feed and the
    arrays have one axis more than the model's inputs.

    ``preprocess`` is for images: see `images.load_preprocess`. ``dims`` has the
    values of symbolic dimensions. ``seed`` is for ``random:N``.

    Where the model has a fixed batch, samples that don't fill a batch are left out.

    Raises:
        DataError: the data can't be read or don't fit the model.
        OptionError: ``preprocess`` or ``dims`` mean nothing for this model or these data.
    """
    request = _Request(inputs, preprocess, dims, seed)
    _check_request(request)
    return _fitted(_found(spec, request), request)


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """Samples that the model takes at a time, None where it takes any number.

    Also None where the inputs have no common first dimension: one feed is then one sample.
    """
    sizes = [spec.shape[0] for spec in inputs if is_batched(inputs)]
    return next((size for size in sizes if isinstance(size, int)), None)


def batches(calibration: Calibration, size: int) -> Iterator[dict[str, Array]]:
    """Feeds of up to ``size`` samples each, in order; the last may have fewer.

    Where the calibration isn't batched every feed is one sample, without the sample axis.

    Raises:
        OptionError: ``size`` is less than 1.
    """
    if size < 1:
        raise OptionError(f"a batch of {size} samples", "give 1 or more")
    parts: Iterator[Any] = iter(range(calibration.samples))
    if calibration.batched:
        parts = (slice(at, at + size) for at in range(0, calibration.samples, size))
    return (
        {name: array[part, ...] for name, array in calibration.inputs.items()} for part in parts
    )


def is_batched(inputs: Sequence[TensorSpec]) -> bool:
    """Whether all inputs have the samples along their first axis."""
    if not all(spec.shape for spec in inputs):
        return False
    return len({spec.shape[0] for spec in inputs} - {None}) <= 1


def _check_request(request: _Request) -> None:
    if not request.inputs:
        raise DataError("the model has no inputs", "there is nothing to give samples to")
    symbols = {dim for spec in request.inputs for dim in spec.shape if isinstance(dim, str)}
    for name, value in request.dims.items():
        if name not in symbols:
            guess = nearest(name, symbols)
            known = f"the dimensions are {quoted(sorted(symbols))}" if symbols else "all are fixed"
            hint = f"did you mean '{guess}'?" if guess else known
            raise OptionError(f"no input has a dimension '{name}'", hint)
        if value < 1:
            raise OptionError(f"dimension '{name}' is {value}", "give 1 or more")


# --- reading ---------------------------------------------------------------------------


def _found(spec: str | Path | Mapping[str, Array] | Array, request: _Request) -> _Found:
    if isinstance(spec, (str, Path)) and Path(spec).is_dir():
        return _folder(Path(spec), request)
    if request.preprocess is not None:
        raise OptionError(
            f"preprocessing '{request.preprocess}' is for images, the data are none",
            "leave it out: arrays go to the model as they are",
        )
    if isinstance(spec, str) and spec.startswith("random:"):
        return _random(spec, request)
    if isinstance(spec, (str, Path)):
        return _file(Path(spec), request)
    if isinstance(spec, Mapping):
        return _mapped(spec, "arrays", request)
    return _single(np.asarray(spec), "an array", request)


def _file(path: Path, request: _Request) -> _Found:
    if not path.exists():
        raise DataError(f"no such file or folder: {path}", f"check the path; {_FORMS}")
    ending = path.suffix.lower()
    if ending not in (".npz", ".npy"):
        raise DataError(f"{path} is of no known kind: its ending is '{path.suffix}'", _FORMS)
    match ending, _loaded(path):
        case ".npy", np.ndarray() as array:
            return _single(array, str(path), request)
        case ".npz", dict(arrays) if all(isinstance(each, np.ndarray) for each in arrays.values()):
            return _mapped(arrays, str(path), request)
    raise _damaged(path)


def _loaded(path: Path) -> Array | dict[str, Any]:
    """The array of an .npy, or all that an .npz has."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else dict(found)
    except Exception as error:  # damaged archives raise nearly anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path} can't be read: {error.strerror}", "check its permissions")
    if "Object arrays" in str(error):
        return DataError(
            f"{path} has pickled Python objects, which are never loaded",
            "save arrays of numbers, or of strings with dtype str",
        )
    return _damaged(path)


def _damaged(path: Path) -> DataError:
    writer = "numpy.savez" if path.suffix.lower() == ".npz" else "numpy.save"
    return DataError(f"{path} is damaged, or something else", f"write it with {writer}")


def _mapped(arrays: Mapping[str, Array], source: str, request: _Request) -> _Found:
    given = {name: np.asarray(array) for name, array in arrays.items()}
    named = any(spec.name == LABELS for spec in request.inputs)
    return _Found(given, source, None if named else given.pop(LABELS, None))


def _single(array: Array, source: str, request: _Request) -> _Found:
    return _Found({_only_input(source, request).name: array}, source)


def _only_input(source: str, request: _Request) -> TensorSpec:
    if len(request.inputs) == 1:
        return request.inputs[0]
    raise DataError(
        f"{source} fills one input, the model has {len(request.inputs)}: "
        f"{_signatures(request.inputs)}",
        "give an .npz with one array per input",
    )


def _folder(folder: Path, request: _Request) -> _Found:
    spec = _only_input(f"a folder of images ({folder})", request)
    preprocess, notes = _preprocess(spec, request.preprocess)
    wanted = image_format(spec, preprocess, request.dims)
    images = find_images(folder)
    pixels = np.empty((len(images.paths), *wanted.shape), wanted.dtype)
    for row, path in zip(pixels, images.paths, strict=True):
        row[...] = read_image(path, wanted)
    return _Found({spec.name: pixels}, str(folder), images.labels, notes + images.notes)


def _preprocess(spec: TensorSpec, asked: str | Path | None) -> tuple[Preprocess, tuple[str, ...]]:
    if asked is not None:
        return load_preprocess(asked), ()
    if spec.dtype.startswith("float"):
        name, effect = "unit", "values from 0 to 1"
    else:
        name, effect = "raw", "values from 0 to 255"
    note = f"preprocessing is '{name}', as none was given: whole image stretched to fit, {effect}"
    return PRESETS[name], (note,)


def _random(text: str, request: _Request) -> _Found:
    match = re.fullmatch(r"random:0*([1-9][0-9]{0,6})", text)
    if match is None:
        raise DataError(
            f"'{text}' has no usable number of samples",
            "write random:16 for 16 samples, at most 9999999",
        )
    rng = np.random.default_rng(request.seed)
    count = int(match[1])
    batched = is_batched(request.inputs)
    arrays = {
        spec.name: _drawn(rng, spec, (count, *_drawn_shape(spec, batched, request.dims)))
        for spec in request.inputs
    }
    note = "random data are a poor choice: scores then say little about the model's real work"
    return _Found(arrays, text, notes=(note,))


def _drawn_shape(spec: TensorSpec, batched: bool, dims: Mapping[str, int]) -> tuple[int, ...]:
    shape = _sample_shape(spec, batched, dims)
    known = tuple(dim for dim in shape if isinstance(dim, int))
    if len(known) == len(shape):
        return known
    symbols = dict.fromkeys(dim for dim in shape if isinstance(dim, str))
    options = " ".join(f"--dim {dim}=NUMBER" for dim in symbols)
    raise DataError(
        f"input '{spec.name}' {shape_text(spec.shape)}: not all dimensions are known",
        "give the samples as .npz" if None in shape else f"give {options}",
    )


def _drawn(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    dtype = _dtype(spec)
    if math.prod(shape) > _MOST_VALUES:
        raise DataError(
            f"input '{spec.name}' {shape_text(spec.shape)}: {shape[0]} samples are too large",
            "check the model's input; no memory holds them",
        )
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iub":  # 0 and 1: both are in any vocabulary, and fit a mask
        return rng.integers(0, 2, shape).astype(dtype)
    raise DataError(
        f"input '{spec.name}' takes {spec.dtype}, which can't be drawn by chance",
        "give the samples as .npz",
    )


# --- checking --------------------------------------------------------------------------


def _fitted(found: _Found, request: _Request) -> Calibration:
    _check_names(found.arrays, request.inputs)
    arrays = {
        spec.name: _fitted_array(spec, found.arrays[spec.name], request) for spec in request.inputs
    }
    count = _common_count(arrays)
    labels = None if found.labels is None else _fitted_labels(np.asarray(found.labels), count)
    used, notes = _full_batches(count, request.inputs)
    return Calibration(
        {name: array[:used] for name, array in arrays.items()},
        None if labels is None else labels[:used],
        is_batched(request.inputs),
        found.source,
        found.notes + notes,
    )


def _check_names(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> None:
    wanted = [spec.name for spec in inputs]
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if missing:
        got = f"got {quoted(arrays)}" if arrays else "got no arrays"
        raise DataError(
            f"no array for input {quoted(missing)}: {got}, the model has {_signatures(inputs)}",
            _rename_hint(missing, extra) or "give one array per input, by its name",
        )
    if extra:
        raise DataError(
            f"{quoted(extra)} is not an input: the model has {_signatures(inputs)}",
            "leave it out; labels go by the name 'labels'",
        )


def _rename_hint(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Which array was probably meant for the first missing input; '' if there is no telling."""
    alone = extra[0] if len(missing) == len(extra) == 1 else ""
    guess = nearest(missing[0], extra) or alone
    return f"rename '{guess}' to '{missing[0]}'" if guess else ""


def _signatures(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}' {spec.dtype} {shape_text(spec.shape)}" for spec in inputs)


def _fitted_array(spec: TensorSpec, array: Array, request: _Request) -> Array:
    wanted: Shape = ("samples", *_sample_shape(spec, is_batched(request.inputs), request.dims))
    if not _fits(array.shape, wanted):
        raise DataError(
            f"input '{spec.name}' has shape {shape_text(array.shape)}, "
            f"the model expects {shape_text(wanted)}",
            _shape_hint(array.shape, wanted),
        )
    if array.size == 0:
        raise DataError(
            f"input '{spec.name}' has no values: shape {shape_text(array.shape)}",
            "give at least one sample",
        )
    return _cast(spec, array)


def _sample_shape(spec: TensorSpec, batched: bool, dims: Mapping[str, int]) -> Shape:
    return resolved(spec.shape[1:] if batched else spec.shape, dims)


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or got == want for got, want in zip(shape, wanted, strict=True)
    )


def _shape_hint(shape: tuple[int, ...], wanted: Shape) -> str:
    if _fits((1, *shape), wanted):
        return "the first axis counts the samples: give array[None] for one sample"
    for order in itertools.permutations(range(1, len(shape))):
        if len(shape) == len(wanted) and _fits((0, *(shape[axis] for axis in order)), wanted):
            return f"the axes are in another order: give array.transpose{(0, *order)}"
    return "the first axis counts the samples, the others are the model's"


def _cast(spec: TensorSpec, array: Array) -> Array:
    dtype = _dtype(spec)
    if not _castable(array.dtype, dtype):
        raise DataError(
            f"input '{spec.name}' is {array.dtype}, the model expects {spec.dtype}",
            _dtype_hint(array.dtype, dtype),
        )
    if dtype.kind == "f":
        return _cast_floats(spec, array, dtype)
    if dtype.kind in "iu":
        _check_range(spec, array, dtype)
    if array.dtype.kind == "O" and not all(isinstance(value, str) for value in array.flat):
        raise DataError(
            f"input '{spec.name}' has values that are no strings", "give an array of dtype str"
        )
    return array.astype(dtype, order="C", copy=False)


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    try:
        dtype = np.dtype(object if spec.dtype in _STRINGS else spec.dtype)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind != "V":  # also what ml_dtypes adds, e.g. bfloat16
        return dtype
    raise DataError(
        f"input '{spec.name}' takes {spec.dtype}, which numpy does not have",
        "export the model with float32 inputs",
    )


def _castable(got: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    kinds = {"f": "f", "i": "iub", "u": "iub", "b": "b", "O": "UTO"}
    return got == wanted or got.kind in kinds.get(wanted.kind, "")


def _dtype_hint(got: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    if wanted.kind == "f" and got.kind in "iu":
        return f"scale it as in training, e.g. array.astype('{wanted}') / 255"
    if wanted.kind == "O":
        return "give an array of dtype str"
    return f"if the values mean the same, give array.astype('{wanted}')"


def _cast_floats(spec: TensorSpec, array: Array, dtype: np.dtype[Any]) -> Array:
    _check_finite(array, f"input '{spec.name}' has NaN or infinite values")
    with np.errstate(over="ignore"):  # told below
        cast: Array = array.astype(dtype, order="C", copy=False)
    _check_finite(cast, f"input '{spec.name}' has values too large for {dtype}")
    return cast


def _check_finite(array: Array, problem: str) -> None:
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{problem}: {np.count_nonzero(~finite)} of {len(array)} samples, "
            f"the first is sample {np.argmin(finite)}",
            "correct these samples or leave them out",
        )


def _check_range(spec: TensorSpec, array: Array, dtype: np.dtype[Any]) -> None:
    low, high = int(array.min()), int(array.max())
    if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
        raise DataError(
            f"input '{spec.name}' has values from {low} to {high}, "
            f"the model expects {spec.dtype}, which can't hold them",
            "check that the array is the one for this input",
        )


def _common_count(arrays: Mapping[str, Array]) -> int:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
        raise DataError(
            f"the inputs have different numbers of samples: {listed}",
            "give every input the same samples, along the first axis",
        )
    return next(iter(counts.values()))


def _fitted_labels(labels: Array, count: int) -> IntArray:
    hint = "give one class index per sample, in an array of integers"
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype}, expected integers", hint)
    if labels.ndim != 1:
        raise DataError(f"labels have shape {shape_text(labels.shape)}, expected ({count},)", hint)
    if len(labels) != count:
        raise DataError(f"there are {len(labels)} labels for {count} samples", hint)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.int64).max:
        raise DataError(
            f"labels go from {low} to {high}, expected class indices from 0",
            "leave samples without a class out",
        )
    return labels.astype(np.int64)


def _full_batches(count: int, inputs: Sequence[TensorSpec]) -> tuple[int, tuple[str, ...]]:
    """How many samples fill whole batches, and what to say of the others."""
    batch = fixed_batch(inputs) or 1
    if count < batch:
        raise DataError(
            f"fewer samples than the model's fixed batch: {count}, the batch is {batch}",
            f"give {batch} samples or more",
        )
    rest = count % batch
    note = f"{rest} of {count} samples are left out: they don't fill the model's batch of {batch}"
    return count - rest, (note,) if rest else ()
