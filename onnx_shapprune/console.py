"""What people read: tables on a terminal, aligned plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from .comparison import Comparison
from .inspection import GroupInfo, Inspection
from .report import Report
from .types import Approximated, Cost, Skipped

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_WIDTH = 1000
_SHOWN = 12


def console_for(stream: TextIO) -> Console:
    """A console that decorates on a terminal only."""
    from rich.console import Console

    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, soft_wrap=False)


def show_report(report: Report, stream: TextIO, *, verbose: bool = False) -> None:
    """Before and after, what each group kept, and what was left alone."""
    console = console_for(stream)
    _table(console, ("", "before", "after", "kept"), _cost_rows(report.before, report.after))
    metric = report.metric
    console.print(
        f"\n{metric.name} on {report.samples} samples: {metric.original:.4g} before, "
        f"{metric.removed:.4g} after (larger is better)"
    )
    if report.groups:
        console.print(f"masked ≡ removed: largest difference {report.max_difference:.1e}\n")
        rows = [(g.name, f"{len(g.kept)}/{g.players}", _listed(g.members)) for g in report.groups]
        _table(console, ("group", "kept", "nodes"), rows)
    _show_approximated(report.approximated, console)
    show_skipped(report.skipped, console, verbose=verbose)
    if report.notes:
        console.print("\nnotes:")
    for note in report.notes:
        console.print(f"  {note}")


def show_skipped(skipped: Sequence[Skipped], console: Console, *, verbose: bool) -> None:
    """What was left alone, and why; the first few unless everything is wanted."""
    if not skipped:
        return
    shown = skipped if verbose else skipped[:_SHOWN]
    console.print("\nleft alone:")
    for cause in shown:
        held = _listed(cause.members)
        console.print(f"  {held}: {cause.reason} ({cause.op_type} '{cause.node}')")
    if len(shown) < len(skipped):
        console.print(f"  … and {len(skipped) - len(shown)} more (--verbose)")
    allowed = dict.fromkeys(cause.op_type for cause in skipped if cause.approximable)
    if allowed:
        console.print(f"  --allow approximate lets channels under {', '.join(allowed)} be cut")


def _show_approximated(found: Sequence[Approximated], console: Console) -> None:
    """Which operators give something else than before for the channels that are left."""
    if found:
        count = len({entry.node for entry in found})
        means = "1 mean" if count == 1 else f"{count} means"
        operators = ", ".join(dict.fromkeys(entry.op_type for entry in found))
        console.print(f"approximate: {means} over the channels that are left ({operators})")


def show_inspection(found: Inspection, stream: TextIO, *, verbose: bool = False) -> None:
    """The model, its groups as a tree, and what stands in the way."""
    console = console_for(stream)
    macs = _number(found.cost.macs) if found.macs_known else "unknown (sizes are open: use --dim)"
    console.print(f"sha256      {found.model_sha256}")
    for spec in found.inputs:
        console.print(f"input       {spec.name} {spec.dtype} {_shape(spec.shape)}")
    for spec in found.outputs:
        console.print(f"output      {spec.name} {spec.dtype} {_shape(spec.shape)}")
    console.print(f"MACs        {macs}")
    console.print(f"parameters  {_number(found.cost.parameters)}")
    console.print(f"bytes       {_number(found.cost.bytes)}")
    console.print(f"groups      {len(found.groups)} with {found.cost.channels} players")
    for group in found.groups:
        _show_group(group, console)
    _show_approximated(found.approximated, console)
    show_skipped(found.skipped, console, verbose=verbose)


def _show_group(group: GroupInfo, console: Console) -> None:
    macs = "" if group.macs is None else f"{_number(group.macs)} MACs, "
    console.print(
        f"├─ {group.name}: {group.players} players, up to {macs}"
        f"{_number(group.parameters)} parameters"
    )
    for member in group.members:
        console.print(f"│    {member}")


def show_comparison(found: Comparison, stream: TextIO) -> None:
    """Two models side by side."""
    console = console_for(stream)
    rows = [
        *_cost_rows(found.a.cost, found.b.cost)[:-1],
        (found.metric, f"{found.a.metric:.4g}", f"{found.b.metric:.4g}", ""),
        _timing_row(found.a.milliseconds, found.b.milliseconds),
    ]
    _table(console, ("", "A", "B", "B/A"), rows)
    console.print(
        f"\non {found.samples} samples, {found.provider}; largest difference of an output "
        f"{found.max_difference:.2g} of its scale"
    )


def _timing_row(a: float, b: float) -> tuple[str, str, str, str]:
    return ("ms per run", f"{a:.3g}", f"{b:.3g}", f"× {b / a:.3f}")


def _cost_rows(before: Cost, after: Cost) -> list[tuple[str, str, str, str]]:
    names = {"macs": "MACs", "parameters": "parameters", "bytes": "bytes", "channels": "channels"}
    return [
        _cost_row(title, getattr(before, name), getattr(after, name))
        for name, title in names.items()
    ]


def _cost_row(title: str, before: int, after: int) -> tuple[str, str, str, str]:
    share = f"× {after / before:.3f}" if before else ""
    return (title, _number(before), _number(after), share)


def _table(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(head):
        right = number > 0 and title not in ("nodes",)
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _number(value: int) -> str:
    return f"{value:,}"


def _shape(shape: Sequence[object]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _listed(names: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
