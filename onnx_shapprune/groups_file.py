"""The file of --groups: which channels leave together, which stay, and what groups are called."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from .errors import OptionError
from .settings import read_toml, unknown_key
from .types import GroupWish, Wishes

_KEYS = ("forbid", "group")
_GROUP_KEYS = ("members", "name")
_EXAMPLE = 'forbid = ["conv1"]'


def load_wishes(
    path: str | Path | None = None, exclude: tuple[str, ...] = (), *, approximate: bool = False
) -> Wishes:
    """What a user asks of the groups.

    Args:
        path: A TOML file that joins, names or forbids groups; docs/groups.md describes it.
        exclude: Shell patterns of nodes or tensors to leave alone.
        approximate: Let means and normalisations over channels run over those that are left.

    Raises:
        OptionError: No such file, not TOML, an unknown key, or a wrong value.
    """
    if path is None:
        return Wishes(exclude, approximate=approximate)
    asked = _wishes(read_toml(Path(path), "--groups", _EXAMPLE), str(path), exclude)
    return replace(asked, approximate=approximate)


def _wishes(table: dict[str, object], source: str, exclude: tuple[str, ...]) -> Wishes:
    _require_known(table, _KEYS, source)
    if not table:
        raise OptionError(f"{source} asks for nothing", f"write [[group]], or {_EXAMPLE}")
    listed = table.get("group", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise OptionError(
            f"{source}: 'group' is no list of tables",
            "write [[group]], with two brackets, for each",
        )
    forbid = _patterns("forbid", table.get("forbid", []), source)
    wishes = [_group(entry, f"{source}: [[group]] {n}") for n, entry in enumerate(listed, 1)]
    _require_own_names([wish.name for wish in wishes], source)
    return Wishes(exclude, forbid, tuple(wishes), source)


def _group(table: dict[str, object], where: str) -> GroupWish:
    _require_known(table, _GROUP_KEYS, where)
    members = _patterns("members", table.get("members", []), where)
    if not members:
        raise OptionError(f"{where} has no members", 'write members = ["conv1"]')
    name = table.get("name", "")
    if not isinstance(name, str) or not name.isprintable() or (not name and "name" in table):
        raise OptionError(f"{where}: 'name' is {name!r}", "give a word, or leave it out")
    return GroupWish(members, name)


def _patterns(key: str, raw: object, where: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(entry, str) and entry for entry in raw):
        raise OptionError(
            f"{where}: '{key}' is {raw!r}",
            f'give a list of nodes or tensors, such as {key} = ["conv1", "layer2.*"]',
        )
    return tuple(raw)


def _require_known(table: dict[str, object], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise unknown_key(key, known, where)


def _require_own_names(names: list[str], source: str) -> None:
    for name in filter(None, names):
        if names.count(name) > 1:
            raise OptionError(
                f"{source}: two groups have the name '{name}'",
                "give each its own name, or write one group with the members of both",
            )
