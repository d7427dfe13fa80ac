"""Masked ≡ removed: the central check, made on every run before anything is written.

The masked original and the pruned model must agree on the same inputs, with ONNX
Runtime's optimisations on and off (with them on, a tensor of the wrong width can pass
unnoticed), at the model's outputs and at the output of every node that reads a cut
tensor: an output that saturates would hide a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx

from .calibration import batches, fixed_batch
from .errors import ModelError, VerificationError
from .inner import cut_bodies, run_body
from .model_io import Model
from .passes.bodies import bodies
from .passes.functions import flattened
from .passes.graph import TOP, Graph
from .passes.masking import mask_name, masked_model
from .passes.removal import remove
from .passes.weights import weighs_much, without_weights
from .runtime import Provider, Session
from .types import Array, BoolArray, Calibration, FloatArray, Plan

TOLERANCE = {"bfloat16": 5e-2, "float16": 2e-2, "float32": 1e-4, "float64": 1e-9}
"""Largest difference relative to a tensor's largest value, by the coarsest dtype on its way."""

_STEP_TOLERANCE = 5e-2
"""Behind a rounding to 8 bits: where it tips over, values are some steps of the scale apart."""

_OPTIMISED_DOUBLE = 1e-6
"""ONNX Runtime's optimiser keeps factors that it fuses in single precision."""

_PROBE_SAMPLES = 4
_MAX_FLIPS = 0.01
_LEAST_CHANNEL = 1 / 16
_RANGE_ONE = frozenset({"Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Softsign"})
_ROUNDING = ("QuantizeLinear", "QLinear", "Integer")
_KEEPS_RANGE = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "ReduceMean"}
)


@dataclass(frozen=True, eq=False)
class _Probe:
    """A tensor to compare; ``kept`` says which positions of ``axis`` the pruned one has."""

    name: str
    axis: int = 0
    kept: BoolArray | None = None
    least_scale: float = 0.0
    tolerance: float = 0.0

    def of_masked(self, array: Array) -> Array:
        return array if self.kept is None else array.compress(self.kept, axis=self.axis)

    def scales(self, sizes: FloatArray) -> FloatArray:
        """What differences are relative to: the largest value, of each channel if it has some.

        A small channel counts as a share of the largest: rounding does not shrink with it.
        """
        largest = max(float(sizes.max(initial=0.0)), self.least_scale) or 1.0
        if self.kept is None or not sizes.size:
            return np.asarray(largest)
        others = tuple(axis for axis in range(sizes.ndim) if axis != self.axis)
        channels: FloatArray = sizes.max(axis=others, keepdims=True)
        return np.maximum(channels, _LEAST_CHANNEL * largest)


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two models, and the masks that it is fed."""

    name: str
    model: onnx.ModelProto
    masks: Mapping[str, Array]


@dataclass(frozen=True)
class _Mode:
    """How the models are run."""

    provider: Provider
    optimised: bool


def verify(
    graph: Graph,
    model: Model,
    pruned: onnx.ModelProto,
    plan: Plan,
    calibration: Calibration,
    *,
    provider: Provider = "cpu",
    batch: int = 32,
) -> float:
    """Largest difference between masked and pruned outputs, relative to each output's scale.

    Args:
        graph: Index of the source model.
        model: The source model.
        pruned: What :func:`~onnx_shapprune.passes.removal.remove` made of it.
        plan: What was removed.
        calibration: Inputs to compare on.
        provider: Where to run.
        batch: Samples per run, where the model leaves it open.

    Raises:
        ModelError: The model itself does not run, or gives other outputs in every run.
        VerificationError: They differ, or the pruned model is invalid; names the group.
    """
    try:
        _check_proto(model.proto, pruned)
        return _compare_all(graph, model, pruned, plan, calibration, provider, batch)
    except VerificationError as error:
        _require_repeatable(graph, model, calibration, provider, batch)
        name = _guilty_group(graph, model, plan, calibration, provider, batch)
        raise VerificationError(
            f"group '{name}': {error}" if name else str(error),
            "nothing was written; please report this model, and leave the group out with --exclude",
            name,
        ) from error


def _compare_all(
    graph: Graph,
    model: Model,
    pruned: onnx.ModelProto,
    plan: Plan,
    calibration: Calibration,
    provider: Provider,
    batch: int,
) -> float:
    """On all batches optimised; on a few samples, with inner tensors and alone, not."""
    groups = [part.group for part in plan.groups]
    masked = masked_model(graph, groups, {p.group.name: p.shifts for p in plan.groups})
    masks = {mask_name(p.group.name): p.kept.astype(np.float32) for p in plan.groups}
    outputs, optimised = (_output_probes(graph, on) for on in (False, True))
    inner = _inner_probes(graph, plan, _tolerances(graph, False))
    size = fixed_batch(model.inputs) or batch
    few = next(batches(calibration, fixed_batch(model.inputs) or _PROBE_SAMPLES))
    flat = flattened(pruned).model
    _compare_bodies(graph, masked, flat, plan, few, masks, provider)
    on, off = _Mode(provider, True), _Mode(provider, False)
    pair = (_Side("masked", masked, masks), _Side("pruned", flat, {}))
    worst = _compare(pair, [few], off, outputs, inner)
    pair = (_Side("masked", masked, masks), _Side("pruned", pruned, {}))
    feeds = list(batches(calibration, size))
    if calibration.batched and fixed_batch(model.inputs) is None:
        feeds.append({name: array[:1] for name, array in few.items()})
    return max(worst, _compare(pair, feeds, on, optimised))


def _compare_bodies(
    graph: Graph,
    masked: onnx.ModelProto,
    pruned: onnx.ModelProto,
    plan: Plan,
    feeds: Mapping[str, Array],
    masks: Mapping[str, Array],
    provider: Provider,
) -> None:
    """Every body with cuts in it by itself; the model's outputs may not show them."""
    tolerances = _tolerances(graph, True)
    for scope in cut_bodies(graph, _kept_positions(plan)):
        probes = [_output_probe(graph, o.name, tolerances) for o in graph.bodies[scope].output]
        for optimised in (False, True):
            pair = [
                run_body(graph, model, scope, given, provider, optimised=optimised)
                for model, given in ((masked, {**feeds, **masks}), (pruned, feeds))
            ]
            for probe, expected, found in zip(probes, *pair, strict=True):
                _difference(probe, expected, found)


