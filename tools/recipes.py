"""What a recipe for a real model is: how it is made, and what it must reach."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Built = tuple[onnx.ModelProto, Arrays]


@dataclass(frozen=True)
class Recipe:
    """How a model is made, and under which licences its parts are.

    ``family`` are the models that a table has in one row. The arrays that ``build`` makes
    have one entry per model input and, where the samples have classes, ``labels``.
    """

    family: str
    build: Callable[[], Built]
    licence: str
    least_accuracy: float = 0.0


def packed(arrays: Arrays) -> bytes:
    """The arrays as an .npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
