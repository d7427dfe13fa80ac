"""Break the surgery in many places; `verify` and the tests must catch every one.

    python tools/mutate.py                  all mutations, some minutes
    python tools/mutate.py --quick          the most important ones
    python tools/mutate.py --json FILE      also as data

Works on a temporary copy of the repository. Exit 1 if a mutation survives.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("onnx_shapprune", "passes", "tests", "tools", "calib_data", "pyproject.toml")
TESTS = ("tests/test_contract.py", "tests/test_rules.py", "tests/test_removal.py")
PROBES = (
    *("sequential", "no_bias", "residual", "squeeze_excitation", "dense", "concat_depthwise"),
    *("depthwise_multiplier", "grouped", "flatten_gemm", "channels_last", "reshape_stored_width"),
    *("shared_vectors", "shared_kernel", "matmul_head", "two_outputs", "recorded_shapes"),
    *("initializers_as_inputs", "captured", "softmax_over_channels", "channels_last_mean"),
    *("inception", "one_shape_also_for_an_input", "unknown_operator"),
)


@dataclass(frozen=True)
class Mutation:
    """One way to break the code: ``edits`` are (file, text, what to put there instead).

    ``tests_only``: masked and removed models agree all the same, so that `verify` can't tell.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    quick: bool = False
    tests_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation."""

    name: str
    verify: str
    tests: str
    survived: bool
    seconds: float


def mutation(
    name: str, file: str, text: str, instead: str, *, quick: bool = False, tests_only: bool = False
) -> Mutation:
    """A mutation of one place."""
    return Mutation(name, ((file, text, instead),), quick, tests_only)


MUTATIONS = (
    mutation(
        "slices run along the wrong axis",
        "passes/removal.py",
        "result.compress(kept, axis=axis)",
        "result.compress(kept, axis=0)",
        quick=True,
    ),
    mutation(
        "weights off by one channel",
        "passes/removal.py",
        "keep(cut.axis, cut.kept_positions(part.kept))",
        "keep(cut.axis, np.roll(cut.kept_positions(part.kept), 1))",
        quick=True,
    ),
    mutation(
        "inputs of kernels off by one channel",
        "passes/removal.py",
        "keep(cut.axis, cut.kept_positions(part.kept))",
        "keep(cut.axis, np.roll(cut.kept_positions(part.kept), cut.axis))",
    ),
    mutation(
        "a BatchNormalization vector forgotten",
        "passes/rules/normalisation.py",
        "range(1, 5)",
        "range(1, 4)",
        quick=True,
    ),
    mutation(
        "a BatchNormalization vector in the wrong order",
        "passes/rules/normalisation.py",
        "in vectors:\n        site.slice(index, 0, track.ids)",
        "in vectors:\n        site.slice(index, 0, np.roll(track.ids, index // 4))",
    ),
    mutation(
        "stride of Flatten forgotten",
        "passes/rules/layout.py",
        "np.tile(np.repeat(ids, inner), outer)",
        "np.tile(ids, inner * outer)",
        quick=True,
    ),
    mutation(
        "stale shape constant",
        "passes/removal.py",
        "self._edit(follow.slot).reduce(follow.entry, removed)",
        "pass",
        quick=True,
    ),
    mutation(
        "number of depthwise groups stays",
        "passes/removal.py",
        "_reduce_attribute(node, follow.attribute, follow.entry, removed)",
        "pass",
        quick=True,
    ),
    mutation(
        "multiplier of depthwise channels in the wrong order",
        "passes/rules/linear.py",
        "np.repeat(track.ids, outputs // groups)",
        "np.tile(track.ids, outputs // groups)",
    ),
    mutation(
        "groups of a convolution not tied",
        "passes/rules/linear.py",
        "site.tie(first, other)",
        "pass",
        quick=True,
    ),
    mutation(
        "branches of a sum not tied",
        "passes/rules/pointwise.py",
        "site.tie(own, ids)",
        "pass",
        quick=True,
    ),
    mutation(
        "offsets of Concat ignored",
        "passes/rules/layout.py",
        "for i in operands]",
        "for i in reversed(operands)]",
        quick=True,
    ),
    mutation(
        "bias not sliced",
        "passes/rules/linear.py",
        "site.slice(index, len(shape) - 1, ids)",
        "pass",
        quick=True,
    ),
    mutation(
        "means folded with the wrong sign",
        "passes/removal.py",
        "result.astype(np.float64) + self.addend",
        "result.astype(np.float64) - self.addend",
        quick=True,
    ),
    mutation(
        "means behind a MatMul forgotten",
        "passes/removal.py",
        "self._append_bias(ident)",
        "pass",
    ),
    mutation(
        "beta of Gemm forgotten",
        "passes/removal.py",
        "shift = shift / beta",
        "pass",
    ),
    Mutation(
        "masks in front of BatchNormalization",
        (
            (
                "passes/rules/normalisation.py",
                "    for index in vectors:\n",
                "    site.read(0)\n    for index in vectors:\n",
            ),
            (
                "passes/rules/linear.py",
                "_tied_groups(site, track, groups))\n            site.read(0)",
                "_tied_groups(site, track, groups))",
            ),
        ),
        quick=True,
    ),
    mutation(
        "only the first reader masked",
        "passes/masking.py",
        "for slot in cut.readers:\n            self._nodes",
        "for slot in cut.readers[:1]:\n            self._nodes",
    ),
    mutation(
        "shared vectors cut for all their readers",
        "passes/removal.py",
        "names[key] = self._store_new(root, variants[key].apply(self._constant(root)))",
        "names[key] = root",
    ),
    mutation(
        "shared kernels cut without asking their other readers",
        "passes/couplings.py",
        "walk.lock_shared_kernels()",
        "pass",
        tests_only=True,
    ),
    mutation(
        "channels of outputs go too",
        "passes/couplings.py",
        "if name in self.graph.outputs:",
        "if not name:",
    ),
    mutation(
        "captured channels go too",
        "passes/couplings.py",
        "elif name in self.graph.captured:",
        "elif not name:",
    ),
    mutation(
        "unknown operators taken as element-wise",
        "passes/couplings.py",
        'raise Refused("no rule for this operator")',
        'return RULES["Relu"]',
        quick=True,
    ),
    mutation(
        "channels at the wrong place behind a Transpose",
        "passes/rules/layout.py",
        "order.index(track.axis)",
        "order[track.axis]",
    ),
    mutation(
        "dropped axes not counted",
        "passes/rules/along.py",
        "sum(axis < track.axis for axis in axes)",
        "0",
    ),
    mutation(
        "recorded shapes stale",
        "passes/removal.py",
        "self._narrow_recorded_shapes()",
        "pass",
    ),
    mutation(
        "what is recorded of constants stays",
        "passes/removal.py",
        "self._record_shape(root, array.shape)",
        "pass",
    ),
    mutation(
        "one stored number for several axes",
        "passes/couplings.py",
        "walk.lock_shared_numbers()",
        "pass",
    ),
    mutation(
        "alpha of Gemm forgotten in means",
        "passes/shifts.py",
        'float(attribute(node, "alpha", 1.0))',
        "1.0",
        tests_only=True,
    ),
    mutation(
        "groups mixed up in means",
        "passes/shifts.py",
        "full[number, :, number] = block",
        "full[number, :, -1 - number] = block",
        tests_only=True,
    ),
)


# --- inside of the copy -----------------------------------------------------------------


def probe() -> list[str]:
    """Nets on which `verify` raises or the analysis refuses; runs on the mutated code."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_couplings import ODD  # type: ignore[import-not-found]
    from zoo import ZOO  # type: ignore[import-not-found]

    nets = {name: (build, min(map(sum, players))) for name, (build, players) in ODD.items()}
    nets |= {name: (net.build, sum(net.players)) for name, net in ZOO.items()}
    caught = []
    for name in PROBES:
        for absent in ("zero", "mean"):
            text = _complaint(*nets[name], absent)
            caught += [f"{name}: {text}"] if text else []
    return caught


