"""JSON files in and out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ScoresError
from .files import atomic_file
from .report import SCHEMA_VERSION
from .types import GroupScore, Scores


def dump(data: Mapping[str, Any]) -> str:
    """Indented JSON, without the infinities and NaNs that JSON does not have."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


@contextmanager
def pending_json(path: Path, data: Mapping[str, Any]) -> Iterator[None]:
    """Write a JSON file that takes its place only if the block succeeds.

    Raises:
        OutputError: It can't be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(dump(data), encoding="utf-8")
        yield


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        OutputError: It can't be written.
    """
    with pending_json(path, data):
        pass


def read_scores(path: Path) -> Scores:
    """Read scores that ``score -o`` wrote.

    Raises:
        ScoresError: The file is missing, no such file, or of another version.
    """
    hint = "make them with: onnx-shapprune score MODEL --data D -o SCORES.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScoresError(f"can't read '{path}': {error.strerror}", hint) from error
    except ValueError as error:
        raise ScoresError(f"'{path}' is no JSON file: {error}", hint) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ScoresError(
            f"'{path}' has schema version {version}, this program reads {SCHEMA_VERSION}", hint
        )
    try:
        return _scores(data)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ScoresError(f"'{path}' is no scores file: {error!r}", hint) from error


def _scores(data: Mapping[str, Any]) -> Scores:
    return Scores(
        model_sha256=str(data["model_sha256"]),
        estimator=str(data["estimator"]),
        metric=str(data["metric"]),
        absent=str(data["absent"]),
        seed=int(data["seed"]),
        samples=int(data["samples"]),
        groups=tuple(_group_score(group) for group in data["groups"]),
    )


def _group_score(data: Mapping[str, Any]) -> GroupScore:
    players = int(data["players"])
    return GroupScore(
        name=str(data["name"]),
        players=players,
        members=tuple(str(member) for member in data["members"]),
        values=_numbers(data["values"], players),
        stderr=_numbers(data["stderr"], players),
        evaluations=int(data["evaluations"]),
    )


def _numbers(data: Any, players: int) -> tuple[float, ...]:
    if not isinstance(data, list) or len(data) != players:
        raise ValueError(f"not a list of {players} numbers")
    return tuple(float(value) for value in data)
