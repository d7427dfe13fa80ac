"""Nets as torch's two exporters write them, BatchNorm folded and kept: halved, exactly.

Some of those that ``tools/zoo.py`` runs; each brings forms of its own.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

UNTOUCHED = {
    "resnet-basic": set[str](),
    "unet": set[str](),
    "crnn": set[str](),
    "res2net": {"nothing: the target was reached without it"},
    "yolo": {"it drops the only channel", "nothing: the target was reached without it"},
}
"""Reasons of convolutions that keep their shape."""

FILES = list(itertools.product(UNTOUCHED, ("TorchScript", "dynamo"), ("folded", "kept")))


@cache
def tool() -> ModuleType:
    """``tools/zoo.py``; the tests have a module of that name themselves."""
    path = Path(__file__).parents[1] / "tools" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["zoo_tool"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.models
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("name", "exporter", "batchnorm"), FILES)
def test_an_export_is_halved(name: str, exporter: str, batchnorm: str) -> None:
    row = tool().examine(name, exporter, batchnorm)
    assert (row.outcome, row.message, row.runs) == ("reached", "", "ok")
    assert 0.45 < row.macs <= 0.5
    assert row.max_difference <= 1e-4
    reasons = {reason.reason for conv in row.untouched for reason in conv.reasons}
    assert all(conv.reasons for conv in row.untouched)
    assert reasons <= UNTOUCHED[name]


@pytest.mark.models
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_layer_norms_are_cut_where_that_is_allowed() -> None:
    row = tool().examine("convnext", "dynamo", "folded", approximate=True)
    assert (row.outcome, row.runs, row.untouched) == ("reached", "ok", ())
    assert row.max_difference <= 1e-4
