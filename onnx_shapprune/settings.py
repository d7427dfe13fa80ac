"""TOML files that users write: read, and words for what is wrong in them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path

from .errors import OptionError


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``word`` was probably meant to be, or ''."""
    return next(iter(difflib.get_close_matches(word, sorted(known), 1)), "")


def quoted(words: Iterable[str]) -> str:
    """``words`` as 'a', 'b', 'c'."""
    return ", ".join(f"'{word}'" for word in words)


def read_toml(path: Path, option: str, example: str) -> dict[str, object]:
    """The table that a TOML file holds.

    Args:
        path: The file.
        option: The option of the command line that names it, for hints.
        example: A line that such a file may have, for hints.

    Raises:
        OptionError: It can't be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise OptionError(
            f"{path} can't be read: {error.strerror}", f"check the path given for {option}"
        ) from error
    except (ValueError, RecursionError) as error:  # also text that isn't UTF-8
        raise OptionError(
            f"{path} is not TOML: {error}", f"write lines such as: {example}"
        ) from error


def unknown_key(key: str, known: Collection[str], source: str) -> OptionError:
    """The complaint about a key that ``source`` should not have."""
    guess = nearest(key, known)
    hint = f"did you mean '{guess}'?" if guess else f"the keys are {quoted(known)}"
    return OptionError(f"{source}: unknown key '{key}'", hint)
