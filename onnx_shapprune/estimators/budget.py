"""How many evaluations of a game an estimator may spend."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx_shapprune.errors import BudgetTooSmall, OptionError

_HINT = (
    "give auto, a number of evaluations such as 1000, "
    "or a multiple of the number of players such as 8n"
)
# At most 15 digits: int() refuses thousands of them with an error of its own.
_NUMBER = re.compile(r"(-?[0-9]{1,15})(n?)")


@dataclass(frozen=True)
class Budget:
    """Evaluations (coalitions whose worth is asked for) allowed for one game.

    ``count`` None leaves the number to the estimator; with ``per_player`` it is
    multiplied by the number of players.

    Raises:
        OptionError: ``count`` is zero or negative.
    """

    count: int | None = None
    per_player: bool = False

    def __post_init__(self) -> None:
        """Refuse a count that buys nothing."""
        if self.count is not None and self.count < 1:
            raise OptionError(f"the budget is {self.count}, it must be at least 1", _HINT)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``"auto"``, ``"1000"`` (evaluations) or ``"8n"`` (evaluations per player).

        Raises:
            OptionError: any other text, zero or a negative number.
        """
        if text == "auto":
            return cls()
        match = _NUMBER.fullmatch(text)
        if match is None:
            raise OptionError(f"the budget {text!r} is no number of evaluations", _HINT)
        return cls(int(match[1]), match[2] == "n")

    def evaluations(self, players: int, auto: int) -> int:
        """Evaluations allowed for a game of ``players``; ``auto`` where none were named."""
        if self.count is None:
            return auto
        return self.count * players if self.per_player else self.count


def require(estimator: str, players: int, needed: int, budget: int) -> None:
    """Refuse, before anything is evaluated, a ``budget`` below the evaluations ``needed``.

    Raises:
        BudgetTooSmall: ``budget`` < ``needed``.
    """
    if budget < needed:
        raise BudgetTooSmall(estimator, players, needed, budget)
