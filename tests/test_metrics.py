"""Metrics: values worked out by hand, what outputs are taken for, and every complaint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnx_shapprune.errors import DataError, OptionError
from onnx_shapprune.metrics import (
    NAMES,
    Metric,
    Reference,
    assumption,
    build_metric,
    class_kind,
    class_output,
    log_probabilities,
)
from onnx_shapprune.types import Array

LOG2, LOG3 = float(np.log(2)), float(np.log(3))


def floats(values: object) -> Array:
    """float32."""
    return np.asarray(values, np.float32)


def reference(
    *batches: Sequence[Array], labels: Sequence[Sequence[int]] | None = None
) -> Reference:
    """A reference with these batches of outputs."""
    known = None if labels is None else tuple(np.asarray(b, np.int64) for b in labels)
    names = tuple(f"y{i}" for i in range(len(batches[0])))
    return Reference(tuple(tuple(batch) for batch in batches), known, names)


def value(metric: Metric, *batches: Sequence[Array]) -> float:
    """The metric over all batches."""
    return sum(metric.part(number, batch) for number, batch in enumerate(batches))


def softmax(rows: Array) -> Array:
    """Shares that sum to one."""
    shares: Array = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    return shares


# --- agreement of classes ---------------------------------------------------------------


def test_divergence_worked_out_by_hand() -> None:
    """Halves against three quarters and one quarter."""
    metric = build_metric("kl", reference([floats([[0, 0]])]))
    expected = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert value(metric, [floats([[LOG3, 0]])]) == pytest.approx(-expected)


def test_divergence_is_not_symmetric() -> None:
    metric = build_metric("kl", reference([floats([[LOG3, 0]])]))
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert value(metric, [floats([[1, 1]])]) == pytest.approx(-expected)


@pytest.mark.parametrize("form", ["logits", "probabilities", "log-probabilities"])
def test_divergence_of_identical_outputs_is_zero(form: str) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    rows = {"logits": rows, "probabilities": softmax(rows)}.get(form, np.log(softmax(rows)))
    metric = build_metric("kl", reference([rows[:4]], [rows[4:]]))
    assert value(metric, [rows[:4]], [rows[4:]]) == pytest.approx(0, abs=1e-9)


def test_divergence_is_the_same_in_all_forms() -> None:
    rng = np.random.default_rng(1)
    known, found = (rng.normal(size=(5, 3)) for _ in range(2))
    forms = [lambda rows: rows, softmax, lambda rows: np.log(softmax(rows))]
    values = [value(build_metric("kl", reference([f(known)])), [f(found)]) for f in forms]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    assert values[0] < -0.01


def test_divergence_is_a_mean_over_samples() -> None:
    rows, other = floats([[0, 0], [0, 0], [0, 0]]), floats([[LOG3, 0]])
    one = value(build_metric("kl", reference([rows[:1]])), [other])
    metric = build_metric("kl", reference([rows[:2]], [rows[2:]]))
    three = value(metric, [np.concatenate([other, rows[:1]])], [rows[2:]])
    assert three == pytest.approx(one / 3)


def test_constants_added_to_logits_do_not_matter() -> None:
    rows = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    metric = build_metric("kl", reference([rows]))
    assert value(metric, [rows + floats([[5], [-3], [80], [0]])]) == pytest.approx(0, abs=1e-6)


def test_impossible_classes_cost_much_but_stay_finite() -> None:
    metric = build_metric("kl", reference([floats([[0.5, 0.5]])]))
    found = value(metric, [floats([[1, 0]])])
    assert np.isfinite(found)
    assert found < -10


def test_pictures_of_one_pixel_are_scores() -> None:
    metric = build_metric("auto", reference([floats([[2, 2]]).reshape(1, 2, 1, 1)]))
    assert metric.name == "kl"
    assert value(metric, [floats([[LOG3, 0]]).reshape(1, 2, 1, 1)]) < -0.1


def test_samples_are_counted_at_the_scores() -> None:
    """Another output may have any number of rows."""
    rows, other = np.zeros((4, 2), np.float32), np.tile(floats([[LOG3, 0]]), (4, 1))
    alone = value(build_metric("kl", reference([rows])), [other])
    for index in (np.arange(7), np.int64(3)):
        beside = build_metric("kl", reference([np.asarray(index), rows]))
        assert value(beside, [np.asarray(index), other]) == pytest.approx(alone)


# --- error ------------------------------------------------------------------------------


def test_error_worked_out_by_hand() -> None:
    """Squared error 1 over a squared distance from the mean of 2."""
    metric = build_metric("error", reference([floats([[1], [3]])]))
    assert value(metric, [floats([[1], [4]])]) == pytest.approx(-0.5)


def test_error_of_the_mean_is_minus_one() -> None:
    rows = np.random.default_rng(3).normal(2, 1, (6, 4)).astype(np.float32)
    metric = build_metric("error", reference([rows[:4]], [rows[4:]]))
    mean = np.full((6, 4), rows.mean(dtype=np.float64))
    assert value(metric, [mean[:4]], [mean[4:]]) == pytest.approx(-1)
    assert value(metric, [rows[:4]], [rows[4:]]) == 0


def test_error_is_a_mean_over_outputs_whatever_their_scale() -> None:
    one, other = floats([[1], [3]]), floats([[1000], [3000]])
    metric = build_metric("auto", reference([one, other]))
    assert metric.name == "error"
    assert value(metric, [floats([[1], [4]]), other]) == pytest.approx(-0.25)
    assert value(metric, [one, floats([[1000], [4000]])]) == pytest.approx(-0.25)


def test_error_looks_at_floats_only() -> None:
    metric = build_metric("error", reference([np.array([1, 2]), floats([[1], [3]])]))
    assert value(metric, [np.array([7, 7]), floats([[1], [4]])]) == pytest.approx(-0.5)


@pytest.mark.parametrize(("constant", "expected"), [(2.0, -0.25), (0.0, -2.0)])
def test_error_of_a_constant_output(constant: float, expected: float) -> None:
    metric = build_metric("error", reference([floats([[constant], [constant]])]))
    found = value(metric, [floats([[constant + 1], [constant + 1]])])
    assert found == pytest.approx(expected)


def test_error_of_half_precision_does_not_overflow() -> None:
    rows = np.array([[200.0], [-200.0]], np.float16)
    metric = build_metric("error", reference([rows]))
    assert value(metric, [-rows]) == pytest.approx(-4)


def test_error_of_outputs_whose_size_changes() -> None:
    metric = build_metric("error", reference([floats([[1], [3]])]))
    with pytest.raises(DataError, match=r"an output has shape \[3, 1\] where .* \[2, 1\]"):
        metric.part(0, [floats([[1], [3], [4]])])


# --- labels -----------------------------------------------------------------------------


def test_accuracy_worked_out_by_hand() -> None:
    rows = floats([[3, 1, 2], [0, 5, 1], [1, 2, 9], [4, 0, 0]])
    metric = build_metric("accuracy", reference([rows[:3]], [rows[3:]], labels=[[0, 1, 1], [0]]))
    assert value(metric, [rows[:3]], [rows[3:]]) == pytest.approx(0.75)
    assert value(metric, [-rows[:3]], [-rows[3:]]) == pytest.approx(0)


def test_cross_entropy_worked_out_by_hand() -> None:
    rows = floats([[LOG3, 0], [0, 0]])
    metric = build_metric("cross-entropy", reference([rows], labels=[[0, 1]]))
    assert value(metric, [rows]) == pytest.approx((np.log(0.75) - LOG2) / 2)


def test_cross_entropy_is_clipped_per_sample() -> None:
    rows = floats([[50, 0, 0], [0, 0, 50]])
    metric = build_metric("cross-entropy", reference([rows], labels=[[1, 2]]))
    assert value(metric, [rows]) == pytest.approx(-LOG3 / 2, abs=1e-6)


def test_cross_entropy_of_probabilities() -> None:
    rows = floats([[0.25, 0.75], [0.5, 0.5]])
    metric = build_metric("cross-entropy", reference([rows], labels=[[1, 0]]))
    assert value(metric, [rows]) == pytest.approx((np.log(0.75) + np.log(0.5)) / 2)


# --- what outputs are -------------------------------------------------------------------

ROWS = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (ROWS, "logits"),
        (softmax(ROWS), "probabilities"),
        (softmax(ROWS).astype(np.float16), "probabilities"),
        (np.log(softmax(ROWS)), "log-probabilities"),
        (-np.abs(ROWS), "logits"),
        (np.abs(ROWS), "logits"),
    ],
)
def test_kinds_of_scores(rows: Array, kind: str) -> None:
    assert class_kind(reference([rows[:3]], [rows[3:]]), 0) == kind
    known = {"logits": softmax(rows.astype(np.float64)), "probabilities": rows}
    expected = known.get(kind, np.exp(rows))
    np.testing.assert_allclose(np.exp(log_probabilities(rows, kind)), expected, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "index"),
    [
        ([ROWS], 0),
        ([np.arange(5), ROWS], 1),
        ([ROWS, ROWS], None),
        ([ROWS[:, :1]], None),
        ([ROWS[0]], None),
        ([ROWS.reshape(5, 2, 2)], None),
        ([np.arange(5)], None),
    ],
)
def test_which_output_has_the_scores(outputs: Sequence[Array], index: int | None) -> None:
    assert class_output(reference(outputs)) == index


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        ([ROWS], "kl"),
        ([softmax(ROWS)], "kl"),
        ([1 / (1 + np.exp(-ROWS))], "error"),
        ([ROWS[:, :1]], "error"),
        ([ROWS.reshape(5, 2, 2)], "error"),
        ([ROWS, ROWS], "error"),
    ],
)
def test_choice_without_labels(outputs: Sequence[Array], name: str) -> None:
    assert build_metric("auto", reference(outputs)).name == name


def test_names_are_those_of_the_metrics() -> None:
    known = reference([ROWS, np.arange(5)], labels=[[0, 1, 2, 3, 0]])
    assert [build_metric(name, known).name for name in NAMES[1:]] == list(NAMES[1:])


# --- outputs that are no floats ---------------------------------------------------------


def test_match_is_the_share_of_equal_entries() -> None:
    """Over both batches; a map beside them counts for nothing."""
    words = np.asarray([["a", "b"], ["c", "d"]], object)
    known = reference([np.arange(4), words, {}], [np.arange(2), words[:1], {}])
    metric = build_metric("auto", known)
    assert metric.name == "match"
    assert value(metric, *known.outputs) == pytest.approx(1)
    other = [np.asarray([0, 1, 2, 9]), np.full((2, 2), "a", object), {}]
    assert value(metric, other, known.outputs[1]) == pytest.approx((5 / 6 + 3 / 6) / 2)


def test_match_needs_the_same_shape() -> None:
    metric = build_metric("match", reference([np.arange(4)]))
    with pytest.raises(DataError, match="its size depends on the values"):
        metric.part(0, [np.arange(3)])


def test_only_class_scores_by_their_shape_are_an_assumption() -> None:
    assert "'y0' is taken for scores" in assumption(build_metric("auto", reference([ROWS])))
    assert not assumption(build_metric("kl", reference([ROWS])))
    assert not assumption(build_metric("auto", reference([softmax(ROWS)])))
    assert not assumption(build_metric("auto", reference([ROWS[:, :1]])))


# --- complaints -------------------------------------------------------------------------


def test_unknown_metric() -> None:
    with pytest.raises(OptionError, match="unknown metric 'f1'") as caught:
        build_metric("f1", reference([ROWS]))
    assert caught.value.hint == "one of: auto, kl, error, match, accuracy, cross-entropy"


@pytest.mark.parametrize("name", ["accuracy", "cross-entropy"])
def test_no_labels(name: str) -> None:
    with pytest.raises(OptionError, match=f"metric '{name}' needs labels, the data have none"):
        build_metric(name, reference([ROWS]))


@pytest.mark.parametrize("name", ["kl", "accuracy", "cross-entropy"])
def test_several_outputs(name: str) -> None:
    text = f"metric '{name}' needs one output of class scores, shape \\[samples, classes\\]"
    with pytest.raises(OptionError, match=text) as caught:
        build_metric(name, reference([ROWS, ROWS], labels=[[0] * 5]))
    assert caught.value.hint == "use --metric error"


def test_label_out_of_range() -> None:
    text = "label 4 is out of range: the model has the classes 0 to 3"
    with pytest.raises(DataError, match=text):
        build_metric("accuracy", reference([ROWS[:3]], [ROWS[3:]], labels=[[0, 1, 2], [3, 4]]))


def test_last_label_is_in_range() -> None:
    assert build_metric("accuracy", reference([ROWS], labels=[[3] * 5])).name == "accuracy"


def test_no_float_output() -> None:
    with pytest.raises(OptionError, match="metric 'error' needs a float output, the model has no"):
        build_metric("error", reference([np.arange(5)]))


def test_no_other_output() -> None:
    with pytest.raises(OptionError, match="metric 'match' needs an output of integers") as caught:
        build_metric("match", reference([ROWS]))
    assert caught.value.hint == "use --metric error"
