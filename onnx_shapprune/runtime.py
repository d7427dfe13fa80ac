"""ONNX Runtime: the only module that imports it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import EncodeError

from .errors import ModelError, ProviderError
from .model_io import save_with_weights_beside
from .types import Array

Wanted = Literal["auto", "cpu", "cuda"]
Provider = Literal["cpu", "cuda"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_CUDA_HINT = (
    "install the NVIDIA libraries with: pip install 'onnx-shapprune[cuda]' "
    "(needs a driver for CUDA 13), or use --provider cpu"
)

ort.set_default_logger_severity(4)  # a missing GPU is our message to give, not two native lines


def choose_provider(wanted: Wanted) -> Provider:
    """The provider that really runs: decided by building a session, not by what is listed.

    Raises:
        ProviderError: CUDA was asked for and does not work.
    """
    if wanted == "cpu":
        return "cpu"
    if _CUDA in ort.get_available_providers() and _runs_cuda():
        return "cuda"
    if wanted == "cuda":
        raise ProviderError("CUDA was asked for, but ONNX Runtime can't use a GPU here", _CUDA_HINT)
    return "cpu"


def describe(provider: Provider) -> str:
    """The provider in words, with the runtime's version."""
    place = "GPU (CUDA)" if provider == "cuda" else "CPU"
    return f"ONNX Runtime {ort.__version__} on {place}"


class Session:
    """A model ready to run. ``run`` may be called from several threads."""

    def __init__(
        self,
        model: onnx.ModelProto,
        provider: Provider = "cpu",
        *,
        optimised: bool = True,
        threads: int = 0,
    ) -> None:
        self._session = _build(model, _options(optimised, threads), provider)
        if provider == "cuda" and _CUDA not in self._session.get_providers():
            raise ProviderError("ONNX Runtime fell back from CUDA to the CPU", _CUDA_HINT)
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs (all of them if none are named) for one feed.

        Raises:
            ModelError: ONNX Runtime fails on this feed.
        """
        if outputs is not None and not outputs:
            return []  # to ONNX Runtime, none means all
        try:
            return list(self._session.run(outputs, dict(feeds)))
        except Exception as error:  # its exceptions have no common base
            raise ModelError(f"ONNX Runtime can't run the model: {_first_line(error)}") from error


def _options(optimised: bool, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return options


def _build(model: onnx.ModelProto, options: Any, provider: Provider) -> Any:
    providers = [_CUDA, _CPU] if provider == "cuda" else [_CPU]
    try:
        content = _serialised(model)
        if content is not None:
            return ort.InferenceSession(content, options, providers=providers)
        with tempfile.TemporaryDirectory() as folder:  # protobuf can't carry more than 2 GiB
            path = Path(folder) / "model.onnx"
            save_with_weights_beside(model, path)
            return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its exceptions have no common base
        raise ModelError(
            f"ONNX Runtime {ort.__version__} can't load the model: {_first_line(error)}",
            "check that the model's operators and opset are supported by this ONNX Runtime",
        ) from error


def _serialised(model: onnx.ModelProto) -> bytes | None:
    """The model as bytes; None above protobuf's 2 GiB."""
    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _runs_cuda() -> bool:
    """Whether a session of one Relu, built for CUDA, ends up there."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [result]
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    with _muted_stderr():
        try:
            session = _build(model, _options(True, 1), "cuda")
            session.run(None, {"x": np.zeros(1, np.float32)})
        except Exception:
            return False
    return _CUDA in session.get_providers()


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Keep the lines that native code prints when CUDA is missing off the terminal."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
