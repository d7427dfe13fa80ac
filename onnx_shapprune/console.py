"""What people read: tables on a terminal, aligned plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from .comparison import Comparison
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
    return Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


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
    show_approximated(report.approximated, console)
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
    show_approximable(skipped, console)


def show_approximable(skipped: Sequence[Skipped], console: Console) -> None:
    """Which operators would not stand in the way if means over fewer channels were allowed."""
    allowed = dict.fromkeys(cause.op_type for cause in skipped if cause.approximable)
    if allowed:
        console.print(f"  --allow approximate lets channels under {', '.join(allowed)} be cut")


def show_approximated(found: Sequence[Approximated], console: Console) -> None:
    """Which operators give something else than before for the channels that are left."""
    if found:
        count = len({entry.node for entry in found})
        means = "1 mean" if count == 1 else f"{count} means"
        operators = ", ".join(dict.fromkeys(entry.op_type for entry in found))
        console.print(f"approximate: {means} over the channels that are left ({operators})")


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
    return (title, number(before), number(after), share)


def _table(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(head):
        right = column > 0 and title not in ("nodes",)
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def number(value: int) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def _listed(names: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
