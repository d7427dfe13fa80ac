"""What became of a model's convolutions: whose kernels shrank, what stood in others' way."""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from onnx_shapprune.errors import ShapPruneError
from onnx_shapprune.model_io import Model
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph, label
from onnx_shapprune.types import NO_WISHES, Skipped, Wishes
from plain_runtime import first_line

KERNELS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Convolutions, and the input that has the kernel."""

Source = tuple[object, ...] | None
"""What a constant is made of: shapes of stored tensors, values of stored shapes; None: computed."""
Functions = Mapping[tuple[str, str], onnx.FunctionProto]


UNNEEDED = Skipped("", "–", "nothing: the target was reached without it")


@dataclass(frozen=True)
class Untouched:
    """A convolution whose kernel is as it was, and what stands in the way."""

    conv: str
    reasons: tuple[Skipped, ...]


@dataclass
class Cause:
    """How many convolutions one reason of one operator holds in all files, and in which."""

    op_type: str
    reason: str
    untouched: int = 0
    held: int = 0
    names: dict[str, None] = field(default_factory=dict)


# --- kernels ----------------------------------------------------------------------------------


def kernels(model: onnx.ModelProto) -> dict[str, Source]:
    """What the kernel of every convolution is made of, in graph order, by the node's name.

    Bodies of If, Loop and Scan and called functions count too.
    """
    found: dict[str, Source] = {}
    functions = {(f.domain, f.name): f for f in model.functions}
    _collect(model.graph.node, _stored(model.graph), functions, found)
    return found


def _stored(graph: onnx.GraphProto) -> dict[str, Source]:
    return {tensor.name: _source(tensor) for tensor in graph.initializer}


def _source(tensor: onnx.TensorProto) -> Source:
    is_shape = tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1
    return tuple(onnx.numpy_helper.to_array(tensor)) if is_shape else tuple(tensor.dims)


def _collect(
    nodes: Iterable[onnx.NodeProto],
    scope: dict[str, Source],
    functions: Functions,
    found: dict[str, Source],
) -> None:
    for node in nodes:
        if node.op_type in KERNELS:
            found[_unique(label(node), found)] = scope.get(node.input[KERNELS[node.op_type]])
        for body in _bodies(node):
            _collect(body.node, {**scope, **_stored(body)}, functions, found)
        if called := functions.get((node.domain, node.op_type)):
            given = zip(called.input, (scope.get(name) for name in node.input), strict=False)
            _collect(called.node, dict(given), functions, found)
        scope.update(dict.fromkeys(node.output, _made(node, scope)))


def _unique(name: str, taken: Container[str]) -> str:
    names = itertools.chain([name], (f"{name}#{i}" for i in itertools.count(2)))
    return next(candidate for candidate in names if candidate not in taken)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _made(node: onnx.NodeProto, scope: Mapping[str, Source]) -> Source:
    if node.op_type == "Constant":
        return _source(node.attribute[0].t)
    sources = [scope.get(name) for name in node.input if name]
    return tuple(sources) if sources and None not in sources else None


def shrunk(original: onnx.ModelProto, pruned: onnx.ModelProto) -> dict[str, bool]:
    """Whether each convolution's kernel has another shape than before.

    By position: other tools rename nodes. Nothing can be said if there are more or fewer.
    """
    before, after = kernels(original), list(kernels(pruned).values())
    if len(before) != len(after):
        return dict.fromkeys(before, False)
    return {name: was != now for (name, was), now in zip(before.items(), after, strict=True)}


def counted(touched: Mapping[str, bool]) -> tuple[int, int]:
    return sum(touched.values()), len(touched)


# --- reasons ----------------------------------------------------------------------------------


def skipped_anyhow(model: Model, wishes: Wishes = NO_WISHES) -> Sequence[Skipped]:
    """The reasons of the analysis where what comes after it has failed."""
    try:
        return find_groups(Graph(model.proto), wishes).skipped
    except Exception:  # it has been told already
        return ()


def untouched(
    touched: Mapping[str, bool], skipped: Sequence[Skipped], free: Container[str] = ()
) -> Iterator[Untouched]:
    """The convolutions that stayed, each with the reasons that mention it.

    Those that are ``free`` could have been cut.
    """
    for name, is_cut in touched.items():
        if not is_cut:
            reasons = [reason for reason in skipped if name in (*reason.members, reason.node)]
            reasons = reasons or [UNNEEDED] * (name in free)
            yield Untouched(name, tuple(replace(r, members=()) for r in reasons))


def held(convs: Container[str], skipped: Sequence[Skipped]) -> Iterator[Skipped]:
    """The reasons that hold convolutions, without their other members."""
    for reason in skipped:
        members = tuple(name for name in reason.members if name in convs)
        if members:
            yield replace(reason, members=members)


def causes(
    found: Iterable[tuple[str, Sequence[Skipped], Sequence[Untouched]]],
) -> list[Cause]:
    """Everything that stands in the way, the most common first.

    ``found`` has per file a name, the reasons that hold convolutions, and those untouched.
    """
    causes: dict[tuple[str, str], Cause] = {}
    for name, reasons, convs in found:
        for reason in reasons:
            cause = causes.setdefault(anonymous(reason), Cause(*anonymous(reason)))
            cause.held += len(reason.members)
            cause.names[name] = None
        for conv in convs:
            for key in {anonymous(reason) for reason in conv.reasons} or {("?", "none given")}:
                cause = causes.setdefault(key, Cause(*key))
                cause.untouched += 1
                cause.names[name] = None
    return sorted(causes.values(), key=lambda cause: (-cause.untouched, -cause.held))


def anonymous(reason: Skipped) -> tuple[str, str]:
    """Operator and reason without the names in it."""
    return reason.op_type, re.sub(r"\B'[^']*'", "'…'", reason.reason)


def cause_table(found: Sequence[Cause], files: str) -> Iterator[str]:
    """One line per operator and reason; ``files`` is what the last column is called."""
    yield f"| stands in the way | why | convs untouched | convs that keep all outputs | {files} |"
    yield "|---|---|---|---|---|"
    for c in found:
        yield f"| {c.op_type} | {c.reason} | {c.untouched} | {c.held} | {', '.join(c.names)} |"


def tell_untouched(conv: Untouched) -> str:
    reasons = (f"{r.op_type} '{r.node}': {r.reason}" if r.node else r.reason for r in conv.reasons)
    return f"{conv.conv}: {'; '.join(reasons) or 'no reason given'}"


# --- words ------------------------------------------------------------------------------------


def told(error: Exception) -> str:
    """An error of ours as it is; of any other also where it comes from."""
    text = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, ShapPruneError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(frame.filename).name}:{frame.lineno})"


def spread(values: Sequence[float], form: str) -> str:
    """All values in one cell: one number, or from … to …."""
    ends = list(dict.fromkeys(form.format(value) for value in (min(values), max(values))))
    return " – ".join(ends)
