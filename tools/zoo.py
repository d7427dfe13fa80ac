"""Halves the multiply-accumulates of 17 nets, exported four ways each, and says how far it came.

    python tools/zoo.py                       all 68 files
    python tools/zoo.py --quick               a few nets
    python tools/zoo.py vgg yolo --peers      two nets, beside other pruners
    python tools/zoo.py convnext --allow approximate
    python tools/zoo.py --json FILE           also as data

The nets are those of tools/zoo_nets.py. The four files of a net: both exporters of torch,
BatchNorm folded (their default) and kept. Exports stay in the cache of tools/fetch_models.py
until the nets or the versions of torch, onnx and onnxscript change.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import torch

import zoo_nets
import zoo_peers
from archives import FetchError, cache, sha256, write_atomic
from judging import (
    Cause,
    Untouched,
    cause_table,
    causes,
    counted,
    held,
    kernels,
    shrunk,
    skipped_anyhow,
    spread,
    tell_untouched,
    told,
    untouched,
)
from onnx_shapprune.errors import NothingToPrune, ShapPruneError, TargetUnreachable
from onnx_shapprune.model_io import Model, load_model
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import Result, open_bench, prune
from onnx_shapprune.report import versions
from onnx_shapprune.scoring import Scoring
from onnx_shapprune.types import Cost, Skipped, Wishes
from plain_runtime import session, what_runs
from zoo_nets import INPUT, NETS, BatchNorm, Exporter

Array = npt.NDArray[Any]

KEEP, ESTIMATOR, SAMPLES = 0.5, "l1", "random:16"
REPEATS = 7
BATCHES = (1, 3)
QUICK = ("vgg", "resnet-basic", "mobilenet-v3", "yolo", "unet")
VARIANTS: tuple[tuple[Exporter, BatchNorm], ...] = tuple(
    itertools.product(get_args(Exporter), get_args(BatchNorm))
)
REFERENCE: tuple[Exporter, BatchNorm] = ("TorchScript", "folded")
"""The file that all tools are compared on; torch-pruning's result is exported like it."""


# --- what is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One file: shares of the cost that are left, convolutions whose kernel shrank, of all.

    ``outcome`` is reached, unreachable, nothing or error. ``runs`` is what a plain ONNX
    Runtime says of the pruned model: ok, or what is wrong. ``batch`` is 0 if dynamic. ``held``
    has all reasons with the convolutions (``members``) whose own channels they hold; such a one
    is touched all the same if the channels that it reads were cut.
    """

    net: str
    exporter: Exporter
    batchnorm: BatchNorm
    batch: int
    outcome: str
    message: str = ""
    macs: float = 1.0
    parameters: float = 1.0
    max_difference: float = 0.0
    convs: tuple[int, int] = (0, 0)
    untouched: tuple[Untouched, ...] = ()
    held: tuple[Skipped, ...] = ()
    groups: int = 0
    analysis: float = 0.0
    surgery: float = 0.0
    seconds: float = 0.0
    runs: str = ""


@dataclass(frozen=True)
class PeerRow:
    """What another pruner made of one file; ``runs`` as above."""

    net: str
    exporter: Exporter
    batchnorm: BatchNorm
    peer: str
    runs: str
    macs: float = 1.0
    parameters: float = 1.0
    convs: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    note: str = ""


# --- exports ----------------------------------------------------------------------------------


def folder() -> Path:
    """Where the exports of these nets by these versions are."""
    source = Path(zoo_nets.__file__).read_bytes()
    made_by = [f"{name} {metadata.version(name)}" for name in ("torch", "onnx", "onnxscript")]
    return cache() / f"zoo-{sha256(source + repr(made_by).encode())[:12]}"


def exported(name: str, exporter: Exporter, batchnorm: BatchNorm) -> Path:
    """The file, from the cache or from the exporter."""
    path = folder() / f"{name}-{exporter}-{batchnorm}.onnx"
    if not path.exists():
        module = zoo_nets.build(name)
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary, path.name)
            zoo_nets.export(module, name, exporter, batchnorm, made)
            require_same(name, module, made)
            write_atomic(path, made.read_bytes())
    return path


def require_same(name: str, module: torch.nn.Module, path: Path) -> None:
    """The export must agree with its module to 1e-4 of the output's scale."""
    image = zoo_nets.images(name, fixed_batch(onnx.load(path)) or 3, seed=1)
    with torch.no_grad():
        wanted = module(image).numpy()
    found = run(path.read_bytes(), image.numpy())
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error <= 1e-4:
        raise FetchError(f"{path.name} differs from its torch module by {error:.2g}")


