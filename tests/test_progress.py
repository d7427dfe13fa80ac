"""Progress: silence, plain lines, or a bar that leaves the terminal as it found it."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from typing import Any

import pytest

import models
from onnx_shapprune.bench import Bench
from onnx_shapprune.errors import ModelError
from onnx_shapprune.game import ChannelGame
from onnx_shapprune.pipeline import open_bench
from onnx_shapprune.progress import SILENT, Bar, Lines, duration, progress_for, stage
from onnx_shapprune.scoring import Scoring, score

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()
    monkeypatch.setattr("onnx_shapprune.progress.perf_counter", time)
    return time


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with a size and a type, to be put in the place of stderr."""
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


@pytest.mark.parametrize(
    ("stream", "quiet", "kind"),
    [
        (Terminal(), False, Bar),
        (io.StringIO(), False, Lines),
        (Terminal(), True, type(SILENT)),
        (io.StringIO(), True, type(SILENT)),
    ],
)
def test_choice(stream: io.StringIO, quiet: bool, kind: type) -> None:
    assert isinstance(progress_for(stream, quiet=quiet), kind)


def test_silent(capfd: pytest.CaptureFixture[str]) -> None:
    SILENT.start("score", 3)
    SILENT.advance(2)
    SILENT.finish()
    assert capfd.readouterr() == ("", "")


def test_lines_are_rare_and_tell_what_is_left(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("score", 100)
    for _ in range(50):
        clock.now += 1
        lines.advance()
    lines.finish()
    assert stream.getvalue().splitlines() == [
        "score: 11/100, 1 min 29 s left",
        "score: 22/100, 1 min 18 s left",
        "score: 33/100, 1 min 07 s left",
        "score: 44/100, 56 s left",
        "score: done in 50 s",
    ]


def test_lines_begin_anew_with_every_stage(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for name in ("score", "verify"):
        lines.start(name, 2)
        clock.now += 6
        lines.advance(2)
        lines.finish()
    assert stream.getvalue() == "score: done in 6 s\nverify: done in 6 s\n"


def test_lines_past_their_total_have_nothing_left(clock: Clock) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("score", 1)
    clock.now += 11
    lines.advance(5)
    assert stream.getvalue() == "score: 5/1, 0 s left\n"


def test_lines_count_what_many_threads_do() -> None:
    lines = Lines(io.StringIO())
    lines.start("score", 4000)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda _: lines.advance(), range(4000)))
    assert lines._done == 4000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (61.2, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (3600, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_bar_shows_its_stage_and_goes_away(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        bar = Bar()
        bar.start("score", 7)
        bar.advance(3)
        bar.finish()
    text = terminal.getvalue()
    assert "score" in text
    assert "3/7" in text
    assert "left" in text
    assert text.count(HIDE) == text.count(SHOW) == 1


def test_bar_without_steps(terminal: Terminal) -> None:
    """Estimators that run nothing have a stage of no steps."""
    with redirect_stderr(terminal):
        bar = Bar()
        bar.start("score", 0)
        bar.finish()
        bar.finish()
    assert terminal.getvalue().count(SHOW) == 1


def test_bar_that_was_never_started(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        bar = Bar()
        bar.advance()
        bar.finish()
    assert terminal.getvalue() == ""


def test_a_stage_that_fails_is_not_said_to_be_done() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    with stage(lines, "score", 2):
        lines.advance(2)
    with pytest.raises(ModelError), stage(lines, "verify", 1):
        raise ModelError("broken")
    assert stream.getvalue() == "score: done in 0 s\n"


# --- in use ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> Bench:
    return open_bench(models.sequential(), models.samples(), provider="cpu")


class Steps:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done: list[int] = []
        self.finished = 0

    def start(self, stage: str, total: int) -> None:
        self.stages.append((stage, total))
        self.done.append(0)

    def advance(self, steps: int = 1) -> None:
        self.done[-1] += steps

    def finish(self, *, completed: bool = True) -> None:
        self.finished += completed


@pytest.mark.parametrize("name", ["leave-one-out", "exact"])
def test_scoring_comes_to_its_total(name: str, opened: Bench) -> None:
    steps = Steps()
    score(opened, Scoring(name), steps)
    assert steps.stages == [("score", steps.done[0])]
    assert steps.finished == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
def test_whatever_ends_scoring_the_cursor_is_shown_again(
    error: type[BaseException],
    opened: Bench,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C, or a coalition that fails."""

    def fail(*_: Any) -> None:
        raise error("enough")

    monkeypatch.setattr(ChannelGame, "worth", fail)
    with redirect_stderr(terminal), pytest.raises(error, match="enough"):
        score(opened, Scoring("leave-one-out"), progress_for(terminal, quiet=False))
    assert terminal.getvalue().count(HIDE) == terminal.getvalue().count(SHOW) == 1