def _output_probe(graph: Graph, name: str, tolerances: Mapping[str, float]) -> _Probe:
    least = _least_scale(graph, name)
    return _Probe(name, least_scale=least, tolerance=tolerances.get(name, 0.0))


def _output_probes(graph: Graph, optimised: bool) -> list[_Probe]:
    """The model's outputs."""
    tolerances = _tolerances(graph, optimised)
    return [_output_probe(graph, output.name, tolerances) for output in graph.model.graph.output]


def _require_repeatable(
    graph: Graph, model: Model, calibration: Calibration, provider: Provider, batch: int
) -> None:
    """Refuse a model that fails by itself, or that has no outputs to hold on to."""
    for optimised in (False, True):
        probes = _output_probes(graph, optimised)
        session = Session(model.proto, provider, optimised=optimised)
        for feeds in _feeds(model, calibration, batch):
            pairs = zip(probes, _alone(session, feeds), _alone(session, feeds), strict=True)
            for probe, one, other in pairs:
                _require_same(probe, one, other)


def _require_same(probe: _Probe, one: object, other: object) -> None:
    try:
        for expected, found in _leaves(probe, one, other):
            _difference(probe, expected, found)
    except VerificationError as error:
        raise ModelError(
            f"the model's output '{probe.name}' is another one every time that it runs",
            "does it draw random numbers? Let it take them as an input",
        ) from error


def _alone(session: Session, feeds: Mapping[str, Array]) -> list[Array]:
    try:
        return session.run(feeds)
    except ModelError as error:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in feeds.items())
        raise ModelError(
            f"{error} (on {shapes})", "does it take one size of batch only?"
        ) from error