def fixed_batch(model: onnx.ModelProto) -> int:
    """The batch that an export has; 0 if it is dynamic."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


# --- a plain ONNX Runtime ---------------------------------------------------------------------


def run(model: bytes, image: Array) -> Array:
    found: Array = session(model).run(None, {INPUT: image})[0]
    return found


def what_runs_of(name: str, original: Path, pruned: bytes) -> str:
    """What a plain ONNX Runtime makes of a net, one image at a time and three."""
    batch = fixed_batch(onnx.load(original))
    sizes = (batch,) if batch else BATCHES
    samples = [{INPUT: zoo_nets.images(name, size, seed=2).numpy()} for size in sizes]
    return what_runs(original.read_bytes(), pruned, samples)


# --- our own ----------------------------------------------------------------------------------


def examine(
    name: str, exporter: Exporter, batchnorm: BatchNorm, *, approximate: bool = False
) -> Row:
    """Prune one file and measure everything about it."""
    path = exported(name, exporter, batchnorm)
    model = load_model(path)
    row = Row(name, exporter, batchnorm, fixed_batch(model.proto), "error")
    skipped: Sequence[Skipped] = ()
    free: set[str] = set()
    touched = dict.fromkeys(kernels(model.proto), False)
    start = perf_counter()
    try:
        result, outcome = attempt(model, approximate=approximate)
    except Exception as error:  # a crash is a result too
        row = replace(row, message=told(error))
        skipped = skipped_anyhow(model, Wishes(approximate=approximate))
    else:
        row = filled(row, model, result, outcome, approximate=approximate)
        skipped = result.report.skipped
        free = {member for group in result.report.groups for member in group.members}
        touched = shrunk(model.proto, result.model)
        row = replace(row, runs=what_runs_of(name, path, result.model.SerializeToString()))
    return replace(
        row,
        seconds=round(perf_counter() - start, 2),
        convs=counted(touched),
        untouched=tuple(untouched(touched, skipped, free)),
        held=tuple(held(touched, skipped)),
    )


def attempt(model: Model, *, approximate: bool) -> tuple[Result, str]:
    bench = open_bench(
        model, SAMPLES, provider="cpu", seed=0, wishes=Wishes(approximate=approximate)
    )
    try:
        return prune(bench, keep=KEEP, scoring=Scoring(estimator=ESTIMATOR)), "reached"
    except TargetUnreachable as end:
        return end.result, "unreachable"
    except NothingToPrune as end:
        return end.result, "nothing"


def filled(row: Row, model: Model, result: Result, outcome: str, *, approximate: bool) -> Row:
    """The figures of a result."""
    report, plan = result.report, result.plan
    return replace(
        row,
        outcome=outcome,
        macs=report.after.macs / report.before.macs,
        parameters=report.after.parameters / report.before.parameters,
        max_difference=report.max_difference,
        groups=len(report.groups),
        analysis=timed(lambda: find_groups(Graph(model.proto), Wishes(approximate=approximate))),
        surgery=timed(lambda: remove(model.proto, model.sha256, plan)),
    )


def timed(call: Callable[[], object]) -> float:
    """Median of the seconds of several calls."""
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return median(seconds)


# --- the peers --------------------------------------------------------------------------------


def examine_peers(name: str) -> Iterator[PeerRow]:
    """Every peer on one net: on each file where it reads ONNX, else once."""
    python = zoo_peers.environment(cache())
    for exporter, batchnorm in VARIANTS:
        yield examine_peer(python, name, exporter, batchnorm, "onnxsim")
    yield examine_peer(python, name, *REFERENCE, "torch-pruning")


def examine_peer(
    python: Path, name: str, exporter: Exporter, batchnorm: BatchNorm, peer: str
) -> PeerRow:
    """One peer on one file, measured as we are."""
    original = exported(name, exporter, batchnorm)
    row = PeerRow(name, exporter, batchnorm, peer, "ok")
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary, "pruned.onnx")
        job = {"peer": peer, "net": name, "model": str(original), "output": str(output)}
        answer = zoo_peers.ask(python, job)
        if "error" in answer:
            return replace(row, runs=answer["error"])
        before, after = onnx.load(original), onnx.load(output)
        runs = what_runs_of(name, original, output.read_bytes())
    row = replace(row, runs=runs, seconds=answer["seconds"], note=answer.get("note", ""))
    row = replace(row, convs=counted(shrunk(before, after)))
    return with_costs(row, before, after) if runs == "ok" else row


def with_costs(row: PeerRow, before: onnx.ModelProto, after: onnx.ModelProto) -> PeerRow:
    """The shares that are left, counted by our own count on both sides."""
    try:
        full, left = cost(before), cost(after)
    except ShapPruneError as error:
        return replace(row, note=f"not counted: {error}"[:300])
    return replace(row, macs=left.macs / full.macs, parameters=left.parameters / full.parameters)


def cost(model: onnx.ModelProto) -> Cost:
    bench = open_bench(model, "random:1", provider="cpu")
    return bench.costs.cost(bench.costs.full())


# --- telling ----------------------------------------------------------------------------------


def outcomes(rows: Sequence[Row]) -> str:
    found = Counter(row.outcome for row in rows)
    return ", ".join(f"{name} {count}" for name, count in found.items())


def table(rows: Sequence[Row]) -> Iterator[str]:
    """One line per net, its files in one cell each."""
    yield (
        f"| net | × {KEEP} of the MACs | convs cut | MACs | parameters "
        "| largest difference | analysis, ms | surgery, ms |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, files in by_net(rows).items():
        cells = (
            NETS[name].title,
            outcomes(files),
            f"{spread([row.convs[0] for row in files], '{}')} of {files[0].convs[1]}",
            "× " + spread([row.macs for row in files], "{:.3f}"),
            "× " + spread([row.parameters for row in files], "{:.3f}"),
            f"{max(row.max_difference for row in files):.1e}",
            spread([1e3 * row.analysis for row in files], "{:.0f}"),
            spread([1e3 * row.surgery for row in files], "{:.0f}"),
        )
        yield f"| {' | '.join(cells)} |"


def by_net(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.net, []).append(row)
    return found


def causes_of(rows: Sequence[Row]) -> list[Cause]:
    return causes((row.net, row.held, row.untouched) for row in rows)


def peer_table(rows: Sequence[Row], peers: Sequence[PeerRow]) -> Iterator[str]:
    """One line per net on the reference file: MACs, parameters, convs, seconds of each tool."""
    yield "| net | " + " | ".join(("onnx-shapprune", *zoo_peers.PEERS)) + " |"
    yield "|---|" + "---|" * (1 + len(zoo_peers.PEERS))
    for name, files in by_net(rows).items():
        (ours,) = filter(is_reference, files)
        seconds = ours.analysis + ours.surgery
        cells = [peer_cell(ours.runs or ours.message, ours, seconds)]
        for peer in zoo_peers.PEERS:
            found = (p for p in peers if (p.net, p.peer) == (name, peer) and is_reference(p))
            cells += [peer_cell(p.runs, p, p.seconds) for p in found]
        yield f"| {NETS[name].title} | {' | '.join(cells)} |"


def is_reference(row: Row | PeerRow) -> bool:
    return (row.exporter, row.batchnorm) == REFERENCE


def peer_cell(runs: str, row: Row | PeerRow, seconds: float) -> str:
    if runs != "ok":
        return "fails: " + runs.partition(":")[0].strip()
    cut, convs = row.convs
    return f"× {row.macs:.2f}, × {row.parameters:.2f}, {cut} of {convs}, {seconds:.2f} s"


def peer_summary(peers: Sequence[PeerRow]) -> dict[str, dict[str, Any]]:
    """Per peer and kind of file: how many run, how many convolutions it cut."""
    found: dict[str, dict[str, Any]] = {}
    for row in peers:
        kind = f"{row.peer}, {row.exporter}, BatchNorm {row.batchnorm}"
        part = found.setdefault(kind, {"files": 0, "run": 0, "cut": 0, "convs": 0})
        runs = row.runs == "ok"
        part["files"] += 1
        part["run"] += runs
        part["cut"] += row.convs[0] if runs else 0
        part["convs"] += row.convs[1] or len(kernels(onnx.load(exported_of(row))))
    return found


def exported_of(row: PeerRow) -> Path:
    return exported(row.net, row.exporter, row.batchnorm)


def summary(rows: Sequence[Row], peers: Sequence[PeerRow]) -> dict[str, Any]:
    """The few numbers that matter."""
    found: dict[str, Any] = {
        "files": len(rows),
        **{k: sum(r.outcome == k for r in rows) for k in ("reached", "unreachable")},
        **{k: sum(r.outcome == k for r in rows) for k in ("nothing", "error")},
        "run": sum(row.runs == "ok" for row in rows),
        "convs": [sum(row.convs[0] for row in rows), sum(row.convs[1] for row in rows)],
        "convs_without_a_reason": sum(not c.reasons for row in rows for c in row.untouched),
        "max_difference": max(row.max_difference for row in rows),
        "analysis": max(row.analysis for row in rows),
        "surgery": max(row.surgery for row in rows),
        "causes": [{**asdict(c), "names": list(c.names)} for c in causes_of(rows)],
    }
    return {**found, "peers": peer_summary(peers)} if peers else found


def tell(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def tell_row(row: Row) -> None:
    tell(
        f"{row.net:18} {row.exporter:11} {row.batchnorm:6} {row.outcome:11} "
        f"MACs ×{row.macs:.3f}  parameters ×{row.parameters:.3f}  "
        f"difference {row.max_difference:.1e}  convs {row.convs[0]}/{row.convs[1]}  "
        f"{1e3 * row.analysis:.0f} + {1e3 * row.surgery:.0f} ms  runs: {row.runs} {row.message}"
    )
    for conv in row.untouched:
        tell(f"    {tell_untouched(conv)}")


def tell_peer(row: PeerRow) -> None:
    tell(
        f"{row.net:18} {row.exporter:11} {row.batchnorm:6} {row.peer:13} MACs ×{row.macs:.3f}  "
        f"parameters ×{row.parameters:.3f}  convs {row.convs[0]}/{row.convs[1]}  "
        f"{row.seconds:.2f} s  runs: {row.runs} {row.note}"
    )


def show(rows: Sequence[Row], peers: Sequence[PeerRow]) -> None:
    """The tables, as they may stand in a README."""
    print("\n".join(table(rows)))
    if found := causes_of(rows):
        print("\n" + "\n".join(cause_table(found, "nets")))
    if peers:
        print("\n" + "\n".join(peer_table(rows, peers)))
        print("\nMACs, parameters, convs cut, seconds of analysis and surgery; the peers remove")
        print(f"{zoo_peers.SHARE:.0%} of the channels, we go down to {KEEP:.0%} of the MACs.")
        for kind, found in peer_summary(peers).items():
            print(
                f"- {kind}: {found['run']} of {found['files']} run, "
                f"{found['cut']} of {found['convs']} convs cut"
            )


def write(path: Path, rows: Sequence[Row], peers: Sequence[PeerRow], allow: str) -> None:
    """Everything as JSON."""
    torch_versions = {name: metadata.version(name) for name in ("torch", "onnxscript")}
    data = {
        "keep": KEEP,
        "estimator": ESTIMATOR,
        "allow": allow,
        "summary": summary(rows, peers),
        "rows": [asdict(row) for row in rows],
        "peers": [asdict(row) for row in peers],
        "versions": {**versions(), **torch_versions, "peers": list(zoo_peers.PINS)},
    }
    path.write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--peers", action="store_true", help="also onnxsim and torch-pruning")
    parser.add_argument("--allow", choices=["approximate"], help="as the option of prune")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    zoo = [name for name, net in NETS.items() if not net.is_large]
    unknown = sorted({*given.names} - NETS.keys())
    if unknown:
        parser.error(f"there is no net {unknown[0]!r}; there are {', '.join(NETS)}")
    rows, peers = [], []
    for name in given.names or (QUICK if given.quick else zoo):
        for exporter, batchnorm in VARIANTS:
            approximate = given.allow is not None
            rows.append(examine(name, exporter, batchnorm, approximate=approximate))
            tell_row(rows[-1])
        for peer in examine_peers(name) if given.peers else ():
            peers.append(peer)
            tell_peer(peer)
    show(rows, peers)
    if given.json:
        write(given.json, rows, peers, given.allow or "")


if __name__ == "__main__":
    main()
