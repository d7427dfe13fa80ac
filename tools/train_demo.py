"""Train the demo model on Fashion-MNIST and write all of calib_data but its code.

    python tools/train_demo.py                          2 to 3 minutes on one core
    python tools/train_demo.py --quick --out FOLDER     a few seconds, a worse model

The model is LeNet-5 with BatchNorm, in the widths that the pruning literature uses
(10, 20, 100, 25). The photos come from Debian's package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archives import Archive, download, sha256, write_atomic
from fetch_models import ROOT
from plain_runtime import accuracy
from recipes import Array, packed

ARCHIVE = Archive(
    "dataset-fashion-mnist=0.0~git20200523.55506a9-1",
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    client="apt",
)
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SEED = 0
BATCH = 256
STEPS = 5_000
QUICK_STEPS = 300
CALIBRATION, TEST = 512, 2000
MODEL, DATA, LICENCE = "lenet5_fashion_mnist.onnx", "fashion_mnist.npz", "LICENSE.fashion-mnist"

LICENCE_TEXT = """\
The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


Facts = dict[str, str | float]


# --- photos --------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """Gray photos uint8[n, 28, 28] and their classes uint8[n]."""

    images: Array
    labels: Array

    def take(self, index: Array) -> Photos:
        return Photos(self.images[index], self.labels[index])


def fashion_mnist() -> tuple[Photos, Photos]:
    """The official training and test sets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = folder / ARCHIVE.file
        package.write_bytes(download(ARCHIVE))
        subprocess.run(["dpkg", "-x", package, folder], check=True)
        return read_part(folder, "train"), read_part(folder, "t10k")


def read_part(folder: Path, part: str) -> Photos:
    source = folder / "usr" / "share" / "datasets" / "fashion-mnist"
    images, labels = (source / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    return Photos(read_idx(images), read_idx(labels))


def read_idx(path: Path) -> Array:
    """An array of bytes: two zeros, type, rank, the lengths as big-endian 32-bit, the bytes."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def balanced(labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Indices of ``count`` random samples, equally many per class to within one, mixed."""
    classes = len(CLASS_NAMES)
    shares = [count // classes + (c < count % classes) for c in range(classes)]
    picked = [rng.choice(np.flatnonzero(labels == c), k, False) for c, k in enumerate(shares)]
    return rng.permutation(np.concatenate(picked))


@dataclass(frozen=True)
class Parts:
    """What is trained on, shipped for calibration, shipped for tests, and measured on."""

    training: Photos
    calibration: Photos
    sample: Photos
    test: Photos


def split(training: Photos, test: Photos, rng: np.random.Generator) -> Parts:
    """Calibration photos leave the training set; the sample is a part of the test set."""
    held_out = balanced(training.labels, CALIBRATION, rng)
    rest = np.setdiff1d(np.arange(len(training.labels)), held_out)
    sample = test.take(balanced(test.labels, TEST, rng))
    return Parts(training.take(rest), training.take(held_out), sample, test)


# --- training ------------------------------------------------------------------------


def lenet5() -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](
        {
            **{"conv1": nn.Conv2d(1, 10, 5), "norm1": nn.BatchNorm2d(10)},
            **{"relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2)},
            **{"conv2": nn.Conv2d(10, 20, 5), "norm2": nn.BatchNorm2d(20)},
            **{"relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2), "flatten": nn.Flatten()},
            **{"fc1": nn.Linear(320, 100), "relu3": nn.ReLU()},
            **{"fc2": nn.Linear(100, 25), "relu4": nn.ReLU()},
            "fc3": nn.Linear(25, 10),
        }
    )
    return nn.Sequential(layers)


def as_input(images: Array) -> Array:
    """float32[n, 1, 28, 28] in 0..1."""
    return images[:, None].astype(np.float32) / 255


def train(network: nn.Module, photos: Photos, steps: int) -> None:
    """AdamW with one cycle of the learning rate; half of the photos are mirrored."""
    images, labels = torch.from_numpy(photos.images.copy()), torch.from_numpy(photos.labels.copy())
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    network.train()
    for batch in batches(len(labels), steps):
        optimizer.zero_grad()
        logits = network(mirrored(images[batch]))
        torch.autograd.backward(nn.functional.cross_entropy(logits, labels[batch].long()))
        optimizer.step()
        schedule.step()


def batches(count: int, steps: int) -> Iterator[Tensor]:
    """``steps`` batches of indices; every epoch in a new order, its incomplete end left out."""
    per_epoch = count // BATCH
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(count)
        yield order[step % per_epoch * BATCH :][:BATCH]


def mirrored(images: Tensor) -> Tensor:
    """The network's input; each image is flipped left to right with probability 1/2."""
    flip = torch.rand(len(images)) < 0.5
    flipped = torch.where(flip[:, None, None], images.flip(2), images)
    return flipped[:, None].float() / 255


def export(network: nn.Module) -> bytes:
    """As ONNX, BatchNorm unfolded, batch size free."""
    network.eval()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, MODEL)
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 28, 28),),
            path,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
        return path.read_bytes()


