"""Every error that this package raises on purpose.

    ShapPruneError            exit 1
    ├── OptionError           an option has a value that means nothing
    │   └── BudgetTooSmall    the estimator needs more evaluations than allowed
    ├── ModelError            the model can't be read, checked or run
    ├── DataError             the calibration data don't fit the model
    ├── ScoresError           the scores don't belong to this model
    ├── OutputError           the result can't be written
    ├── ProviderError         the execution provider asked for isn't there
    ├── VerificationError     the pruned model differs from the masked one
    ├── NothingToPrune        exit 3: no channel can be removed exactly
    └── TargetUnreachable     exit 4: the target is below what can be removed

Each carries what went wrong (``str(error)``), what to do about it (``hint``)
and the exit code of the command line.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ShapPruneError(Exception):
    """Base of all errors of this package."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class OptionError(ShapPruneError):
    """An option has a value that means nothing."""


class BudgetTooSmall(OptionError):
    """The estimator needs more evaluations than the budget allows."""

    def __init__(self, estimator: str, players: int, needed: int, budget: int) -> None:
        super().__init__(
            f"{estimator} needs {needed} evaluations for {players} players, the budget is {budget}",
            f"give --budget {needed} or more, or --budget auto",
        )
        self.needed = needed


class ModelError(ShapPruneError):
    """The model can't be read, checked or run."""


class DataError(ShapPruneError):
    """The calibration data don't fit the model."""


class ScoresError(ShapPruneError):
    """The scores don't belong to this model or to its groups."""


class OutputError(ShapPruneError):
    """The result can't be written."""


class ProviderError(ShapPruneError):
    """The execution provider asked for isn't there."""


class VerificationError(ShapPruneError):
    """The pruned model computes something else than the masked one."""

    def __init__(self, message: str, hint: str = "", group: str = "") -> None:
        super().__init__(message, hint)
        self.group = group


class _WithResult(ShapPruneError):
    """An end that is not the one asked for, but has a :class:`pipeline.Result` all the same."""

    def __init__(self, message: str, hint: str = "", result: Any = None) -> None:
        super().__init__(message, hint)
        self.result = result


class NothingToPrune(_WithResult):
    """No channel of the model can be removed exactly; ``result`` has the unchanged model."""

    exit_code: ClassVar[int] = 3


class TargetUnreachable(_WithResult):
    """The target lies below what can be removed; ``result`` has the smallest model."""

    exit_code: ClassVar[int] = 4
