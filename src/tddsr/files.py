"""Files as a whole: written so that a reader never sees half of one, and told apart by their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it takes ``path``'s place in one move."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """sha256 of the content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def files_hash(files: Mapping[str, Path]) -> str:
    """Of names and what their files hold, in hexadecimal; the order does not count, nor what cannot be read."""

    def content(file: Path) -> str:
        try:
            return file_hash(file)
        except OSError:
            return ""

    lines = sorted(f"{name} {content(file)}" for name, file in files.items())
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def content_hash(path: Path) -> str:
    """Of a file, or of all files below a folder; empty where there is nothing."""
    if path.is_dir():
        return files_hash({file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()})
    return file_hash(path) if path.is_file() else ""