def torch_accuracy(network: nn.Module, photos: Photos) -> float:
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(as_input(photos.images))).argmax(1).numpy()
    return float((found == photos.labels).mean())


def onnx_accuracy(model: bytes, photos: Photos) -> float:
    found = accuracy(model, {"image": as_input(photos.images), "labels": photos.labels})
    assert found is not None
    return found


# --- writing -------------------------------------------------------------------------


def data_file(calibration: Photos, test: Photos) -> bytes:
    return packed(
        {
            "calibration_images": calibration.images,
            "calibration_labels": calibration.labels,
            "test_images": test.images,
            "test_labels": test.labels,
            "class_names": np.array(CLASS_NAMES),
        }
    )


def entry(name: str, content: bytes, facts: Facts) -> str:
    """One table of the manifest."""
    both: Facts = {"sha256": sha256(content), "bytes": len(content), **facts}
    lines = [f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {v}" for key, v in both.items()]
    return "\n".join([f'[files."{name}"]', *lines, ""])


def model_facts(command: str, whole: float, sample: float) -> Facts:
    return {
        "licence": "Apache-2.0",
        "source": "LeNet-5 with BatchNorm, trained by the recipe on Fashion-MNIST",
        "recipe": command,
        "made_with": f"torch {torch.__version__}, seed {SEED}",
        "accuracy_test_set": round(whole, 4),
        "accuracy_test_images": round(sample, 4),
    }


def data_facts(command: str) -> Facts:
    return {
        "licence": f"MIT ({LICENCE})",
        "source": f"Fashion-MNIST, Zalando SE; Debian {ARCHIVE.package}",
        "source_sha256": ARCHIVE.sha256,
        "recipe": command,
        "calibration": f"{CALIBRATION} of the 60000 training photos, left out of the training",
        "test": f"{TEST} of the 10000 test photos",
        "choice": f"random (seed {SEED}), balanced over the 10 classes",
    }


def manifest(tables: list[str]) -> bytes:
    head = "# Written by tools/train_demo.py: what is here, from where, under which licence.\n"
    return "\n".join([head, *tables]).encode()


def make(folder: Path, steps: int, command: str) -> None:
    """Train, check, write; the manifest goes last."""
    parts = split(*fashion_mnist(), np.random.default_rng(SEED))
    torch.manual_seed(SEED)
    network = lenet5()
    train(network, parts.training, steps)
    model, data = export(network), data_file(parts.calibration, parts.sample)
    facts = model_facts(command, *measured(network, model, parts))
    licence = LICENCE_TEXT.encode()
    tables = [
        entry(MODEL, model, facts),
        entry(DATA, data, data_facts(command)),
        entry(LICENCE, licence, {"licence": "MIT", "source": f"Debian {ARCHIVE.package}"}),
    ]
    write_atomic(folder / MODEL, model)
    write_atomic(folder / DATA, data)
    write_atomic(folder / LICENCE, licence)
    write_atomic(folder / "MANIFEST.toml", manifest(tables))


def measured(network: nn.Module, model: bytes, parts: Parts) -> tuple[float, float]:
    """Accuracy of the exported model on the whole test set and on the shipped part of it."""
    whole, sample = onnx_accuracy(model, parts.test), onnx_accuracy(model, parts.sample)
    print(f"accuracy {whole:.4f} on the test set, {sample:.4f} on {TEST} photos of it")
    same_accuracy(whole, torch_accuracy(network, parts.test))
    return whole, sample


def same_accuracy(onnx_says: float, torch_says: float) -> None:
    # One photo in 10,000 may lie so close to a border that rounding decides.
    if abs(onnx_says - torch_says) > 2e-4:
        raise SystemExit(f"accuracy is {torch_says} in torch, {onnx_says} in ONNX Runtime")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"train {QUICK_STEPS} steps only")
    parser.add_argument("--out", type=Path, default=ROOT / "calib_data", metavar="FOLDER")
    given = parser.parse_args()
    torch.set_num_threads(1)  # Reproducible, and no slower where others use the machine.
    start = time.perf_counter()
    command = "python tools/train_demo.py" + " --quick" * given.quick
    make(given.out, QUICK_STEPS if given.quick else STEPS, command)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
