"""Demo model and calibration photos; MANIFEST.toml says where they are from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_HERE = Path(__file__).parent
_CODE = ("__init__.py", "__pycache__")


def path(name: str) -> Path:
    """Where the file ``name`` of this folder is."""
    names = sorted(entry.name for entry in _HERE.iterdir() if entry.name not in _CODE)
    if name not in names:
        raise FileNotFoundError(f"there is no {name!r}; there are {', '.join(names)}")
    return _HERE / name


def fashion_mnist(
    part: Literal["calibration", "test"],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Photos as float32 [n, 1, 28, 28] in 0..1, and their classes."""
    import numpy as np

    with np.load(path("fashion_mnist.npz")) as arrays:
        images: npt.NDArray[Any] = arrays[f"{part}_images"]
        labels: npt.NDArray[Any] = arrays[f"{part}_labels"]
    return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)
