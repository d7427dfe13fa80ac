"""Progress of long work: silent, as plain lines, or as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from .types import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINE_EVERY_SECONDS = 10.0


class Silent:
    """Says nothing."""

    def start(self, stage: str, total: int) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""

    def advance(self, steps: int = 1) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""

    def finish(self, *, completed: bool = True) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""


SILENT = Silent()


class Lines:
    """A line at the start and end of a stage, and now and then in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def start(self, stage: str, total: int) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        self._stage, self._total, self._done = stage, total, 0
        self._began = self._said = perf_counter()

    def advance(self, steps: int = 1) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        with self._lock:
            self._done += steps
            now = perf_counter()
            if now - self._said > _LINE_EVERY_SECONDS:
                self._said = now
                self._say(f"{self._done}/{self._total}, {self._left(now)} left")

    def finish(self, *, completed: bool = True) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        if completed:
            self._say(f"done in {duration(perf_counter() - self._began)}")

    def _left(self, now: float) -> str:
        rate = self._done / (now - self._began)
        return duration(max(self._total - self._done, 0) / rate)

    def _say(self, words: str) -> None:
        self._stream.write(f"{self._stage}: {words}\n")
        self._stream.flush()


class Bar:
    """An animated bar with the time left."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, stage: str, total: int) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description:>8}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(stage, total=max(total, 1))
        self._bar.start()

    def advance(self, steps: int = 1) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, steps)

    def finish(self, *, completed: bool = True) -> None:
        """See :class:`~onnx_shapprune.types.Progress`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def stage(progress: Progress, name: str, total: int) -> Iterator[None]:
    """A stage that ends with its block, whatever happens in it."""
    progress.start(name, total)
    try:
        yield
    except BaseException:
        progress.finish(completed=False)
        raise
    progress.finish()


def progress_for(stream: TextIO, *, quiet: bool) -> Progress:
    """A bar on a terminal, plain lines elsewhere, silence if that is wanted."""
    if quiet:
        return SILENT
    return Bar() if stream.isatty() else Lines(stream)


def duration(seconds: float) -> str:
    """A time span as a person would say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