def _feeds(model: Model, calibration: Calibration, batch: int) -> Iterator[dict[str, Array]]:
    """All that is compared on: whole batches, a few samples, a single one."""
    fixed = fixed_batch(model.inputs)
    yield from batches(calibration, fixed or batch)
    for size in (_PROBE_SAMPLES, 1) if fixed is None else ():
        yield next(batches(calibration, size))


def _runs(
    side: _Side,
    feeds: Sequence[Mapping[str, Array]],
    mode: _Mode,
    probes: Sequence[_Probe],
    inner: Sequence[_Probe],
) -> Iterator[list[Array]]:
    """Tensors of a model for each feed; its session is gone at the end."""
    names = [probe.name for probe in probes]
    with _naming(side.name, "load"):
        more = [probe.name for probe in inner]
        session = Session(side.model, mode.provider, inner=more, optimised=mode.optimised)
    for given in feeds:
        with _naming(side.name, "run"):
            found = session.run({**given, **side.masks}, names)
        yield found


@contextmanager
def _naming(which: str, verb: str) -> Iterator[None]:
    """Say which of the two models fails, and at what."""
    try:
        yield
    except ModelError as error:
        raise VerificationError(f"the {which} model does not {verb}: {error}") from error


def _compare(
    pair: Sequence[_Side],
    feeds: Sequence[Mapping[str, Array]],
    mode: _Mode,
    outputs: Sequence[_Probe],
    inner: Sequence[_Probe] = (),
) -> float:
    """Largest difference of an output; raises where one, or an inner tensor, is too large."""
    probes = [*outputs, *inner]
    masked, pruned = (_runs(side, feeds, mode, probes, inner) for side in pair)
    is_heavy = weighs_much(pair[0].model)  # then outputs are the lesser load
    worst = 0.0
    for both in zip(list(masked) if is_heavy else masked, pruned, strict=True):
        differences = [
            _difference(probe, want, got)
            for probe, expected, found in zip(probes, *both, strict=True)
            for want, got in _leaves(probe, expected, found)
        ]
        worst = max(worst, *differences[: len(differences) - len(inner)], 0.0)
    return worst


def _leaves(probe: _Probe, expected: object, found: object) -> Iterator[tuple[Array, Array]]:
    """The arrays of a pair of outputs; there are several in a sequence or a map."""
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        yield probe.of_masked(expected), found
        return
    ours, theirs = _entries(expected), _entries(found)
    if ours.keys() != theirs.keys():
        raise VerificationError(f"'{probe.name}' has other entries")
    for key, value in ours.items():
        yield from _leaves(probe, value, theirs[key])


def _entries(value: object) -> dict[object, object]:
    """What a sequence or a map holds; of anything else, itself as an array."""
    if isinstance(value, dict):
        return value
    return dict(enumerate(value if isinstance(value, list) else [np.asarray(value)]))


def _difference(probe: _Probe, expected: Array, found: Array) -> float:
    """Relative difference of one tensor; raises if it's more than rounding explains."""
    if expected.shape != found.shape:
        raise VerificationError(
            f"'{probe.name}' has shape {list(found.shape)} instead of {list(expected.shape)}"
        )
    if expected.dtype.kind != "f":
        return _require_equal(probe, expected, found)
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        raise VerificationError(f"'{probe.name}' has NaN or infinity in one model only")
    if not np.isfinite(found[finite]).all():
        raise VerificationError(f"'{probe.name}' is finite in one model only")
    known = np.where(finite, expected, 0).astype(np.float64)
    apart = np.abs(np.where(finite, found, 0).astype(np.float64) - known)
    difference = float((apart / probe.scales(np.abs(known))).max(initial=0.0))
    if difference > max(probe.tolerance, TOLERANCE.get(expected.dtype.name, 2e-2)):
        raise VerificationError(
            f"'{probe.name}' differs by {difference:.2g} of its scale between masked and removed"
        )
    return difference


def _require_equal(probe: _Probe, expected: Array, found: Array) -> float:
    """Integers may flip where the floats behind them tie, but rarely."""
    flips = float(np.mean(expected != found)) if expected.size else 0.0
    if flips > _MAX_FLIPS:
        raise VerificationError(f"'{probe.name}' differs in {flips:.1%} of its entries")
    return 0.0


