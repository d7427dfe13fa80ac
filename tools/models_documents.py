"""Recipes for models that read: PP-OCR's three, and Magika, which tells kinds of files."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

from archives import Archive, member, names_of
from models_photos import FOOLBOX
from recipes import Array, Built, Recipe

RAPIDOCR = Archive(
    "rapidocr-onnxruntime==1.4.4",
    "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
MAGIKA = Archive(
    "magika==1.0.3",
    "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
)

# --- PP-OCR: where are lines of text, which way up are they, what do they say? ---------------

SYLLABLES = ("ba", "co", "di", "fu", "ga", "he", "ji", "ko", "le", "mu", "no", "pa", "re", "si")


def ppocr_cls() -> Built:
    model = onnx.load_from_string(member(RAPIDOCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"))
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    lines = [text_line(rng, upside_down=bool(label)) for label in labels]
    return model, {"x": np.stack([line_input(line, 192) for line in lines]), "labels": labels}


def ppocr_rec() -> Built:
    model = onnx.load_from_string(member(RAPIDOCR, "ch_PP-OCRv4_rec_infer.onnx"))
    rng = np.random.default_rng(0)
    return model, {"x": np.stack([line_input(text_line(rng), 320) for _ in range(16)])}


def ppocr_det() -> Built:
    model = onnx.load_from_string(member(RAPIDOCR, "ch_PP-OCRv4_det_infer.onnx"))
    rng = np.random.default_rng(0)
    return model, {"x": np.stack([page_input(rng) for _ in range(8)])}


def page_input(rng: np.random.Generator) -> Array:
    """A page of four lines, 256 x 320 pixels in -1..1."""
    page = Image.new("RGB", (320, 256), (int(rng.integers(200, 256)),) * 3)
    for row in range(4):
        page.paste(text_line(rng), (int(rng.integers(0, 60)), 60 * row + int(rng.integers(0, 12))))
    return scaled(page)


def scaled(image: Image.Image) -> Array:
    """Channels first, in -1..1."""
    return (np.asarray(image, np.float32) / 255 - 0.5).transpose(2, 0, 1) / 0.5


def text_line(rng: np.random.Generator, *, upside_down: bool = False) -> Image.Image:
    """A rendered line: two made-up words and a number, dark on light."""
    first, second = ("".join(rng.choice(SYLLABLES, rng.integers(2, 4))) for _ in range(2))
    text = f"{first.capitalize()} {second} {rng.integers(10, 1000)}"
    font = ImageFont.load_default(int(rng.integers(28, 40)))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 90))
    image = Image.new("RGB", (right - left + 12, bottom - top + 12), (paper,) * 3)
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, (ink,) * 3, font)
    return image.rotate(180) if upside_down else image


def line_input(line: Image.Image, most: int) -> Array:
    """48 pixels high, at most ``most`` wide, in -1..1, zeros on the right."""
    width = min(most, math.ceil(48 * line.width / line.height))
    padded = np.zeros((3, 48, most), np.float32)
    padded[:, :, :width] = scaled(line.resize((width, 48), Image.Resampling.BILINEAR))
    return padded


# --- Magika: what kind of file is this? -------------------------------------------------------

KINDS = {".py": ("python", 12), ".png": ("png", 6), ".jpg": ("jpeg", 6)}
"""Endings of foolbox's files, what Magika calls them, and how many are taken."""


def magika() -> Built:
    model = onnx.load_from_string(member(MAGIKA, "standard_v3_3/model.onnx"))
    config = json.loads(member(MAGIKA, "standard_v3_3/config.min.json"))
    known = config["target_labels_space"]
    files, labels = [], []
    for ending, (kind, count) in KINDS.items():
        for name in large_files(ending)[:count]:
            files.append(file_input(member(FOOLBOX, name), config))
            labels.append(known.index(kind))
    return model, {"bytes": np.stack(files), "labels": np.asarray(labels, np.int64)}


def large_files(ending: str) -> list[str]:
    """Names of files that fill the model's input."""
    sizes = names_of(FOOLBOX)
    return sorted(name for name, size in sizes.items() if name.endswith(ending) and size > 2500)


def file_input(content: bytes, config: dict[str, Any]) -> Array:
    """The first and last bytes without white space around, int32[2048]."""
    block = config["block_size"]
    first = content[:block].lstrip()[: config["beg_size"]]
    last = content[-block:].rstrip()[-config["end_size"] :]
    return np.frombuffer(first + last, np.uint8).astype(np.int32)


OCR_LICENCE = "model Apache-2.0 (PaddleOCR, RapidOCR); data made here"
RECIPES = {
    "ppocr-cls": Recipe("PP-OCR", ppocr_cls, OCR_LICENCE, least_accuracy=0.95),
    "ppocr-det": Recipe("PP-OCR", ppocr_det, OCR_LICENCE),
    "ppocr-rec": Recipe("PP-OCR", ppocr_rec, OCR_LICENCE),
    "magika": Recipe(
        "Magika",
        magika,
        "model Apache-2.0 (Google); files: foolbox's sources (MIT) and photos (none stated)",
        least_accuracy=0.9,
    ),
}
