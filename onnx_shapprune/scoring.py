"""Scores: the games of all groups, played one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .bench import Bench
from .errors import ScoresError
from .estimators import NAMES, Budget, allowance, estimate, estimator
from .game import ChannelGame, UnplayedGame
from .metrics import Metric
from .progress import stage
from .types import ChannelGroup, Estimate, FloatArray, GroupScore, Progress, Scores


@dataclass(frozen=True)
class Scoring:
    """How channels are scored.

    Attributes:
        estimator: One of :data:`onnx_shapprune.estimators.NAMES`.
        budget: Coalitions per group: ``auto``, a number, or ``8n`` for eight per player.
        metric: One of :data:`onnx_shapprune.metrics.NAMES`.
        seed: Of everything that is drawn.
    """

    estimator: str = "permutation"
    budget: str = "auto"
    metric: str = "auto"
    seed: int = 0


def score(bench: Bench, scoring: Scoring, progress: Progress) -> Scores:
    """Score every player of every group.

    Raises:
        OptionError: The estimator or the budget doesn't suit a group; before any run.
    """
    budget = Budget.parse(scoring.budget)
    plays = estimator(scoring.estimator).plays
    allowed = [allowance(scoring.estimator, group.players, budget) for group in bench.groups]
    metric = bench.metric(scoring.metric)  # its complaints come before the long work
    rngs = np.random.default_rng(scoring.seed).spawn(len(bench.groups))
    with stage(progress, "score", sum(allowed)):
        found = [
            _play(bench, group, scoring, metric, rng, progress)
            for group, rng in zip(bench.groups, rngs, strict=True)
        ]
    return Scores(
        model_sha256=bench.model.sha256,
        estimator=scoring.estimator,
        metric=metric.name if plays else "none",
        absent=bench.absent,
        seed=scoring.seed,
        samples=bench.calibration.samples,
        groups=tuple(found),
    )


def _play(
    bench: Bench,
    group: ChannelGroup,
    scoring: Scoring,
    metric: Metric,
    rng: np.random.Generator,
    progress: Progress,
) -> GroupScore:
    """Play the game of one group."""
    budget = Budget.parse(scoring.budget)
    if not estimator(scoring.estimator).plays:
        unplayed = UnplayedGame(group, bench.graph)
        return _group_score(group, estimate(scoring.estimator, unplayed, budget, rng), 0)
    with bench.player(group) as (model, executor):
        game = ChannelGame(group, model, metric, executor, progress)
        estimated = estimate(scoring.estimator, game, budget, rng)
    return _group_score(group, estimated, game.evaluations)


def values_by_group(scores: Scores, bench: Bench) -> dict[str, FloatArray]:
    """Values per group, checked to belong to this model and its groups.

    Raises:
        ScoresError: Another model, an unknown group, other members, or another number of
            players.
    """
    if scores.model_sha256 != bench.model.sha256:
        raise ScoresError(
            f"the scores are of the model {scores.model_sha256[:12]}…, "
            f"this is {bench.model.sha256[:12]}…",
            "score this model: onnx-shapprune score MODEL --data D -o SCORES.json",
        )
    if played(scores) and scores.absent != bench.absent:
        raise ScoresError(
            f"the scores are of absent={scores.absent}, now absent={bench.absent} is asked for",
            f"use --absent {scores.absent}, or score this model again",
        )
    groups = {group.name: group for group in bench.groups}
    return {part.name: _checked(part, groups) for part in scores.groups}


def doubts(scores: Scores, bench: Bench, metric: Metric) -> list[str]:
    """What a user should know about scores that were made earlier."""
    found = []
    if played(scores) and scores.metric != metric.name:
        found.append(
            f"the channels were scored by {scores.metric}, widths are chosen by {metric.name}"
        )
    scored = {part.name for part in scores.groups}
    whole = [group.name for group in bench.groups if group.name not in scored]
    if whole:
        found.append(f"groups without scores stay whole: {', '.join(whole)}")
    return found


def played(scores: Scores) -> bool:
    """Whether scores come from a game; those of an estimator of somebody's own do."""
    return scores.estimator not in NAMES or estimator(scores.estimator).plays


def _checked(part: GroupScore, groups: Mapping[str, ChannelGroup]) -> FloatArray:
    if part.name not in groups:
        raise ScoresError(
            f"the scores name the group '{part.name}', the model has none of that name",
            "give the --groups that the scores were made with, or see the groups with: "
            "onnx-shapprune inspect MODEL",
        )
    _require_same_members(part, groups[part.name])
    values = np.asarray(part.values, np.float64)
    if len(values) != groups[part.name].players or not np.isfinite(values).all():
        raise ScoresError(
            f"the scores of group '{part.name}' are not {groups[part.name].players} finite numbers",
            "score this model again",
        )
    return values


def _require_same_members(part: GroupScore, group: ChannelGroup) -> None:
    """The players of other layers are other players, however many there are."""
    if set(part.members) != set(group.members):
        raise ScoresError(
            f"the scores of group '{part.name}' are of {', '.join(part.members)}, "
            f"now it is {', '.join(group.members)}",
            "give the --groups and --exclude that the scores were made with, or score again",
        )


def _group_score(group: ChannelGroup, found: Estimate, evaluations: int) -> GroupScore:
    return GroupScore(
        name=group.name,
        players=group.players,
        members=group.members,
        values=tuple(found.value.tolist()),
        stderr=tuple(found.stderr.tolist()),
        evaluations=evaluations,
    )
