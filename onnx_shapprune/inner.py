"""Bodies of If, Loop and Scan, run by themselves.

A model's outputs show nothing of a branch that its samples do not take. So every body is
compared as a model of its own: on what it really reads from outside, and on random numbers
for what it is handed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from .errors import ModelError
from .passes.graph import TOP, Graph, convolutions
from .passes.inner import inner_model
from .passes.outputs import declare_inputs
from .runtime import Provider, Session
from .types import Array

_NOT_VERIFIABLE = "its body does not run by itself on these samples: nothing could be verified"


def unverifiable(graph: Graph, feeds: Mapping[str, Array], provider: Provider) -> dict[str, str]:
    """Bodies that convolve and can't be run by themselves, each with the reason."""
    inner = (scope for scope in graph.bodies if scope != TOP)
    found = {}
    for scope in (scope for scope in inner if any(convolutions(graph.bodies[scope].node))):
        try:
            run_body(graph, graph.model, scope, feeds, provider)
        except ModelError:
            found[scope] = _NOT_VERIFIABLE
    return found


def run_body(
    graph: Graph,
    model: onnx.ModelProto,
    scope: str,
    feeds: Mapping[str, Array],
    provider: Provider,
    *,
    optimised: bool = False,
    more: Sequence[str] = (),
) -> list[Array]:
    """Outputs of one body of a model, and of tensors inside it.

    Args:
        graph: Index of the source model, which knows the body.
        model: The source model, or what became of it.
        scope: The body's name there.
        feeds: What the whole model is fed.
        provider: Where to run.
        optimised: With ONNX Runtime's optimisations.
        more: Tensors made in the body, which follow its outputs.

    Raises:
        ModelError: It does not run, or the sizes of what it is handed are not known.
    """
    inner = inner_model(model, scope)
    made = [name for name in inner.captured if name not in feeds]
    whole = Session(model, provider, inner=made, optimised=False) if made else None
    captured = dict(zip(made, whole.run(feeds, made), strict=True)) if whole else {}
    given = {name: feeds[name] for name in inner.captured if name in feeds}
    values = {**given, **captured, **dict(_handed(graph, scope))}
    declare_inputs(inner.model, values)
    names = [*(output.name for output in inner.model.graph.output), *more]
    session = Session(inner.model, provider, inner=more, optimised=optimised)
    return session.run(values, names)


def _handed(graph: Graph, scope: str) -> Iterator[tuple[str, Array]]:
    """Values for the inputs of a body: numbers count from 0, conditions hold, floats vary."""
    rng = np.random.default_rng(0)
    body = graph.bodies[scope]
    stored = {tensor.name for tensor in body.initializer}
    for info in (info for info in body.input if info.name not in stored):
        kind, shape = graph.elem_type(info.name), graph.shape(info.name)
        sizes = [dim for dim in shape or () if isinstance(dim, int)]
        if not kind or shape is None or len(sizes) < len(shape):
            raise ModelError(f"the size of '{info.name}' is not known")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        yield info.name, _some_values(rng, dtype, sizes)


def _some_values(rng: np.random.Generator, dtype: np.dtype[Any], sizes: list[int]) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(sizes).astype(dtype)
    return np.full(sizes, dtype.kind == "b", dtype)


def cut_bodies(graph: Graph, tensors: Mapping[str, object]) -> list[str]:
    """Bodies in which one of these tensors is made."""
    scopes = (graph.scope(name) for name in tensors)
    return [scope for scope in dict.fromkeys(scopes) if scope != TOP]
