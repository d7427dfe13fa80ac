"""docs/operators.md is what the rules say, and has all that real exports need."""

from __future__ import annotations

from pathlib import Path

import pytest

import operators
from onnx_shapprune.passes.rules import NUMBER_RULES, RULES

EXPECTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization"),
    *(
        "GroupNormalization",
        "LayerNormalization",
        "PRelu",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
    ),
    *("Max", "Where", "Sum", "Concat", "Split", "Slice", "Gather", "Shape", "DepthToSpace"),
    *("SpaceToDepth", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Pad", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "LRN", "Softmax"),
    *("ArgMax", "TopK", "NonMaxSuppression", "QuantizeLinear", "DequantizeLinear", "QLinearConv"),
    *("ConvInteger", "Cast", "Identity"),
)
"""What a dependency analysis meets in real exports."""


@pytest.fixture(scope="module")
def document() -> str:
    return operators.TARGET.read_text(encoding="utf-8")


def test_the_document_is_what_the_rules_say() -> None:
    assert operators.main(["--check"]) == 0


def test_a_document_that_is_out_of_date_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operators, "TARGET", tmp_path / "operators.md")
    monkeypatch.setattr(operators, "document", lambda: "| `Conv` |\n")
    assert operators.main(["--check"]) == 1
    assert "run python tools/operators.py" in capsys.readouterr().out
    assert operators.main([]) == 0
    assert operators.main(["--check"]) == 0


def test_every_operator_with_a_rule_has_a_row(document: str) -> None:
    rows = {name for line in document.splitlines() for name in line.split("`")[1::2]}
    assert {*RULES, *NUMBER_RULES} <= rows


def test_operators_of_real_exports_have_a_row(document: str) -> None:
    assert [op for op in EXPECTED if f"`{op}`" not in document] == []


def test_what_was_seen_on_nets(document: str) -> None:
    rows = {
        line.split("|")[1].strip(): line.split("|") for line in document.splitlines() if "|" in line
    }
    assert rows["`Conv`"][3].strip() == "shrinks: `W`, `B`; follows: `group`; masked: `X`"
    assert rows["`GatherND`"][3].strip() == "shrinks: `indices`; renumbered: `indices`"
    assert rows["`Transpose`"][3].strip() == ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('raise Refused("it can\'t")', ["it can't"]),
        (
            'raise Refused(f"{count} channels in {len(x)} {where}")',
            ["*count* channels in … *where*"],
        ),
        ('site.lock(ids, "they stay")', ["they stay"]),
        ('walked.lock(node, ids, "another lock")', []),
        ('raise ValueError("no refusal")', []),
        ('Refused("twice"), Refused("twice")', ["twice"]),
    ],
)
def test_sentences_are_read_from_the_source(source: str, said: list[str]) -> None:
    assert operators.refusals([operators.ast.parse(source)]) == said


def test_helpers_of_other_modules_are_read_too() -> None:
    called = list(operators.called("spatial", "resize"))
    assert ("numbers", "follow_shape_entry") in called
    assert ("numbers", "require_free") in called
    assert all(home in operators.THEMES for home, _ in called)


def test_every_module_of_rules_is_a_theme_or_a_tool() -> None:
    modules = {
        rule.__module__.rpartition(".")[2] for rule in (*RULES.values(), *NUMBER_RULES.values())
    }
    assert modules == set(operators.THEMES)
