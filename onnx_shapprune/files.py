"""Output files: claimed before the work begins, written whole or not at all."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import EncodeError

from .errors import OptionError, OutputError


def claim(outputs: Sequence[Path], inputs: Sequence[Path] = (), *, force: bool = False) -> None:
    """Fail early where writing would fail later, or would destroy what is still needed.

    Args:
        outputs: Files to be written.
        inputs: Files that are read; ``force`` does not cover them.
        force: Whether files that exist may be replaced.

    Raises:
        OptionError: Two outputs are the same file.
        OutputError: An output is one of the inputs, exists and ``force`` is off, or can't
            be written.
    """
    for one, other in itertools.combinations(outputs, 2):
        if one.resolve() == other.resolve():
            raise OptionError(f"two outputs have the same name, '{one}'", "give two names")
    for path in outputs:
        _require_no_input(path, inputs)
        _require_writable(path, force)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` if the block succeeds.

    Raises:
        OutputError: The disk is full or the file can't be written.
    """
    with output_errors(path):
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def replace(temporary: Path, path: Path) -> None:
    """Let a finished file take its place, with the permissions that a new file gets."""
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing into one kind of error.

    Raises:
        OutputError: The disk is full or the file can't be written.
    """
    try:
        yield
    except (OSError, EncodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"can't write '{path}': {reason}", "is the disk full?") from error


def _require_no_input(path: Path, inputs: Sequence[Path]) -> None:
    for read in inputs:
        if path.exists() and read.exists() and path.samefile(read):
            raise OutputError(f"'{path}' is read by this command", "choose another output name")


def _require_writable(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"'{path}' is a directory", "give a file name")
    if path.exists() and not force:
        raise OutputError(f"'{path}' exists already", "use --force to replace it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"the folder '{folder}' does not exist", "create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder '{folder}' is not writable", "choose another place")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
