"""Files from the network: resumed where they broke off, verified, and in place only when whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from tddsr.errors import ModelError
from tddsr.files import file_hash

CACHE = "TDDSR_CACHE"
"""Environment variable: the folder that downloads go to, else ``~/.cache/tddsr``."""

WAITS: tuple[float, ...] = (1, 2, 4, 8)
"""Seconds before each further try of a connection that was cut."""

_TIMEOUT = 30.0
_CHUNK = 1 << 18

Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""


def cache_folder() -> Path:
    """Where downloads and what is made of them are kept."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tddsr")


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    before: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Have ``url`` as the file ``target``, from an earlier call where it is there, and verified either way.

    What a broken download left is continued by the next call. Processes that want the same file wait for each other.

    Args:
        url: http or https.
        target: its folder is made. Beside it may lie what is left of a broken download (``.part``), the server's
            mark of its version (``.version``), a lock, and ``.sha256``.
        size: in bytes, where known.
        sha256: where known; else that of the first download is kept beside the file, and holds from then on.
        before: called before anything is downloaded.
        progress: called as bytes arrive.

    Raises:
        ModelError: the file cannot be had or kept, or is not the one it should be; such a file is deleted.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(target, "lock")):
            record = _beside(target, "sha256")
            expected = sha256 or (record.read_text().strip() if record.is_file() else None)
            remedy = "try again, or look whether its origin has changed"
            if sha256 is None and expected is not None:
                remedy = f"try again, or delete {record}, the record of the first download, to trust what comes now"
            if target.is_file():
                found = _verify(target, str(target), size, expected, remedy)
            else:
                before()
                part = _beside(target, "part")
                _fill(url, target, size, progress)
                found = _verify(part, url, size, expected, remedy)
                part.replace(target)
                _beside(target, "version").unlink(missing_ok=True)
            if sha256 is None and expected is None:
                record.write_text(found + "\n")
    except OSError as error:
        raise ModelError(
            f"{target}: cannot be kept ({error.strerror or error}); {CACHE} chooses another folder"
        ) from error
    return target


def forget(target: Path) -> None:
    """Delete a file that was downloaded, and the record of what came the first time."""
    target.unlink(missing_ok=True)
    _beside(target, "sha256").unlink(missing_ok=True)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f"{target.name}.{what}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _verify(path: Path, name: str, size: int | None, sha256: str | None, remedy: str) -> str:
    """The file's sha256; a file that is not as it should be is deleted."""
    found = file_hash(path)
    wrong = None
    if size is not None and _size(path) != size:
        wrong = f"has {_size(path)} bytes, not {size}"
    elif sha256 is not None and found != sha256:
        wrong = f"has sha256 {found}, not {sha256}"
    if wrong:
        path.unlink()
        raise ModelError(f"{name} {wrong}: it was deleted; {remedy}")
    return found


def _fill(url: str, target: Path, size: int | None, progress: Progress) -> None:
    """Bring ``target``'s part to its full length. A connection that brought nothing is not tried again."""
    part = _beside(target, "part")
    waits = iter(WAITS)
    at_first = _size(part)
    while size is None or _size(part) != size:
        try:
            return _continue(url, target, size, progress)
        except (OSError, HTTPException) as error:
            wait = next(waits, None)
            if wait is None or _size(part) == at_first or isinstance(error, HTTPError):
                reason = f"HTTP {error.code} {error.reason}" if isinstance(error, HTTPError) else _reason(error)
                raise ModelError(
                    f"cannot download {url} ({reason}); try again later, or put the file at {target}"
                ) from error
            time.sleep(wait)


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps what the socket said
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def _continue(url: str, target: Path, size: int | None, progress: Progress) -> None:
    """One connection: the rest of the part where the server grants it, else the whole file anew.

    Raises:
        ConnectionError: the connection ended before the file did.
    """
    part, version = _beside(target, "part"), _beside(target, "version")
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
                progress(done, total or done)
    if total is not None and done < total:
        raise ConnectionError(f"cut off after {done} of {total} bytes")


def _mark(response: HTTPResponse) -> str:
    """What ``If-Range`` takes: a strong ETag, else the date of the last change, else nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
