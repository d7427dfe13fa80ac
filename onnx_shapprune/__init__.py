"""Prune the channels of ONNX models by their Shapley values.

Everything below is imported when it is first used, so that importing the package is quick.

    prune(model, data, keep=0.5, of="macs") -> Result(model, report, plan)

and each stage on its own: :func:`load_model`, :func:`load_calibration`, :func:`find_groups`,
:func:`open_bench`, :func:`score`, :func:`damage_curves`, :func:`allocate`, :func:`make_plan`,
:func:`remove`, :func:`verify`, :func:`compare`, :func:`inspect_model`, :func:`save_model`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allocation import Limits, Target, allocate
    from .bench import Bench
    from .calibration import load_calibration
    from .comparison import compare
    from .curves import damage_curves
    from .groups_file import load_wishes
    from .inspection import inspect_model
    from .model_io import load_model, save_model
    from .passes.couplings import find_groups
    from .passes.graph import Graph
    from .passes.removal import remove
    from .pipeline import Result, make_plan, open_bench, prune
    from .scoring import Scoring, score, values_by_group
    from .types import GroupWish, Wishes
    from .verification import verify

_here = Path(__file__).resolve().parent
if not (_here / "passes" / "graph.py").is_file():  # a checkout without symbolic links
    __path__.append(str(_here.parent))

__version__ = "0.1.0"

_HOMES = {
    "Bench": "bench",
    "Graph": "passes.graph",
    "GroupWish": "types",
    "Limits": "allocation",
    "Result": "pipeline",
    "Scoring": "scoring",
    "Target": "allocation",
    "Wishes": "types",
    "allocate": "allocation",
    "compare": "comparison",
    "damage_curves": "curves",
    "find_groups": "passes.couplings",
    "inspect_model": "inspection",
    "load_calibration": "calibration",
    "load_model": "model_io",
    "load_wishes": "groups_file",
    "make_plan": "pipeline",
    "open_bench": "pipeline",
    "prune": "pipeline",
    "remove": "passes.removal",
    "save_model": "model_io",
    "score": "scoring",
    "values_by_group": "scoring",
    "verify": "verification",
}

__all__ = [
    "Bench",
    "Graph",
    "GroupWish",
    "Limits",
    "Result",
    "Scoring",
    "Target",
    "Wishes",
    "allocate",
    "compare",
    "damage_curves",
    "find_groups",
    "inspect_model",
    "load_calibration",
    "load_model",
    "load_wishes",
    "make_plan",
    "open_bench",
    "prune",
    "remove",
    "save_model",
    "score",
    "values_by_group",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
