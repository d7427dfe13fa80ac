"""Shape arithmetic: which entry of a small integer tensor is the width of what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onnx_shapprune.types import IntArray

from .effects import Entry, Number, Refused, Width
from .registry import number_rule, rule
from .site import Site


def follow_shape_entry(site: Site, entry: Entry, ids: IntArray) -> None:
    """The entry names the width of ``ids``: it follows by itself, is rewritten, or -1."""
    if isinstance(entry, Width):
        site.tie(entry.ids, ids)
    elif isinstance(entry, Number) and entry.value == len(ids):
        site.follow_entry(entry, ids)
    elif not (isinstance(entry, Number) and entry.value == -1):
        raise Refused("the number of channels in its shape is computed in a way not followed")


def require_free(site: Site, entries: Iterable[Entry]) -> None:
    """None of the entries may change with the channels."""
    if any(isinstance(entry, Width) for entry in entries):
        raise Refused("another axis takes its size from the number of channels")


@rule("Shape", produces=True)
def shape_of(site: Site) -> None:
    """One entry of the result is the width of the tracked axis."""
    track = site.track(0)
    entries: list[Entry] = [None] * len(site.shape(0))
    if track is not None:
        entries[track.axis] = Width(track.ids)
    site.emit_numbers(entries[site.attribute("start", 0) : site.attribute("end")])


@number_rule("Gather")
def gather(site: Site) -> None:
    """Picks entries."""
    entries, chosen = _entries(site, 0), site.constant(1)
    if chosen is None:
        raise Refused("picks a size by a computed index")
    site.emit_numbers([entries[int(i)] for i in np.ravel(chosen)])


@number_rule("Slice")
def slice_entries(site: Site) -> None:
    """Cuts out a run of entries."""
    bounds = [site.integers(i, name) for i, name in ((1, "starts"), (2, "ends"), (4, "steps"))]
    starts, ends, steps = (values[0] if values else None for values in bounds)
    site.emit_numbers(_entries(site, 0)[starts:ends:steps])


@number_rule("Concat")
def concat_entries(site: Site) -> None:
    """Strings entries together."""
    site.emit_numbers([entry for index in site.inputs for entry in _entries(site, index)])


@number_rule("Unsqueeze", "Squeeze", "Cast", "Identity")
def same_entries(site: Site) -> None:
    """Changes the form, not the entries."""
    site.emit_numbers(_entries(site, 0))


def _entries(site: Site, index: int) -> Sequence[Entry]:
    """Entries of an input; those of a tensor that no width flows into don't change."""
    entries = site.numbers(index)
    if entries is not None:
        return entries
    shape = site.shape(index)
    count = 1 if not shape else shape[0]
    if len(shape) > 1 or not isinstance(count, int):
        raise Refused("shape arithmetic on something that is no list of sizes")
    return [None] * count
