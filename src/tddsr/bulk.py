"""Many files: which picture goes where, and going on when one of them fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from tddsr.downloads.cache import cache_folder
from tddsr.errors import ImageError, ImageWarning, TddsrError, UsageError
from tddsr.files import leftovers
from tddsr.pictures.files import WRITABLE
from tddsr.pictures.folders import search

Status = Literal["done", "skipped", "failed", "note"]

STREAM = Path("-")
"""Standard input as an input, standard output as an output."""


@dataclass(frozen=True)
class Job:
    """One picture to enlarge; a ``problem`` found while planning makes it fail without a try.

    ``partner``: a second file that is written with ``output``. ``note``: nothing is to be done, but something said.
    """

    input: Path
    output: Path | None
    problem: str | None = None
    partner: Path | None = None
    note: str | None = None

    @property
    def outputs(self) -> list[Path]:
        """All files that are written."""
        return [path for path in (self.output, self.partner) if path is not None and path != STREAM]


@dataclass(frozen=True)
class Result:
    """What became of a job; ``message`` is one line for a person. A ``note`` is about no picture that was tried.

    ``frames``: how many pictures the output holds, where that is known.
    """

    input: str
    output: str | None
    status: Status
    message: str
    seconds: float
    frames: int | None = None


def _real(path: Path) -> Path:
    """Where links lead; where they lead in circles, the path, of which others tell what is wrong."""
    return Path(os.path.realpath(path))


def _folder_jobs(
    folder: Path, output: Path, default_output: Callable[[Path], Path], exclude: Sequence[Path]
) -> Iterator[Job]:
    root = _real(folder)
    # What an earlier run wrote into a folder inside this one is not read again.
    written = {_real(path) for path in exclude if root in _real(path).parents}
    try:
        pictures, others = search(folder)
        found = [path for path in pictures if written.isdisjoint(_real(path).parents)]
        if not found:
            raise ImageError(f"{folder}: holds no pictures apart from those in {', '.join(map(str, exclude))}")
    except ImageError as error:
        yield Job(folder, None, str(error))
        return
    for path in found:
        yield Job(path, output / path.relative_to(folder).with_suffix(default_output(path).suffix))
    if others:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        yield Job(folder, None, note=f"{folder}: passed over {counted}")


def _without_results(jobs: Sequence[Job], made_from: Callable[[Path], Path | None]) -> Iterator[Job]:
    """The jobs but for those of pictures that are results themselves, and a note of these."""
    results = {job.input: source for job in jobs if job.output is not None and (source := made_from(job.input))}
    yield from (job for job in jobs if job.input not in results)
    for result, source in list(results.items())[:1]:
        more = f" and {len(results) - 1} more" if len(results) > 1 else ""
        yield Job(
            result, None, note=f"{result}{more}: left alone, made from {source.name} (name it alone to enlarge it)"
        )


def _spot(job: Job) -> str:
    """Where its output lies for a file system that ignores case and how accents are made; its source's own does not."""
    if job.output is None or job.output.parent == job.input.parent:
        return str(job.output)
    return unicodedata.normalize("NFC", str(job.output)).casefold()


