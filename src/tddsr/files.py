"""Files as a whole: written so that a reader never sees half of one, and told apart by their content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_LEFT = re.compile(r"\..*\.([0-9a-f]{12})\.\w{8}(\.[^.]*)?", re.DOTALL)
"""Names of temporary files."""

_CANNOT = {errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""What a share says of things that it does not know; a full disk says something else."""


@contextlib.contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it takes ``path``'s place in one move."""
    temporary = path.with_name(f".{path.stem[:40]}.{_mark(path)}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        try:
            _sync(temporary)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        temporary.replace(path)
    except OSError as error:
        # Who reads it knows nothing of the temporary file.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that is closed, or none: nothing was made there
            temporary.unlink()


def _mark(path: Path) -> str:
    """Tells the temporary files of ``path``, and of this machine, from others; of a name of any length."""
    return hashlib.sha256(os.fsencode(f"{platform.node()}/{path.name}")).hexdigest()[:12]


def leftovers(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Each of ``paths`` with a temporary file that ``whole_or_nothing`` has beside it, or left when it was killed.

    Those of other machines, which may be at work on the same share, are not looked at.
    """
    marks: dict[Path, dict[str, Path]] = {}
    for path in paths:
        marks.setdefault(path.parent, {})[_mark(path)] = path
    for folder, known in marks.items():
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".")]
        except OSError:  # there is no such folder yet, or it is closed: told when it is written to
            continue
        for name in names:
            if (found := _LEFT.fullmatch(name)) and found[1] in known:
                yield known[found[1]], folder / name


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def clean_up_when_ended() -> None:
    """Let SIGTERM and SIGHUP end the process by an exception, so that no temporary file stays."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not break off the cleaning up
    sys.exit(128 + number)


def file_hash(path: Path) -> str:
    """sha256 of the content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_hash(files: Mapping[str, Path]) -> str:
    """Of names and what their files hold, in hexadecimal; the order does not count, nor what cannot be read."""

    def content(file: Path) -> str:
        try:
            return file_hash(file)
        except OSError:
            return ""

    lines = sorted(f"{name} {content(file)}" for name, file in files.items())
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
