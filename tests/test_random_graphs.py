"""Random graphs: never a crash, never a wrong result, and nearly all convolutions can be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_shapprune.bench import Absent, Bench
from onnx_shapprune.passes.masking import mask_name, masked_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.verification import verify
from zoo import Builder, Model, assert_close, choice, run, samples

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several: hypothesis, or a seeded generator."""

INPUT, SIZE = 4, 8
WIDTHS = (2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Live:
    """A picture that later nodes may read."""

    name: str
    channels: int
    size: int


@dataclass(eq=False)
class Grower:
    """Grows a net node by node from what ``pick`` chooses."""

    pick: Pick
    b: Builder = field(default_factory=Builder)
    live: list[Live] = field(default_factory=list)

    def grow(self, nodes: int) -> Model:
        """A net of about this many operators."""
        self.live.append(Live(self.b.input("N", INPUT, SIZE, SIZE), INPUT, SIZE))
        self.conv(self.live[0])
        while len(self.b.nodes) < nodes:
            step = self.pick(STEPS)
            step(self, self.pick(self.live[-3:]))
        return self.b.build(self.end(self.all_that_is_unread()))

    def all_that_is_unread(self) -> Live:
        """The last picture, with what all others that nothing reads have to say added to it."""
        read = {name for node in self.b.nodes for name in node.input}
        last = self.live[-1]
        for loose in [x for x in self.live[:-1] if x.name not in read]:
            pooled = Live(self.b.add("GlobalAveragePool", loose.name), loose.channels, 1)
            said = self.fitting(pooled, last.channels)
            last = Live(self.b.add("Add", last.name, said.name), last.channels, last.size)
        return last

    def emit(self, name: str, channels: int, size: int) -> Live:
        """A new picture."""
        self.live.append(Live(name, channels, size))
        return self.live[-1]

    # --- kernels

    def conv(self, x: Live) -> Live:
        """Any convolution of one group."""
        channels, kernel = self.pick(WIDTHS), self.pick((1, 3))
        stride = self.pick((1, 2)) if x.size > 2 else 1
        y = self.b.conv(
            x.name,
            (x.channels, channels),
            kernel,
            bias=self.pick((True, False)),
            strides=[stride, stride],
        )
        return self.emit(y, channels, -(-x.size // stride))

    def fitting(self, x: Live, channels: int) -> Live:
        """A convolution with a given number of channels."""
        y = self.b.conv(x.name, (x.channels, channels), self.pick((1, 3)))
        return self.emit(y, channels, x.size)

    def grouped(self, x: Live) -> None:
        """Two or more groups; not depthwise."""
        groups = next((g for g in (4, 3, 2) if x.channels % g == 0 and x.channels > g), 1)
        channels = groups * self.pick((1, 2, 3))
        y = self.b.conv(x.name, (x.channels, channels), groups=groups)
        self.emit(y, channels, x.size)

    def depthwise(self, x: Live) -> None:
        """One or two outputs per channel."""
        multiplier = self.pick((1, 1, 2))
        y = self.b.depthwise(x.name, x.channels, multiplier, bias=self.pick((True, False)))
        self.emit(y, x.channels * multiplier, x.size)

    def transposed(self, x: Live) -> None:
        """Twice the size."""
        if x.size > 4:
            return
        channels = self.pick(WIDTHS)
        kernel = self.b.normal(x.channels, channels, 2, 2, scale=0.4)
        y = self.b.add("ConvTranspose", x.name, kernel, strides=[2, 2])
        self.emit(y, channels, 2 * x.size)

    # --- one picture in, one of the same width out

    def unary(self, x: Live) -> None:
        """An activation."""
        op = self.pick(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softplus", "Identity"))
        self.emit(self.b.add(op, x.name), x.channels, x.size)

    def norm(self, x: Live) -> None:
        """A BatchNormalization."""
        self.emit(self.b.norm(x.name, x.channels), x.channels, x.size)

    def constant(self, x: Live) -> None:
        """A constant per channel, or slopes."""
        op = self.pick(("Add", "Mul", "PRelu", "Sub", "Max"))
        y = self.b.add(op, x.name, self.b.uniform(x.channels, 1, 1))
        self.emit(y, x.channels, x.size)

    def pool(self, x: Live) -> None:
        """Half the size."""
        if x.size > 2:
            op = self.pick(("MaxPool", "AveragePool"))
            y = self.b.add(op, x.name, kernel_shape=[2, 2], strides=[2, 2])
            self.emit(y, x.channels, x.size // 2)

    def resize(self, x: Live) -> None:
        """Twice the size, by scales or by sizes from a Shape."""
        if x.size > 4:
            return
        if self.pick((True, False)):
            scales = self.b.store(np.float32([1, 1, 2, 2]))
            y = self.b.add("Resize", x.name, "", scales, mode="nearest")
        else:
            bounds = [self.b.store([k]) for k in (0, 2, 0)]
            front = self.b.add("Slice", self.b.add("Shape", x.name), *bounds)
            sizes = self.b.add("Concat", front, self.b.store([2 * x.size] * 2), axis=0)
            y = self.b.add("Resize", x.name, "", "", sizes, mode="nearest")
        self.emit(y, x.channels, 2 * x.size)

    def channels_last(self, x: Live) -> None:
        """To channels last and back, with something in between."""
        y = self.b.add("Transpose", x.name, perm=[0, 2, 3, 1])
        if self.pick((True, False)):
            y = self.b.add("Mul", y, self.b.uniform(x.channels))
        else:
            channels = self.pick(WIDTHS)
            y = self.b.add("MatMul", y, self.b.normal(x.channels, channels, scale=0.5))
            x = Live("", channels, x.size)
        self.emit(self.b.add("Transpose", y, perm=[0, 3, 1, 2]), x.channels, x.size)

    def reshaped(self, x: Live) -> None:
        """To rows of pixels and back."""
        batch, width = self.pick(((0, 0), (-1, x.channels), (0, x.channels)))
        y = self.b.add("Reshape", x.name, self.b.store([batch, width, x.size**2]))
        y = self.b.add("Sigmoid", y)
        y = self.b.add("Reshape", y, self.b.store([batch, width, x.size, x.size]))
        self.emit(y, x.channels, x.size)

    def gate(self, x: Live) -> None:
        """A gate per channel, through a bottleneck or not."""
        y = Live(self.b.add("GlobalAveragePool", x.name), x.channels, 1)
        if self.pick((True, False)):
            y = self.fitting(self.fitting(y, 2), x.channels)
        gate = self.b.add("Sigmoid", y.name)
        self.emit(self.b.add("Mul", x.name, gate), x.channels, x.size)

    def unknown(self, x: Live) -> None:
        """An operator without a rule, now and then."""
        if self.pick((True, False, False)):
            self.emit(self.b.add("Softmax", x.name, axis=1), x.channels, x.size)

    # --- several in

    def join(self, x: Live) -> None:
        """A sum or product with another picture of the same form, or with a projection."""
        others = [o for o in self.live if (o.channels, o.size) == (x.channels, x.size) and o != x]
        other = self.pick(others) if others else self.fitting(x, x.channels)
        op = self.pick(("Add", "Add", "Mul", "Sum", "Max"))
        self.emit(self.b.add(op, x.name, other.name), x.channels, x.size)

    def concat(self, x: Live) -> None:
        """Side by side with others of the same size."""
        others = [other for other in self.live if other.size == x.size]
        parts = [x, self.pick(others), self.pick(others)][: self.pick((2, 3))]
        channels = sum(part.channels for part in parts)
        if channels <= 24:
            y = self.b.add("Concat", *(part.name for part in parts), axis=1)
            self.emit(y, channels, x.size)

    # --- the end

    def end(self, x: Live) -> str:
        """Scores."""
        kind = self.pick(("pool", "flatten", "reshape", "mean"))
        if kind == "pool":
            return self.b.head(x.name, (x.channels, 3))
        width = x.channels * x.size**2
        if kind == "mean":
            y, width = self.b.add("ReduceMean", x.name, axes=[2, 3], keepdims=0), x.channels
        elif kind == "flatten":
            y = self.b.add("Flatten", x.name)
        else:
            y = self.b.add("Reshape", x.name, self.b.store(self.pick(([0, -1], [-1, width]))))
        return self.b.gemm(y, (width, 3), transposed=self.pick((True, False)))


STEPS: tuple[Callable[[Grower, Live], Any], ...] = (
    *[Grower.conv] * 5,
    *[Grower.norm, Grower.unary] * 3,
    *[Grower.join, Grower.concat, Grower.depthwise, Grower.pool] * 2,
    *[Grower.grouped, Grower.gate, Grower.constant, Grower.channels_last, Grower.reshaped],
    *[Grower.resize, Grower.transposed, Grower.unknown],
)


def check(model: Model, seed: int, absent: Absent) -> Bench:
    """Masked ≡ removed on this model; its bench."""
    onnx.checker.check_model(model, full_check=True)
    bench = open_bench(model, samples(model, 4, seed), absent=absent, provider="cpu")
    plan = make_plan(bench, choice(bench.groups, seed))
    pruned = remove(bench.model.proto, bench.model.sha256, plan)
    verify(bench.graph, bench.model, pruned, plan, bench.calibration)
    masks = {mask_name(part.group.name): part.kept.astype(np.float32) for part in plan.groups}
    feeds = samples(model, 3, seed + 1)
    masked = masked_model(bench.graph, bench.groups, bench.shifts)
    assert_close(run(pruned, feeds), run(masked, {**feeds, **masks}))
    return bench


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_masked_is_removed_on_any_graph(data: st.DataObject) -> None:
    model = Grower(lambda options: data.draw(st.sampled_from(options))).grow(
        data.draw(st.integers(8, 25))
    )
    seed = data.draw(st.integers(0, 99))
    check(model, seed, data.draw(st.sampled_from(("zero", "mean"))))


def seeded(seed: int) -> Model:
    """The random net of this number."""
    rng = np.random.default_rng(seed)
    grower = Grower(lambda options: options[rng.integers(len(options))])
    return grower.grow(int(rng.integers(8, 26)))


def test_nearly_all_convolutions_are_cut() -> None:
    cut: set[tuple[int, str]] = set()
    known: set[tuple[int, str]] = set()
    convolutions: set[tuple[int, str]] = set()
    for seed in range(80):
        model = seeded(seed)
        bench = check(model, seed, "zero" if seed % 2 else "mean")
        convolutions |= {(seed, n.name) for n in model.graph.node if n.op_type == "Conv"}
        cut |= {(seed, name) for group in bench.groups for name in group.members}
        known |= {(seed, name) for entry in bench.coupling.skipped for name in entry.members}
    assert convolutions - cut - known == set()
    assert len(convolutions) > 250
    assert len(convolutions & cut) >= 0.85 * len(convolutions)
