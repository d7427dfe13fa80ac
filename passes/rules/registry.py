"""Which rule is responsible for which operator."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ..graph import STANDARD_DOMAINS
from .site import Site

Rule = Callable[[Site], None]

RULES: dict[str, Rule] = {}
"""Rules by operator (see :func:`operator`); they run when an input is tracked."""

PRODUCERS: set[str] = set()
"""Operators whose rule runs always, because they make channels of their own."""

NUMBER_RULES: dict[str, Rule] = {}
"""Rules on shape tensors; they run when an input has known entries."""

NUMBER_READERS: set[tuple[str, int]] = set()
"""Operator inputs that take a shape tensor and whose rule looks at its entries."""


def operator(node: onnx.NodeProto) -> str:
    """What a node's rule is registered by: its type, with the domain if that isn't ONNX's own."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def rule(*operators: str, produces: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for channels."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        if produces:
            PRODUCERS.update(operators)
        return function

    return register


def number_rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for the entries of shape tensors."""

    def register(function: Rule) -> Rule:
        NUMBER_RULES.update(dict.fromkeys(operators, function))
        return function

    return register
