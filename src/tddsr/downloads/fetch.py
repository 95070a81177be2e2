"""The one way to a file on the network: resumed where it broke off, verified, and in place only when whole.

Libraries that do this (pooch, torch.hub, urllib3) begin a cut file anew, or do not wait for each other.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from tddsr.downloads.cache import CACHE, cache_folder
from tddsr.downloads.known import PublishedFile
from tddsr.errors import DownloadError
from tddsr.files import file_hash

MIRROR = "TDDSR_MIRROR"
"""Environment variable: a base URL or a folder that has the files by name; nothing is then asked of their origins."""

WAITS: tuple[float, ...] = (1, 2, 4, 8)
"""Seconds before each further try of a connection that was cut."""

_TIMEOUT = 30.0
_CHUNK = 1 << 18


def fetch(file: PublishedFile) -> Path:
    """``file`` in the cache: downloaded once, its licence said before on stderr; verified each time.

    What a broken download left is continued by the next call. Processes that want the same file wait for each other.
    Beside it may lie what is left of a broken download (``.part``), the server's mark of its version (``.version``), a
    lock, and ``.sha256``: where no hash is known, that of the first download, which holds from then on.

    Raises:
        DownloadError: it cannot be had or kept, or is not the published file; such a file is deleted.
    """
    target = cache_folder() / file.name
    with making(target) as missing:
        if missing:
            part = _beside(target, "part")
            _download(file, target, part)
            found = _verify(part, file, target)
            if file.sha256 is None:
                _beside(target, "sha256").write_text(found + "\n")
            part.replace(target)
            _beside(target, "version").unlink(missing_ok=True)
        else:
            _verify(target, file, target)
    return target


@contextmanager
def making(target: Path) -> Iterator[bool]:
    """Whether a file of the cache is to be made now, whole or not at all; others that want it wait meanwhile.

    Raises:
        DownloadError: it cannot be kept.
    """
    try:
        if target.is_file():  # always whole; and a cache may be read-only
            yield False
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(target, "lock")):
            yield not target.is_file()  # else somebody was faster
    except OSError as error:
        raise DownloadError(
            f"{target}: cannot be kept ({error.strerror or error}); {CACHE} chooses another folder"
        ) from error


def forget(target: Path) -> None:
    """Delete a file that was downloaded, and the record of what came the first time."""
    target.unlink(missing_ok=True)
    _beside(target, "sha256").unlink(missing_ok=True)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f"{target.name}.{what}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _source(file: PublishedFile) -> str:
    mirror = os.environ.get(MIRROR)
    if mirror and "://" not in mirror:
        mirror = Path(mirror).resolve().as_uri()
    return f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url


def _verify(path: Path, file: PublishedFile, target: Path) -> str:
    """The file's sha256; a file that is not as it should be is deleted."""
    record, remedy = _beside(target, "sha256"), "try again, or look whether its origin has changed"
    found, expected = file_hash(path), file.sha256
    if expected is None and record.is_file():
        expected = record.read_text().strip()
        remedy = f"try again, or delete {record}, the record of the first download, to trust what comes now"
    wrong = None
    if file.size not in (None, _size(path)):
        wrong = f"has {_size(path)} bytes, not {file.size}"
    elif expected not in (None, found):
        wrong = f"has sha256 {found}, not {expected}"
    if wrong:
        path.unlink()
        raise DownloadError(f"{target if path == target else _source(file)} {wrong}: it was deleted; {remedy}")
    return found


def _download(file: PublishedFile, target: Path, part: Path) -> None:
    """Bring ``part`` to its full length. A connection that brought nothing is not tried again."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    source, licence = _source(file), file.licence
    sys.stderr.write(
        f"{file.name}: not part of tddsr, downloaded from {source}\n"
        f"  licence: {licence.name}, {licence.url}\n  {licence.terms}\n"
    )
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    waits, at_first = iter(WAITS), _size(part)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(file.name, total=file.size)
        while file.size is None or _size(part) != file.size:
            try:
                return _continue(
                    source, part, _beside(target, "version"), file.size,
                    lambda done, total: bars.update(bar, completed=done, total=total),
                )  # fmt: skip
            except (OSError, HTTPException) as error:
                wait = next(waits, None)
                if wait is None or _size(part) == at_first or isinstance(error, HTTPError):
                    raise DownloadError(
                        f"{file.name} is not here and cannot be downloaded from {source} ({_reason(error)}): try again "
                        f"later, or put it by hand into {target.parent}, the folder that {CACHE} chooses; {MIRROR} "
                        "names another source"
                    ) from error
                time.sleep(wait)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = getattr(error, "reason", error)  # urllib wraps what the socket said
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def _continue(
    url: str, part: Path, version: Path, size: int | None, progress: Callable[[int, int | None], None]
) -> None:
    """One connection: the rest of the part where the server grants it, else the whole file anew.

    ``progress`` is called with (bytes here, bytes in all).

    Raises:
        ConnectionError: the connection ended before the file did.
    """
    mark = version.read_text() if version.is_file() else ""
    headers = {"User-Agent": "tddsr", "Accept-Encoding": "identity"}
    if mark and _size(part):  # without a mark, nothing says that the file on the server is still the same
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": mark}
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # the part is no beginning of what the server has
            part.unlink()
            raise ConnectionError("the file on the server is shorter than what is here") from error
        raise
    with response:
        done = _size(part) if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = size if length is None else done + int(length)
        with part.open("ab" if done else "wb") as file:
            version.write_text(_mark(response))  # only now that no bytes of another version are left
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"cut off after {done} of {total} bytes")


def _mark(response: Any) -> str:
    """What ``If-Range`` takes: a strong ETag, else the date of the last change, else nothing."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
