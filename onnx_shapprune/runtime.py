"""ONNX Runtime: the only module that imports it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from .errors import ModelError, ProviderError
from .passes.graph import body_names
from .passes.outputs import with_outputs
from .passes.weights import (
    bring_in,
    detached,
    files,
    holds_much,
    is_reference,
    is_stub,
    place,
    refer,
    values,
    weighs_much,
    weights,
)
from .types import Array

Wanted = Literal["auto", "cpu", "cuda"]
Provider = Literal["cpu", "cuda"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_FOLDER = "session.model_external_initializers_file_folder_path"
_UNPACKED = "session.disable_prepacking"
_MMAP_THRESHOLD = -3
"""Number of glibc's M_MMAP_THRESHOLD."""
_OWN_BLOCK = 2**20
_NUMPY_TYPES = frozenset(range(1, 14)) - {onnx.TensorProto.STRING}
"""Element types that numpy has itself: what ONNX Runtime takes as an array."""

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
        inner: Sequence[str] = (),
        optimised: bool = True,
        threads: int = 0,
    ) -> None:
        """Build it.

        Args:
            model: Any model; what it refers to in files is mapped.
            provider: Where to run.
            inner: Tensors that are asked for besides the outputs.
            optimised: Whether ONNX Runtime may change the graph and pack weights.
            threads: Threads within one run; 0 for all cores.

        Raises:
            ModelError: ONNX Runtime can't load the model.
            ProviderError: It does not run where it should.
        """
        if weighs_much(model):
            _give_back()
        try:
            self._open(model, provider, inner, _options(optimised, threads))
        except ModelError:
            if not (inner and optimised):
                raise
            # its optimiser may drop a tensor although it is asked for
            self._open(model, provider, inner, _options(False, threads))
        if provider == "cuda" and _CUDA not in self._session.get_providers():
            raise ProviderError("ONNX Runtime fell back from CUDA to the CPU", _CUDA_HINT)
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]

    def _open(
        self, model: onnx.ModelProto, provider: Provider, inner: Sequence[str], options: Any
    ) -> None:
        frame, self._apart = _frame(model, options)  # read by ONNX Runtime as long as it lives
        self._session = _build(with_outputs(frame, inner) if inner else frame, options, provider)

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
    if not optimised:  # packing is a copy of weights
        options.add_session_config_entry(_UNPACKED, "1")
    return options


def _give_back() -> None:
    """Let the system have the memory of weights as soon as they are freed.

    glibc keeps blocks of a size that was freed before, up to 32 MiB: of a heavy model's
    sessions, more than the model. Other C libraries have no such functions.
    """
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _OWN_BLOCK)
        library.malloc_trim(0)


def _build(model: onnx.ModelProto, options: Any, provider: Provider) -> Any:
    providers = [_CUDA, _CPU] if provider == "cuda" else [_CPU]
    try:
        content = bytes(model.SerializeToString())
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # its exceptions have no common base
        raise ModelError(
            f"ONNX Runtime {ort.__version__} can't load the model: {_first_line(error)}",
            "check that the model's operators and opset are supported by this ONNX Runtime",
        ) from error


def _frame(model: onnx.ModelProto, options: Any) -> tuple[onnx.ModelProto, list[Any]]:
    """The model without weights that are in files or weigh much; the options name those.

    ONNX Runtime maps files itself, below a folder. Weights in memory are given to it beside
    the model, since protobuf can't carry more than 2 GiB: the list has them.
    """
    places, is_heavy = files(model), holds_much(model)
    if not places and not is_heavy:
        return model, []
    frame, tensors = detached(model, None if is_heavy else sys.maxsize)
    bring_in(frame, _wanted_inside(frame), tensors)
    if places:
        folder = os.path.commonpath([path.parent for path in places])
        options.add_session_config_entry(_FOLDER, folder)
        _make_relative(frame, Path(folder))
    given = [name for name, tensor in weights(frame) if is_stub(tensor)]
    arrays = [ort.OrtValue.ortvalue_from_numpy(values(tensors[name])) for name in given]
    options.add_external_initializers(given, arrays)
    return frame, arrays


def _wanted_inside(frame: onnx.ModelProto) -> set[str]:
    """Weights that ONNX Runtime takes from the model only.

    Those that a body reads, those of types that numpy has not, and those that no node reads:
    it forgets them before it looks for what it is given beside the model.
    """
    nodes = frame.graph.node
    read = {name for node in nodes for name in node.input}
    in_bodies = {name for node in nodes for name in body_names(node)}
    stubs = ((name, tensor) for name, tensor in weights(frame) if is_stub(tensor))
    return in_bodies | {
        name for name, t in stubs if name not in read or t.data_type not in _NUMPY_TYPES
    }


def _make_relative(frame: onnx.ModelProto, folder: Path) -> None:
    """Let references be relative to a folder: ONNX Runtime takes no other ones."""
    for _, tensor in weights(frame):
        if is_reference(tensor) and not is_stub(tensor):
            at = place(tensor)
            refer(tensor, at.path.relative_to(folder).as_posix(), at.offset, at.length)


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
