"""Networks whose weights ship without a graph: built in torch, exported to ONNX."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from archives import FetchError
from plain_runtime import session
from recipes import Array

if TYPE_CHECKING:
    from torch import Tensor, nn


def torch_weights(content: bytes) -> dict[str, Tensor]:
    import torch

    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return weights


def export(module: nn.Module, inputs: Array, name: str, output: str) -> onnx.ModelProto:
    """``module`` as ONNX with a dynamic batch; must agree with it on ``inputs`` to 1e-4."""
    import torch

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, "exported.onnx")
        torch.onnx.export(
            module,
            (torch.from_numpy(inputs[:2]),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=[name],
            output_names=[output],
            dynamic_axes={name: {0: "batch"}, output: {0: "batch"}},
        )
        content = path.read_bytes()
    agree(module, content, name, inputs)
    return onnx.load_from_string(content)


def agree(module: nn.Module, model: bytes, name: str, inputs: Array) -> None:
    import torch

    with torch.no_grad():
        wanted = module(torch.from_numpy(inputs)).numpy()
    error = float(np.abs(session(model).run(None, {name: inputs})[0] - wanted).max())
    if not error <= 1e-4:
        raise FetchError(f"the export differs from its torch module by {error:.2g}")


def lambda_module(function: Callable[[Tensor], Tensor], *parts: nn.Module) -> nn.Module:
    """A torch module that computes ``function``, which uses the modules ``parts``."""
    from torch import nn

    class Lambda(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, value: Tensor) -> Tensor:
            return function(value)

    return Lambda()


def loaded(module: nn.Module, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    """``module`` with the entries of ``weights`` under ``prefix``."""
    own = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
    module.load_state_dict(own)
    return module
