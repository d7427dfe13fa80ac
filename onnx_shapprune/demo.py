"""The demo: a trained LeNet-5 and real photos, pruned and judged on photos it never saw."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from time import perf_counter
from typing import TextIO

import numpy as np

from . import calib_data
from .bench import Bench
from .comparison import compare
from .console import console_for, show_comparison, show_report
from .documents import write_json
from .errors import OutputError
from .files import output_errors
from .model_io import load_model, save_model
from .pipeline import open_bench, prune
from .runtime import choose_provider, describe
from .types import Progress

_MODEL = "lenet5_fashion_mnist.onnx"
_KEEP = 0.7
_FILES = (_MODEL, "calibration.npz", "test.npz", "pruned.onnx", "report.json")


def run_demo(folder: Path, stream: TextIO, progress: Progress) -> None:
    """Prune the demo model; its files, the result and the report go to ``folder``.

    Raises:
        OutputError: The folder can't be made, or has files that no demo has written.
    """
    start = perf_counter()
    _make(folder)
    model, data, held_out, small, report = (folder / name for name in _FILES)
    _require_own(folder)
    images, labels = calib_data.fashion_mnist("test")
    with output_errors(folder):
        shutil.copyfile(calib_data.path(_MODEL), model)
        np.savez_compressed(data, image=calib_data.fashion_mnist("calibration")[0])
        np.savez_compressed(held_out, image=images, labels=labels)

    bench = open_bench(model, data)
    console = console_for(stream)
    console.print(f"LeNet-5 on Fashion-MNIST, {describe(bench.provider)}\n")
    result = prune(bench, keep=_KEEP, progress=progress)
    save_model(result.proto, small, force=True)
    write_json(report, result.report.to_json())
    show_report(result.report, stream)

    console.print(f"\nOn {len(labels)} labelled photos that took no part in scoring:\n")
    show_comparison(compare(_test_bench(model, held_out), load_model(small), "accuracy"), stream)
    console.print(f"\nDone in {perf_counter() - start:.0f} s. The same by hand:\n")
    console.print(f"  {_by_hand(model, data, folder)}", soft_wrap=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"can't make the folder '{folder}': {error.strerror}", "choose another --out"
        ) from error


def _require_own(folder: Path) -> None:
    """Files of these names may be replaced if they are of an earlier demo: it left its model."""
    there = [name for name in _FILES if (folder / name).exists()]
    model = folder / _MODEL
    if there and not (
        model.is_file() and model.read_bytes() == calib_data.path(_MODEL).read_bytes()
    ):
        raise OutputError(
            f"'{folder / there[0]}' exists already, and is not of an earlier demo",
            "choose another --out",
        )


def _test_bench(model: Path, data: Path) -> Bench:
    return open_bench(model, data, provider=choose_provider("auto"))


def _by_hand(model: Path, data: Path, folder: Path) -> str:
    words = ["onnx-shapprune", "prune", str(model), "-o", str(folder / "small.onnx")]
    return shlex.join([*words, "--data", str(data), "--keep", str(_KEEP)])