def _tolerances(graph: Graph, optimised: bool) -> dict[str, float]:
    """Per tensor, the tolerance of the coarsest type among all it is computed from."""
    found: dict[str, float] = {}
    for node in graph.nodes.values():
        own = {n: _own_tolerance(graph, n, optimised) for n in (*node.input, *node.output) if n}
        sources = (found.get(name, own[name]) for name in node.input if name)
        rounds = _STEP_TOLERANCE if _rounds(node, optimised) else 0.0
        inherited = max((rounds, *sources))
        for name in filter(None, node.output):
            found[name] = max(inherited, own[name])
    return found


def _rounds(node: onnx.NodeProto, optimised: bool) -> bool:
    """Whether values are rounded to 8 bits; optimised, also products with dequantised weights."""
    return any(part in node.op_type for part in _ROUNDING) or (
        optimised and node.op_type == "DequantizeLinear"
    )


def _own_tolerance(graph: Graph, name: str, optimised: bool) -> float:
    kind = graph.elem_type(name)
    if optimised and kind == onnx.TensorProto.DOUBLE:
        return _OPTIMISED_DOUBLE
    return TOLERANCE.get(onnx.helper.tensor_dtype_to_np_dtype(kind).name, 0.0) if kind else 0.0


def _least_scale(graph: Graph, name: str) -> float:
    """1 for what comes out of a function with the range 0 to 1, however small it is here.

    Rounding is absolute there; the nodes in front are compared by their own scale.
    """
    node = graph.producers.get(name)
    if node is None:
        return 0.0
    if node.op_type in _KEEPS_RANGE:
        return _least_scale(graph, node.input[0])
    if node.op_type == "If":
        place = list(node.output).index(name)
        return min(_least_scale(graph, body.output[place].name) for _, body in bodies(node))
    return 1.0 if node.op_type in _RANGE_ONE else 0.0


def _inner_probes(graph: Graph, plan: Plan, tolerances: Mapping[str, float]) -> list[_Probe]:
    """Outputs of all nodes that sum or take means over a cut tensor."""
    kept = _kept_positions(plan)
    cuts = (c for part in plan.groups for c in (*part.group.reads, *part.group.averages))
    names = dict.fromkeys(slot.node for cut in cuts for slot in cut.readers)
    return [
        _Probe(name, axis=axis, kept=positions, tolerance=tolerances[name])
        for name in names
        if name not in graph.outputs and graph.scope(name) == TOP
        for axis, positions in [kept.get(name, (0, None))]
    ]


def _kept_positions(plan: Plan) -> dict[str, tuple[int, BoolArray]]:
    kept: dict[str, tuple[int, BoolArray]] = {}
    for part in plan.groups:
        for cut in part.group.shapes:
            positions = cut.kept_positions(part.kept)
            _, known = kept.get(cut.tensor, (cut.axis, positions))
            kept[cut.tensor] = (cut.axis, known & positions)
    return kept


def _check_proto(source: onnx.ModelProto, pruned: onnx.ModelProto) -> None:
    """The full checker, where the source itself passes it."""
    if not _passes_checker(source):
        return
    try:
        onnx.checker.check_model(without_weights(pruned), full_check=True)
    except Exception as error:  # the checker raises several unrelated kinds
        first = str(error).strip().split("\n", 1)[0]
        raise VerificationError(f"the pruned model is invalid: {first}") from error


def _passes_checker(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception:
        return False
    return True


def _guilty_group(
    graph: Graph,
    model: Model,
    plan: Plan,
    calibration: Calibration,
    provider: Provider,
    batch: int,
) -> str:
    """The first group that fails when it is cut alone; empty if none does."""
    for part in plan.groups:
        alone = Plan(plan.model_sha256, (part,))
        try:
            pruned = remove(model.proto, model.sha256, alone)
            _check_proto(model.proto, pruned)
            _compare_all(graph, model, pruned, alone, calibration, provider, batch)
        except VerificationError:
            return part.group.name
    return ""
