"""Random graphs: never a crash, never a wrong result, and nearly all convolutions can be cut."""

from __future__ import annotations

from functools import cache

import pytest

from onnx_shapprune.bench import Absent
from random_graphs import check, convolutions, runs, seeded

GRAPHS, BATCH = 300, 20
SHARE = 0.85
"""`tools/fuzz.py` runs many more, and shrinks what fails."""


FOUND = {
    "factors of doubles that are fused in single precision": 330,
    "a tensor that is asked for, and optimised away": 1602,
    "inference that contradicts the model": 2216,
    "inference that follows sizes and errs": 5457,
    "padding that is fused with a pool where it is constant": 6224,
    "sizes of a transposed convolution": 8750,
}
"""Graphs beyond those that failed once in `tools/fuzz.py`."""


@cache
def cut(seed: int) -> tuple[bool, ...] | None:
    """Which convolutions of a graph can be cut, after it was; None if it can't be run at all."""
    model = seeded(seed)
    if not runs(model):
        return None
    return tuple(found for _, found in convolutions(check(model, seed, absent(seed))))


def absent(seed: int) -> Absent:
    """What an absent channel counts as."""
    return "zero" if seed % 2 else "mean"


@pytest.mark.parametrize("first", range(0, GRAPHS, BATCH))
def test_masked_is_removed_on_any_graph(first: int) -> None:
    for seed in range(first, first + BATCH):
        try:
            cut(seed)
        except Exception as error:
            error.add_note(f"see it with: python tools/fuzz.py --graph {seed}")
            raise


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found(what: str) -> None:
    assert cut(FOUND[what]) is not None


def test_nearly_all_convolutions_are_cut() -> None:
    found = [graph for seed in range(GRAPHS) if (graph := cut(seed)) is not None]
    every = [each for graph in found for each in graph]
    assert len(found) >= 0.9 * GRAPHS
    assert len(every) > 5 * GRAPHS
    assert sum(every) >= SHARE * len(every)
