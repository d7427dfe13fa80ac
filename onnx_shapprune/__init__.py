"""Prune the channels of ONNX models by their Shapley values."""

from __future__ import annotations

from pathlib import Path

_here = Path(__file__).resolve().parent
if not (_here / "passes" / "graph.py").is_file():  # a checkout without symbolic links
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
