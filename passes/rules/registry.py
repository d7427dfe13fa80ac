"""Which rule is responsible for which operator."""

from __future__ import annotations

from collections.abc import Callable

from .site import Site

Rule = Callable[[Site], None]

RULES: dict[str, Rule] = {}
"""Rules by ONNX operator name; they run when an input is tracked."""

PRODUCERS: set[str] = set()
"""Operators whose rule runs always, because they make channels of their own."""

NUMBER_RULES: dict[str, Rule] = {}
"""Rules on shape tensors; they run when an input has known entries."""

NUMBER_READERS: set[tuple[str, int]] = set()
"""Operator inputs that take a shape tensor and whose rule looks at its entries."""


def rule(*operators: str, produces: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for channels."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
            if produces:
                PRODUCERS.add(operator)
        return function

    return register


def number_rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for the entries of shape tensors."""

    def register(function: Rule) -> Rule:
        NUMBER_RULES.update(dict.fromkeys(operators, function))
        return function

    return register
