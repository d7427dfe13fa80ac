"""Peak memory of pruning, as a share of the model's size.

    python tools/bench_memory.py                 200 MB, 1 GB and 2.2 GB (needs 5 GB of disk)
    python tools/bench_memory.py --quick         200 MB only
    python tools/bench_memory.py --json FILE     also as data

Each figure is the peak resident memory of a process of its own, less that of one that only
imports the package. Pages of mapped files count as long as they are in use.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_shapprune.report import versions

QUICK = (200,)
SIZES = (200, 1000, 2200)
_ONE_FILE = 2000
_WIDTH = 512
_MB = 10**6
_STEPS = ("import", "surgery", "prune")


@dataclass(frozen=True)
class Row:
    """Peaks for one model, in MB; ``surgery`` is to load, analyse, cut and save it."""

    size: float
    form: str
    imported: float
    surgery: float
    prune: float

    @property
    def ratios(self) -> dict[str, float]:
        """Peaks beyond the import's, as shares of the model's size."""
        peaks = {"surgery": self.surgery, "prune": self.prune}
        return {name: round((peak - self.imported) / self.size, 2) for name, peak in peaks.items()}


# --- models


def build(path: Path, megabytes: int, *, external: bool) -> int:
    """Write a chain of 3x3 convolutions with seeded weights; bytes of its files."""
    rng = np.random.default_rng(0)
    layers = max(1, round(megabytes * _MB / (4 * 9 * _WIDTH**2)))
    model = _chain(layers)
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            scale = np.float32(np.sqrt(2 / np.prod(tensor.dims[1:])))
            values = (rng.standard_normal(tuple(tensor.dims), np.float32) * scale).tobytes()
            if not external:
                tensor.raw_data = values
                continue
            tensor.data_location = TensorProto.EXTERNAL
            where = (("location", data.name), ("offset", file.tell()), ("length", len(values)))
            for key, value in where:
                tensor.external_data.add(key=key, value=str(value))
            file.write(values)
    path.write_bytes(model.SerializeToString())
    return path.stat().st_size + data.stat().st_size


def _chain(layers: int) -> onnx.ModelProto:
    nodes, stored, last = [], [], "x"
    for number in range(layers):
        rows = 8 if number == 0 else _WIDTH
        stored.append(TensorProto(name=f"w{number}", dims=[_WIDTH, rows, 3, 3], data_type=1))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", _WIDTH, 1, 1])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- what is measured, each in a process of its own


def surgery(model: str, out: str) -> None:
    """Load a model, find its groups, cut one channel of each and save what is left.

    That is the hardest case: every tensor changes, and nearly all of it stays.
    """
    from onnx_shapprune import Graph, find_groups, load_model, remove, save_model
    from onnx_shapprune.types import GroupPlan, Plan

    loaded = load_model(model)
    groups = find_groups(Graph(loaded.proto)).groups
    parts = tuple(GroupPlan(g, np.arange(g.players) > 0, ()) for g in groups)
    save_model(remove(loaded.proto, loaded.sha256, Plan(loaded.sha256, parts)), out)


def prune(model: str, out: str) -> None:
    """The whole command."""
    from onnx_shapprune.cli import cli

    how = ["--data", "random:4", "--keep", "0.5", "--estimator", "l1", "--provider", "cpu"]
    cli(["prune", model, "-o", out, *how, "--quiet"], standalone_mode=False)


def child(step: str, model: str, out: str) -> None:
    """Do one step and print the peak in MB."""
    import onnx_shapprune.cli
    import onnx_shapprune.pipeline  # noqa: F401

    if step != "import":
        {"surgery": surgery, "prune": prune}[step](model, out)
    print(peak())


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the parent's
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / _MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


# --- all of them


def measure(megabytes: int, *, external: bool) -> Row:
    """All steps for one model, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        size = build(model, megabytes, external=external) / _MB
        peaks = [_in_child(step, model, Path(folder) / f"{step}.onnx") for step in _STEPS]
    row = Row(round(size), "external" if external else "one file", *map(round, peaks))
    show(row)
    return row


def _in_child(step: str, model: Path, out: Path) -> float:
    command = [sys.executable, __file__, "--child", step, str(model), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr}")
    for file in out.parent.glob(f"{out.name}*"):
        file.unlink()
    return float(done.stdout)


def show(row: Row) -> None:
    """One line of the table."""
    ratios = row.ratios
    print(
        f"| {row.size:,.0f} MB, {row.form} | {row.imported:.0f} MB "
        f"| {row.surgery:,.0f} MB (× {ratios['surgery']:.2f}) "
        f"| {row.prune:,.0f} MB (× {ratios['prune']:.2f}) |",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 MB only")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        child(*given.child)
        return
    print("| model | import only | load, analyse, cut, save | prune --estimator l1 |")
    print("|---|---|---|---|", flush=True)
    sizes = QUICK if given.quick else SIZES
    wanted = [(size, form) for size in sizes for form in (False, True) if form or size < _ONE_FILE]
    rows = [measure(size, external=form) for size, form in wanted]
    if given.json:
        summary = [{**asdict(row), "ratios": row.ratios} for row in rows]
        data = {"summary": summary, "versions": versions()}
        given.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
