"""How every command ends: exit codes, errors without tracebacks, Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from .errors import ShapPruneError

INTERRUPTED = 130


class Command(click.Command):
    """A command whose failures are one message with a hint; ``--debug`` shows the traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_DEBUG)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments; Ctrl-C counts here too."""
        with _interruptible():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and translate what it raises into an exit code."""
        debug = ctx.params.pop("debug", False)
        try:
            with _interruptible():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own, and its way to end when nobody reads on
        except Exception as error:
            if debug:
                raise
            _show(error)
            ctx.exit(error.exit_code if isinstance(error, ShapPruneError) else 1)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted: nothing was left half-written.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


_DEBUG = click.Option(
    ["--debug"], is_flag=True, help="Show the traceback of an error.", expose_value=True
)


def _show(error: Exception) -> None:
    if isinstance(error, ShapPruneError):
        message, hint = str(error), error.hint
    elif isinstance(error, MemoryError):
        message, hint = "out of memory", "use fewer samples"
    else:
        message = f"unexpected {type(error).__name__}: {error}"
        hint = "this is a defect; run again with --debug and report it"
    click.echo(f"Error: {message}", err=True)
    if hint:
        click.echo(f"Hint: {hint}", err=True)
