"""Seconds of analysis and surgery on a ResNet-18 of its real size, beside the other pruners'.

    python tools/bench_surgery.py               both files of TorchScript, nine rounds
    python tools/bench_surgery.py --quick       three rounds
    python tools/bench_surgery.py --no-peers    only our own
    python tools/bench_surgery.py --json FILE   also as data

All take turns in one run, so that a busy moment hits them alike; medians are told. Everybody
removes about half of the channels, ranked by norms, from a model in memory. onnxsim is told with
and without its simplification, which it expects to come first; torch-pruning starts from the
torch module. None of it counts loading, export or saving.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import numpy as np

import zoo_peers
from archives import cache
from onnx_shapprune.game import l1_norms
from onnx_shapprune.model_io import Model, load_model
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.report import versions
from onnx_shapprune.types import ChannelGroup, Coupling, GroupPlan, Plan
from zoo import exported
from zoo_nets import BatchNorm

NET = "resnet-18"
ROUNDS, QUICK_ROUNDS = 9, 3

Seconds = dict[str, list[float]]
T = TypeVar("T")


def own(model: Model, seconds: Seconds) -> None:
    """One round of our own; ranking by L1 norms counts as neither."""
    coupling = timed(seconds, "analysis", lambda: analysed(model))
    graph = Graph(model.proto)
    plan = Plan(model.sha256, tuple(halved(graph, group) for group in coupling.groups))
    timed(seconds, "surgery", lambda: remove(model.proto, model.sha256, plan))
    seconds.setdefault("ours", []).append(seconds["analysis"][-1] + seconds["surgery"][-1])


def analysed(model: Model) -> Coupling:
    return find_groups(Graph(model.proto))


def halved(graph: Graph, group: ChannelGroup) -> GroupPlan:
    """The half of the players with the larger norms."""
    order = np.argsort(-l1_norms(graph, group), kind="stable")
    kept = np.zeros(group.players, bool)
    kept[order[: max(1, group.players // 2)]] = True
    return GroupPlan(group, kept)


def timed(seconds: Seconds, name: str, call: Callable[[], T]) -> T:
    start = perf_counter()
    result = call()
    seconds.setdefault(name, []).append(perf_counter() - start)
    return result


def peers(path: Path, seconds: Seconds) -> None:
    """One round of each peer."""
    python = zoo_peers.environment(cache())
    for peer in zoo_peers.PEERS:
        with tempfile.TemporaryDirectory() as folder:
            output = str(Path(folder, "pruned.onnx"))
            job = {"peer": peer, "net": NET, "model": str(path), "output": output}
            answer = zoo_peers.ask(python, job)
        if "error" in answer:
            print(f"{peer}: {answer['error']}", file=sys.stderr)
            continue
        if "pruning_seconds" in answer:
            seconds.setdefault(f"{peer} without simplify", []).append(answer["pruning_seconds"])
        seconds.setdefault(peer, []).append(answer["seconds"])


def measured(batchnorm: BatchNorm, rounds: int, *, with_peers: bool) -> dict[str, float]:
    """Median seconds by name."""
    path = exported(NET, "TorchScript", batchnorm)
    model, seconds = load_model(path), Seconds()
    own(model, {})  # imports and caches
    for number in range(rounds):
        own(model, seconds)
        if with_peers:
            peers(path, seconds)
        print(f"BatchNorm {batchnorm}: round {number + 1} of {rounds}", file=sys.stderr)
    return {name: round(median(values), 4) for name, values in seconds.items()}


def table(found: dict[BatchNorm, dict[str, float]]) -> Iterator[str]:
    """One line per name, one column per file."""
    names = dict.fromkeys(name for column in found.values() for name in column)
    yield f"| seconds | {' | '.join(f'BatchNorm {batchnorm}' for batchnorm in found)} |"
    yield "|---|" + "---|" * len(found)
    for name in names:
        cells = [f"{column[name]:.3f}" if name in column else "–" for column in found.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--no-peers", action="store_true", help="only our own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    files: tuple[BatchNorm, ...] = ("folded", "kept")
    found = {f: measured(f, rounds, with_peers=not given.no_peers) for f in files}
    print("\n".join(table(found)))
    if given.json:
        data = {"net": NET, "rounds": rounds, "summary": found, "versions": versions()}
        given.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