def _told_apart(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs; where several would write one file, those of another suffix keep it: ``a.bmp`` becomes ``a.bmp.png``.

    Names that differ in case only are numbered: ``a.png`` beside ``A.png`` becomes ``a.2.png``. So names hang on which
    pictures there are, and not on their order.
    """
    wanted = Counter(spot for spot, _ in {(_spot(job), job.input) for job in jobs})
    apart = []
    for job in jobs:
        if job.output is not None and wanted[_spot(job)] > 1 and job.input.suffix != job.output.suffix:
            name = job.input.name + job.output.name[len(job.input.stem) :]
            apart.append(replace(job, output=job.output.with_name(name)))
        else:
            apart.append(job)
    alike: dict[str, set[Path]] = {}
    for job in apart:
        if job.output is not None:
            alike.setdefault(_spot(job), set()).add(job.output)
    for job in apart:
        before = 0 if job.output is None else sorted(alike[_spot(job)]).index(job.output)
        if job.output is not None and before:
            name = f"{job.output.stem}.{before + 1}{job.output.suffix}"
            yield replace(job, output=job.output.with_name(name))
        else:
            yield job


def _checked(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs, those with a problem marked: nothing overwrites its own source or another's result."""
    first: dict[Path, Path] = {}
    for job in jobs:
        problem = None
        for output in job.outputs:
            source, target = _real(job.input), _real(output)
            if target == source:
                problem = f"{job.input}: would be overwritten by its own result; choose another output"
            elif _real(other := first.setdefault(target, job.input)) != source:
                problem = f"{job.input}: would be written to {output}, like {other}; name their folders, or another -o"
        yield Job(job.input, None, problem) if problem else job


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, or a folder that may not be entered: told when the job is done
        return False


def _names_folder(output: str | Path) -> bool:
    return str(output).endswith(("/", os.sep)) or _is_folder(Path(output))


def plan(
    inputs: Sequence[Path],
    output: str | Path | None,
    default_output: Callable[[Path], Path],
    *,
    folder_tag: str = "",
    exclude: Sequence[Path] = (),
    partner: Callable[[Path], Path] | None = None,
    made_from: Callable[[Path], Path | None] = lambda _: None,
) -> list[Job]:
    """Pair every picture with its output.

    Args:
        inputs: files and folders; a folder is searched to its depths and its tree mirrored. ``STREAM`` stands alone,
            and its result goes to ``STREAM`` by default.
        output: a file (for one picture), or a folder, which it is for sure with a slash at its end; ``-`` for
            ``STREAM``; None writes beside the input.
        default_output: where the result of a file is written by default; its suffix is used in any case.
        folder_tag: added to a folder's name to make its default output.
        exclude: folders that are not searched, beside ``output``, where they lie inside a searched one.
        partner: output -> the file that is written with it.
        made_from: the picture beside one that it is a result of; results are left alone unless nothing else is named.

    Raises:
        UsageError: ``output`` is a picture's name or ``-``, and there may be several; or ``STREAM`` is not alone.
    """
    if STREAM in inputs or output == "-":
        return [_stream_job(inputs, output)]
    one_file = len(inputs) == 1 and not _is_folder(inputs[0])
    into_folder = output is not None and _names_folder(output)
    output = None if output is None else Path(output)
    if output is not None and not one_file and output.suffix.lower() in WRITABLE and not into_folder:
        raise UsageError(f"{output} is one picture; the output of several, or of a folder, is a folder")
    jobs: list[Job] = []
    for path in inputs:
        if _is_folder(path):
            named = _real(path) if path.name in ("", "..") else path
            folder = output or named.with_name(named.name + folder_tag)
            jobs += _folder_jobs(path, folder, default_output, [folder, *exclude])
        elif output is None:
            jobs.append(Job(path, default_output(path)))
        elif one_file and output.suffix and not into_folder:
            jobs.append(Job(path, output))
        else:
            jobs.append(Job(path, output / path.with_suffix(default_output(path).suffix).name))
    if not one_file:
        jobs = list(_without_results(jobs, made_from))
    jobs = list(_told_apart(jobs))
    if partner is not None:
        jobs = [job if job.output is None else replace(job, partner=partner(job.output)) for job in jobs]
    return list(_checked(jobs))


def _stream_job(inputs: Sequence[Path], output: str | Path | None) -> Job:
    if len(inputs) > 1 or (inputs[0] != STREAM and _is_folder(inputs[0])):
        raise UsageError("- is one picture: standard input goes alone, and standard output takes no folder")
    if output is not None and output != "-" and _names_folder(output):
        raise UsageError(f"{output} is a folder, and standard input has no name: name the output's file")
    return Job(inputs[0], STREAM if output is None else Path(output))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether no other process of this user is at ``path``; it is this one's then, until the block or the process ends.

    The lock lies in the cache, so that nothing is left beside people's pictures. Where there can be none, all are free.
    """
    with contextlib.ExitStack() as held:
        free = True
        try:
            name = hashlib.sha256(os.fsencode(_real(path))).hexdigest()
            lock = cache_folder() / "locks" / name
            lock.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(lock).acquire(timeout=0))
            held.callback(_forget, lock)
        except Timeout:
            free = False
        except (OSError, RuntimeError):  # a cache that is read-only or on a share without locks; no home at all
            pass
        yield free


def _forget(lock: Path) -> None:
    with contextlib.suppress(OSError):  # Windows: it is open, and goes when it is released
        lock.unlink()


def _clean_up(jobs: Sequence[Job]) -> None:
    """Delete what killed processes left of the outputs, but for those that a process is at."""
    owners = {output: job.output for job in jobs if job.output is not None for output in job.outputs}
    for output, temporary in leftovers(owners):
        with claimed(owners[output]) as free, contextlib.suppress(OSError):
            if free:
                temporary.unlink()


def _reason_to_leave(job: Job, overwrite: bool, sources: Collection[Path]) -> tuple[Status, str] | None:
    """Why a picture is not to be made: for what is there already."""
    existing = [path for path in job.outputs if path.exists()]
    if not existing or not (job.input == STREAM or job.input.exists()):
        return None
    if not overwrite and len(existing) == len(job.outputs):
        return "skipped", f"{job.output}: exists, skipped (--overwrite replaces it)"
    if not overwrite:
        return "failed", f"{existing[0]}: exists without its partner (--overwrite replaces it)"
    for path in existing:
        if _real(path) in sources:
            return "failed", f"{job.input}: would overwrite {path}, another of the inputs"
    return None


def _do(
    job: Job, enlarge: Callable[[Path, Path], int | None], overwrite: bool, sources: Collection[Path]
) -> tuple[Status, str] | tuple[Status, str, int | None] | None:
    """What became of it, in a line, and how many pictures it made; None if another process is at it."""
    if job.output is None:
        return ("note", job.note) if job.note else ("failed", job.problem or f"{job.input}: has no output")
    try:
        if reason := _reason_to_leave(job, overwrite, sources):
            return reason
        claim = contextlib.nullcontext(True) if job.output == STREAM else claimed(job.output)
        with claim as free, warnings.catch_warnings(record=True) as caught:
            if not free:
                return None
            if reason := _reason_to_leave(job, overwrite, sources):  # another process may just have made it
                return reason
            warnings.simplefilter("always", ImageWarning)
            frames = enlarge(job.input, job.output)
    except ImageError as error:
        return "failed", str(error)
    except TddsrError as error:  # an option that this picture does not go with
        return "failed", f"{job.input}: {error}"
    except MemoryError:
        return "failed", f"{job.input}: the enlarged picture does not fit into this machine's memory"
    except OSError as error:
        return "failed", f"{job.input}: {error.strerror or error}"
    except Exception as error:  # whatever is wrong with one picture, the others go on
        return "failed", f"{job.input}: {type(error).__name__}: {' '.join(str(error).split())}"
    for other in (warning for warning in caught if not issubclass(warning.category, ImageWarning)):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    notes = [f"{frames} pictures"] if frames and frames > 1 else []
    notes += [str(warning.message) for warning in caught if issubclass(warning.category, ImageWarning)]
    told = "; ".join(dict.fromkeys(notes))  # of several pictures, once
    return "done", f"{job.input} -> {job.output}" + (f" ({told})" if told else ""), frames


def run(jobs: Sequence[Job], enlarge: Callable[[Path, Path], int | None], overwrite: bool = False) -> Iterator[Result]:
    """Do the jobs, one result each; a failure is a result, and the others go on.

    ``enlarge`` makes the second file of the first one, and may tell how many pictures it holds. Processes over the same
    pictures share them: what another one is at is passed over, and looked at again at the end.
    """
    sources = {_real(job.input) for job in jobs if job.note is None}
    _clean_up(jobs)

    def attempt(job: Job, overwrite: bool) -> Result | None:
        start = time.perf_counter()
        if (told := _do(job, enlarge, overwrite, sources)) is None:
            return None
        output = None if job.output is None else str(job.output)
        status, message, *frames = told
        seconds = round(time.perf_counter() - start, 3)
        return Result(str(job.input), output, status, message, seconds, *frames)

    busy = []
    for job in jobs:
        if result := attempt(job, overwrite):
            yield result
        else:
            busy.append(job)
    for job in busy:
        told = f"{job.output}: left to another process, which is at it"
        yield attempt(job, overwrite=False) or Result(str(job.input), str(job.output), "skipped", told, 0)
