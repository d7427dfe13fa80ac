"""The whole path from a model and samples to a smaller model and its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_shapprune import pipeline
from onnx_shapprune.allocation import Limits
from onnx_shapprune.bench import Absent
from onnx_shapprune.cost import Quantity
from onnx_shapprune.errors import (
    ModelError,
    NothingToPrune,
    OptionError,
    ScoresError,
    TargetUnreachable,
    VerificationError,
)
from onnx_shapprune.model_io import load_model, save_model
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import Result, open_bench, prune
from onnx_shapprune.progress import SILENT
from onnx_shapprune.scoring import Scoring, score
from onnx_shapprune.types import Cost, Plan, Wishes
from zoo import ZOO, Builder, Model, assert_close, run, samples

QUANTITIES: tuple[Quantity, ...] = ("macs", "parameters", "bytes")
QUICK = Scoring(estimator="l1")
NETS = ("sequential", "no_bias", "residual", "squeeze_excitation", "shared_vectors", "dense")


def pruned(name: str, keep: float, of: Quantity = "macs", absent: Absent = "mean") -> Result:
    """A net of the zoo, ranked by norms."""
    net = ZOO[name]
    bench = open_bench(net.build(), net.samples(8), absent=absent, provider="cpu")
    return prune(bench, keep=keep, of=of, scoring=QUICK)


def reached(name: str, keep: float, of: Quantity, absent: Absent) -> Result | None:
    """The pruned net, or None where names and structure alone are more than the target."""
    try:
        return pruned(name, keep, of, absent)
    except TargetUnreachable as error:
        report = error.result.report
        if of != "bytes" or report.after.bytes <= keep * report.before.bytes:
            raise
        return None


# --- outputs that are no floats ----------------------------------------------------------


def with_sequence() -> Model:
    """Two outputs: class scores, and a sequence of what is in front of them."""
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 4, 4), (3, 8)))
    scores = b.head(x, (8, 4))
    model = b.build(scores, b.add("SequenceConstruct", scores, b.relu(scores)))
    sequence = onnx.helper.make_tensor_sequence_value_info(
        model.graph.output[1].name, onnx.TensorProto.FLOAT, None
    )
    model.graph.output[1].CopyFrom(sequence)
    return model


def test_a_sequence_beside_the_scores_is_verified_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_sequence()
    bench = open_bench(model, samples(model, 8), provider="cpu")
    result = prune(bench, keep=0.6, scoring=QUICK)
    assert result.report.metric.name == "kl"
    assert result.report.after.macs <= 0.6 * result.report.before.macs

    def longer(*args: object) -> Model:
        cut = remove(*args)  # type: ignore[arg-type]
        made = next(n for n in cut.graph.node if n.op_type == "SequenceConstruct")
        made.input.append(made.input[0])
        return cut

    monkeypatch.setattr(pipeline, "remove", longer)
    with pytest.raises(VerificationError, match="has other entries"):
        prune(bench, keep=0.6, scoring=QUICK)


def test_classes_instead_of_scores_are_judged_by_their_match() -> None:
    b = Builder()
    x = b.relu(b.conv(b.input("N", 3, 4, 4), (3, 8)))
    x = b.gemm(b.add("Flatten", x), (8 * 4 * 4, 4))
    model = b.build(b.add("ArgMax", x, axis=1, keepdims=0))
    bench = open_bench(model, samples(model, 32), provider="cpu")
    report = prune(bench, keep=0.3, scoring=Scoring(budget="4n")).report
    assert report.metric.name == "match"
    assert report.metric.original == 1
    assert report.metric.masked == report.metric.removed < 1


def test_a_sample_without_a_finite_output_is_named() -> None:
    """In the second batch."""
    b = Builder()
    x = b.input("N", 3, 4, 4)
    model = b.build(b.head(b.conv(b.add("Sqrt", x), (3, 8)), (8, 4)))
    data = {name: np.zeros_like(array) for name, array in samples(model, 40).items()}
    (name,) = data
    bench = open_bench(model, data, absent="zero", provider="cpu")
    assert bench.reference.rows(0) == 40
    data[name][37] = -1
    with pytest.raises(ModelError, match="is not finite on these samples, the first is number 37"):
        open_bench(model, data, provider="cpu").metric("auto")


# --- done -------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["zero", "mean"])
@pytest.mark.parametrize("of", QUANTITIES)
@pytest.mark.parametrize("keep", [0.6, 0.85])
@pytest.mark.parametrize("name", NETS)
def test_targets_hold_for_the_file(
    name: str, keep: float, of: Quantity, absent: Absent, tmp_path: Path
) -> None:
    result = reached(name, keep, of, absent)
    if result is None:
        return
    report = result.report
    save_model(result.model, tmp_path / "small.onnx")
    written = load_model(tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size == report.after.bytes
    data = ZOO[name].samples(2)
    costs = open_bench(written, data, absent="zero", provider="cpu").costs
    whole = costs.cost(costs.full())
    assert replace(whole, channels=report.after.channels) == report.after
    assert getattr(whole, of) <= keep * getattr(report.before, of)
    assert report.after.channels == sum(len(group.kept) for group in report.groups)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_net_is_pruned_or_says_why_not(name: str) -> None:
    net = ZOO[name]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    try:
        result = prune(bench, keep=0.7, scoring=QUICK)
    except NothingToPrune:
        assert net.players == ()
        return
    assert result.report.after.macs <= 0.7 * result.report.before.macs
    limit = 2e-2 if name == "half_precision" else 1e-4
    assert result.report.max_difference <= limit
    onnx.checker.check_model(result.model, full_check=True)


@pytest.mark.parametrize("estimator", ["permutation", "exact", "leave-one-out", "random", "l1"])
def test_every_estimator(estimator: str) -> None:
    net = ZOO["residual"]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    result = prune(bench, keep=0.5, scoring=Scoring(estimator=estimator))
    assert result.report.after.macs <= 0.5 * result.report.before.macs
    assert result.report.estimator == estimator
    assert (result.report.evaluations == 0) == (estimator in ("random", "l1"))


def test_report_tells_what_was_done() -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    result = prune(bench, keep=0.5, scoring=Scoring(estimator="exact"))
    report = result.report
    assert report.model_sha256 == bench.model.sha256 == result.plan.model_sha256
    assert report.before == bench.costs.cost(bench.costs.full())
    assert (report.provider, report.absent, report.samples) == ("cpu", "mean", 8)
    for told, part in zip(report.groups, result.plan.groups, strict=True):
        np.testing.assert_array_equal(told.kept, np.flatnonzero(part.kept))
        assert (told.name, told.players) == (part.group.name, part.group.players)
        assert len(told.scores) == len(told.stderr) == told.players
    assert report.metric.name == "kl"
    assert report.metric.original == pytest.approx(0, abs=1e-6)
    assert report.metric.removed == pytest.approx(report.metric.masked, rel=1e-2, abs=1e-5)
    assert report.metric.removed < 0
    assert {entry.op_type for entry in report.skipped} == {"Gemm"}
    assert json.loads(json.dumps(report.to_json()))["after"]["macs"] == report.after.macs


def test_channels_that_matter_stay() -> None:
    """Two of six channels are all that the output depends on."""
    b = Builder()
    x = b.add("Sigmoid", b.gemm(b.input("N", 4), (4, 6)))
    weights = np.zeros((6, 3))
    weights[[1, 4]] = np.random.default_rng(0).normal(size=(2, 3)) * 3
    model = b.build(b.add("Gemm", x, b.store(weights)))
    result = prune(
        open_bench(model, samples(model, 16), provider="cpu"),
        keep=0.34,
        scoring=Scoring(estimator="exact"),
    )
    assert result.report.groups[0].kept == (1, 4)
    feeds = samples(model, 5, seed=9)
    assert_close(run(result.model, feeds), run(model, feeds))


def test_path_model_and_bench_give_the_same(tmp_path: Path) -> None:
    net = ZOO["residual"]
    data = net.samples(8)
    onnx.save(net.build(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **data)  # type: ignore[arg-type]
    from_path = prune(tmp_path / "m.onnx", tmp_path / "d.npz", keep=0.5, scoring=QUICK)
    from_text = prune(str(tmp_path / "m.onnx"), data, keep=0.5, scoring=QUICK)
    from_model = prune(net.build(), data, keep=0.5, scoring=QUICK)
    assert from_path.model == from_text.model == from_model.model


def test_same_seed_same_model() -> None:
    net = ZOO["sequential"]
    runs = [
        prune(net.build(), net.samples(8), keep=0.5, scoring=Scoring("random", seed=seed))
        for seed in (1, 1, 2, 3)
    ]
    kept = [[group.kept for group in result.report.groups] for result in runs]
    assert kept[0] == kept[1]
    assert kept[0] != kept[2] or kept[0] != kept[3]


def test_source_is_not_touched() -> None:
    net = ZOO["residual"]
    model = net.build()
    prune(model, net.samples(8), keep=0.5, scoring=QUICK)
    assert model == net.build()


def test_limits_hold() -> None:
    net = ZOO["inception"]
    result = prune(
        net.build(), net.samples(8), keep=0.7, scoring=QUICK, limits=Limits(min_channels=2)
    )
    assert min(len(group.kept) for group in result.report.groups) >= 2


def test_keeping_all_changes_nothing() -> None:
    net = ZOO["sequential"]
    result = prune(net.build(), net.samples(8), keep=1.0, scoring=QUICK)
    assert result.model == net.build()
    assert result.report.before == result.report.after
    assert result.report.max_difference < 1e-6


def test_excluded_nodes_keep_their_channels() -> None:
    net = ZOO["sequential"]
    bench = open_bench(
        net.build(), net.samples(8), wishes=Wishes(exclude=("Conv_0",)), provider="cpu"
    )
    result = prune(bench, keep=0.8, scoring=QUICK)
    assert "Conv_0" not in {member for group in result.report.groups for member in group.members}
    assert result.model.graph.initializer[0].dims == [6, 3, 3, 3]


# --- scores made earlier ----------------------------------------------------------------


def test_scores_decide() -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    made = score(bench, QUICK, SILENT)
    groups = tuple(replace(g, values=tuple(range(g.players, 0, -1))) for g in made.groups)
    result = prune(bench, keep=0.5, scores=replace(made, groups=groups))
    for group in result.report.groups:
        assert group.kept == tuple(range(len(group.kept)))


def test_scores_of_another_model_are_refused() -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    made = score(bench, QUICK, SILENT)
    with pytest.raises(ScoresError, match="the scores are of the model aaaaaaaaaaaa…"):
        prune(bench, keep=0.5, scores=replace(made, model_sha256="a" * 64))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "nobody"}, "the scores name the group 'nobody', the model has none"),
        ({"values": (1.0, 2.0)}, "are not 6 finite numbers"),
        ({"values": (1.0, 2.0, float("nan"), 1.0, 1.0, 1.0)}, "are not 6 finite numbers"),
    ],
)
def test_scores_that_do_not_fit_are_refused(change: dict[str, object], text: str) -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(8), provider="cpu")
    made = score(bench, QUICK, SILENT)
    first = replace(made.groups[0], **change)  # type: ignore[arg-type]
    with pytest.raises(ScoresError, match=text):
        prune(bench, keep=0.5, scores=replace(made, groups=(first, *made.groups[1:])))


# --- other ends -------------------------------------------------------------------------


def test_nothing_to_prune() -> None:
    net = ZOO["only_output"]
    with pytest.raises(NothingToPrune, match="no channel of this model can be removed") as caught:
        prune(net.build(), net.samples(4), keep=0.5)
    result = caught.value.result
    assert caught.value.exit_code == 3
    assert result.model == net.build()
    assert result.report.before == result.report.after
    assert result.report.groups == ()
    assert [entry.op_type for entry in result.report.skipped] == ["Conv"]
    assert json.dumps(result.report.to_json())


@pytest.mark.parametrize("of", QUANTITIES)
def test_unreachable(of: Quantity) -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(8), absent="zero", provider="cpu")
    with pytest.raises(TargetUnreachable, match=f"0.001 × {of} can't be reached") as caught:
        prune(bench, keep=0.001, of=of, scoring=QUICK)
    result = caught.value.result
    assert caught.value.exit_code == 4
    assert [len(group.kept) for group in result.report.groups] == [1, 1, 1]
    share = getattr(result.report.after, of) / getattr(result.report.before, of)
    assert f"the smallest model has {share:.3g} ×" in str(caught.value)
    feeds = samples(net.build(), 2)
    assert run(result.model, feeds)[0].shape == (2, 3)


@pytest.mark.parametrize("of", QUANTITIES)
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("name", ["no_bias", "feed_forward", "perceptron", "shared_vectors"])
def test_small_targets_are_reached_or_said_to_be_out_of_reach(
    name: str, keep: float, of: Quantity
) -> None:
    """New biases weigh something too: the file may be larger than predicted."""
    try:
        report, is_reached = pruned(name, keep, of).report, True
    except TargetUnreachable as error:
        report, is_reached = error.result.report, False
    assert (getattr(report.after, of) <= keep * getattr(report.before, of)) == is_reached


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5])
def test_tied_branches_survive(keep: float) -> None:
    """Two branches side by side, tied to a third: neither may end up empty."""
    net = ZOO["concat_of_sums"]
    for seed in range(4):
        scoring = Scoring("random", seed=seed)
        try:
            result = prune(net.build(), net.samples(8), keep=keep, scoring=scoring)
        except TargetUnreachable as error:
            result = error.result
        assert all(min(t.dims) > 0 for t in result.model.graph.initializer if t.dims)


def test_the_smallest_model_is_really_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every prediction is a little too low."""
    real = pipeline.measured

    def larger(*args: object) -> Cost:
        found = real(*args)  # type: ignore[arg-type]
        return replace(found, macs=found.macs + 10**9)

    monkeypatch.setattr(pipeline, "measured", larger)
    with pytest.raises(TargetUnreachable) as caught:
        pruned("sequential", 0.9)
    assert {len(group.kept) for group in caught.value.result.report.groups} == {1}


def test_no_data() -> None:
    with pytest.raises(OptionError, match="no data were given"):
        prune(ZOO["sequential"].build(), keep=0.5)


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_bad_targets_come_before_any_work(keep: float) -> None:
    with pytest.raises(OptionError, match="--keep must be above 0 and at most 1"):
        prune("there is no such file", "nor this one", keep=keep)


def test_a_defect_gives_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Model, sha256: str, plan: Plan) -> Model:
        cut = remove(model, sha256, plan)
        kernel = cut.graph.initializer[6]
        array = onnx.numpy_helper.to_array(kernel)[:, ::-1]
        kernel.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), kernel.name))
        return cut

    monkeypatch.setattr(pipeline, "remove", broken)
    net = ZOO["sequential"]
    with pytest.raises(VerificationError, match="differs by") as caught:
        prune(net.build(), net.samples(8), keep=0.6, scoring=QUICK)
    assert caught.value.exit_code == 1
    assert "nothing was written" in caught.value.hint


def test_a_bench_has_its_samples_already() -> None:
    net = ZOO["sequential"]
    bench = open_bench(net.build(), net.samples(2))
    with pytest.raises(OptionError, match="a bench has its samples already"):
        prune(bench, net.samples(2), keep=0.5)
