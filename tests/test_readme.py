"""The commands and code of README and docs/library.md run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnx_shapprune import calib_data

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the ``model.onnx`` and ``samples.npz`` that the documents speak of."""
    shutil.copyfile(calib_data.path("lenet5_fashion_mnist.onnx"), tmp_path / "model.onnx")
    images, _ = calib_data.fashion_mnist("calibration")
    np.savez(tmp_path / "samples.npz", image=images[:48])
    return tmp_path


def run_bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_complete_example_of_the_readme(folder: Path) -> None:
    example = next(block for block in blocks("README.md", "bash") if "inspect" in block)
    done = run_bash(example, folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "small.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    assert (folder / "report.json").is_file()


def test_a_complete_example_stands_near_the_top() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert any("onnx-shapprune prune" in line for line in lines[:20])


@pytest.mark.parametrize("word", ["onnx-shapprune demo", "tools/check"])
def test_the_readme_has_one_line_for_each_of_ci_s_jobs(word: str) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.startswith("pip install ") and word in line]) == 1


@pytest.mark.parametrize("document", ["README.md", "docs/library.md"])
def test_the_python_code_runs(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    code = blocks(document, "python")
    assert code
    for block in code:
        exec(compile(block, document, "exec"), names)