def _complaint(build: Callable[[], Any], players: int, absent: Any) -> str:
    """What is said about one net; empty if it passes."""
    from onnx_shapprune import make_plan, open_bench, remove, verify
    from zoo import choice, samples

    try:
        model = build()
        bench = open_bench(model, samples(model, 4), absent=absent, provider="cpu")
        found = sum(group.players for group in bench.groups)
        if found < players:
            return f"refused, {found} players instead of {players}"
        for seed in range(2):
            plan = make_plan(bench, choice(bench.groups, seed))
            pruned = remove(bench.model.proto, bench.model.sha256, plan)
            verify(bench.graph, bench.model, pruned, plan, bench.calibration)
    except Exception as error:
        return f"{type(error).__name__}, {str(error).splitlines()[0][:90]}"
    return ""


# --- outside ----------------------------------------------------------------------------


class Copy:
    """A temporary copy of the repository to break and mend."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / part, symlinks=True, ignore=ignored)
            elif source.exists():
                shutil.copy(source, folder / part)
        files = {file for change in MUTATIONS for file, _, _ in change.edits}
        self._sound = {file: (folder / file).read_text() for file in files}

    def missing(self) -> list[str]:
        """Mutations whose text is not in the code exactly once: they have to be maintained."""
        return [
            f"{change.name}: {file} has {self._sound[file].count(text)} times: {text}"
            for change in MUTATIONS
            for file, text, _ in change.edits
            if self._sound[file].count(text) != 1
        ]

    def apply(self, change: Mutation) -> None:
        """Break it."""
        for file, text, instead in change.edits:
            code = self._sound[file].replace(text, instead)
            if "np." in instead and "import numpy as np" not in code:
                future = "from __future__ import annotations\n"
                code = code.replace(future, f"{future}\nimport numpy as np\n", 1)
            (self.folder / file).write_text(code)

    def mend(self, change: Mutation) -> None:
        """Put the files back as they were."""
        for file, _, _ in change.edits:
            (self.folder / file).write_text(self._sound[file])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy, on the copy's code."""
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def probe(self) -> list[str]:
        """Complaints of `verify` and the analysis."""
        done = self.run("tools/mutate.py", "--probe")
        if done.returncode:
            return [f"crash: {done.stderr.strip().splitlines()[-1]}"]
        complaints: list[str] = json.loads(done.stdout)
        return complaints

    def failures(self, *options: str) -> list[str]:
        """Tests that fail, and errors of collecting them."""
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *options)
        found = re.findall(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", done.stdout, re.M)
        return found or ([done.stdout[-200:]] if done.returncode else [])


def judge(copy: Copy, change: Mutation, left_out: Sequence[str]) -> Outcome:
    """Break the copy, ask `verify` and the tests, mend it."""
    start = perf_counter()
    copy.apply(change)
    try:
        complaints = copy.probe()
        failures = copy.failures("-x", *(f"--deselect={name}" for name in left_out))
    finally:
        copy.mend(change)
    verified = complaints[0] if complaints else ""
    tested = failures[0] if failures else ""
    survived = not tested or not (verified or change.tests_only)
    return Outcome(change.name, verified, tested, survived, round(perf_counter() - start, 1))


def rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The table."""
    yield "| mutation | caught by verify | caught by tests |"
    yield "|---|---|---|"
    for outcome in outcomes:
        marked = f"**{outcome.name}**" if outcome.survived else outcome.name
        yield f"| {marked} | {outcome.verify or 'no'} | {outcome.tests or 'no'} |"


def summary(outcomes: Sequence[Outcome], left_out: Sequence[str]) -> dict[str, Any]:
    """The counts."""
    return {
        "mutations": len(outcomes),
        "caught_by_verify": sum(bool(outcome.verify) for outcome in outcomes),
        "caught_by_tests": sum(bool(outcome.tests) for outcome in outcomes),
        "survived": [outcome.name for outcome in outcomes if outcome.survived],
        "tests_that_fail_anyway": len(left_out),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
    }


def check_all(changes: Sequence[Mutation]) -> tuple[list[Outcome], list[str]]:
    """All outcomes, and the tests that fail without any mutation."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        missing, complaints = copy.missing(), copy.probe()
        if missing:
            raise SystemExit("\n".join(["these mutations fit the code no longer:", *missing]))
        if complaints:
            raise SystemExit(f"verify complains without any mutation: {complaints}")
        left_out = copy.failures()
        outcomes = []
        for change in changes:
            outcomes.append(judge(copy, change, left_out))
            word = "SURVIVED" if outcomes[-1].survived else "caught"
            print(f"{word}: {change.name} ({outcomes[-1].seconds} s)", file=sys.stderr)
    return outcomes, left_out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="only the most important ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there too")
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        print(json.dumps(probe()))
        return 0
    changes = [change for change in MUTATIONS if change.quick or not given.quick]
    outcomes, left_out = check_all(changes)
    counts = summary(outcomes, left_out)
    print(*rows(outcomes), json.dumps(counts), sep="\n")
    if given.json:
        data = {"summary": counts, "mutations": [asdict(outcome) for outcome in outcomes]}
        given.json.write_text(json.dumps(data, indent=2) + "\n")
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
