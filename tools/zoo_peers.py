"""What other pruners make of the nets of the zoo, in a virtual environment of their own.

Nothing of this is a dependency: ``ask`` makes the environment on first use (in the cache of
tools/fetch_models.py) and runs this very file in it, one process per job, JSON in and out. So
this file imports nothing that only one side has.

Each peer gets the settings that its own documentation shows:

onnxsim 0.8.1, ``pruning.apply_structured_pruning``: a share of 0.5 of the channels of each
    layer by its default, the L2 norm. The model is simplified first (``onnxsim.simplify``), as
    the documentation expects BatchNorm to be folded already; where that fails, as it is.
torch-pruning 1.6.1, ``BasePruner`` with ``GroupMagnitudeImportance(p=2)``: a ratio of 0.5 in
    each group, from the torch module, on an example of batch 1. Layers whose channels are the
    output are ignored, heads of attention are named; the result is exported by TorchScript.

Half of the channels on both sides of a convolution are a quarter of its weights.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

PINS = (
    "torch==2.13.0",
    "onnx==1.23.2",
    "onnxruntime-gpu==1.31.1",
    "onnxscript==0.7.2",
    "onnxsim==0.8.1",  # without its extras, which pull a second ONNX Runtime in
    "torch-pruning==1.6.1",
)
PEERS = ("onnxsim", "torch-pruning")
SHARE = 0.5
TIMEOUT = 600
CONSTRAINTS = Path(__file__).with_name("constraints.txt")

Job = Mapping[str, str]
Answer = dict[str, Any]


# --- on our side -------------------------------------------------------------------------


def environment(cache: Path) -> Path:
    """The python of the peers' environment, made on the first call."""
    key = hashlib.sha256("\n".join((*PINS, sys.version)).encode()).hexdigest()[:12]
    folder = cache / f"zoo-peers-{key}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        print(f"installing {', '.join(PINS)}", file=sys.stderr, flush=True)
        install = ("-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *PINS)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, *install], check=True, stdout=subprocess.DEVNULL)
        ready.touch()
    return python


def ask(python: Path, job: Job) -> Answer:
    """One job in a process of its own; a peer that dies is an answer with an error."""
    command = [python, "-W", "ignore", __file__]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return {"error": f"died with exit code {done.returncode}: {last}"}
    answer: Answer = json.loads(lines[-1])
    return answer


# --- on theirs -----------------------------------------------------------------------------


def work(job: Job) -> Answer:
    """Prune ``job["model"]`` or the module ``job["net"]`` and write ``job["output"]``."""
    prune = {"onnxsim": _onnxsim, "torch-pruning": _torch_pruning}[job["peer"]]
    try:
        return prune(job)
    except Exception as error:  # whatever a peer raises is a result
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _onnxsim(job: Job) -> Answer:
    import onnx
    from onnxsim import pruning, simplify

    model = onnx.load(job["model"])
    notes: Answer = {}
    start = perf_counter()
    try:
        model = simplify(model)[0]
    except Exception as error:
        notes = {"note": f"not simplified: {error}"[:300]}
    simplified = perf_counter()
    pruned = pruning.apply_structured_pruning(model, sparsity=SHARE)
    end = perf_counter()
    onnx.save(pruned, job["output"])
    return {"seconds": end - start, "pruning_seconds": end - simplified, **notes}


def _torch_pruning(job: Job) -> Answer:
    import torch_pruning

    import zoo_nets

    name = job["net"]
    module = zoo_nets.build(name)
    start = perf_counter()
    pruner = torch_pruning.pruner.BasePruner(
        module,
        zoo_nets.images(name, 1),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=[module.get_submodule(last) for last in zoo_nets.NETS[name].last],
        num_heads={
            part.qkv: part.heads
            for part in module.modules()
            if isinstance(part, zoo_nets.Attention)
        },
    )
    pruner.step()
    seconds = perf_counter() - start
    zoo_nets.export(module, name, "TorchScript", "folded", Path(job["output"]))
    return {"seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
