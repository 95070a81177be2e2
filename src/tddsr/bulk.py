"""Many files: which picture goes where, and going on when one of them fails."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tddsr.errors import ImageError, ImageWarning, UsageError
from tddsr.pictures.files import WRITABLE
from tddsr.pictures.folders import search

Status = Literal["done", "skipped", "failed"]


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
        return [path for path in (self.output, self.partner) if path is not None]


@dataclass(frozen=True)
class Result:
    """What became of a job; ``message`` is one line for a person."""

    input: str
    output: str | None
    status: Status
    message: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _folder_jobs(
    folder: Path, output: Path, default_output: Callable[[Path], Path], exclude: Sequence[Path]
) -> Iterator[Job]:
    root = folder.resolve()
    # What an earlier run wrote into a folder inside this one is not read again.
    written = {path.resolve() for path in exclude if root in path.resolve().parents}
    try:
        pictures, others = search(folder)
        found = [path for path in pictures if written.isdisjoint(path.resolve().parents)]
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


def _checked(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs, those with a problem marked: nothing overwrites its own source or another's result."""
    first: dict[Path, Path] = {}
    for job in jobs:
        problem = None
        for output in job.outputs:
            if output.resolve() == job.input.resolve():
                problem = f"{job.input}: would be overwritten by its own result; choose another output"
            elif (other := first.setdefault(output.resolve(), job.input)) != job.input:
                problem = f"{job.input}: would be written to {output}, like {other}"
        yield Job(job.input, None, problem) if problem else job


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, or a folder that may not be entered: told when the job is done
        return False


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
        inputs: files and folders; a folder is searched to its depths and its tree mirrored.
        output: a file (for one picture), or a folder, which it is for sure with a slash at its end; None writes
            beside the input.
        default_output: where the result of a file is written by default; its suffix is used in any case.
        folder_tag: added to a folder's name to make its default output.
        exclude: folders that are not searched, beside ``output``, where they lie inside a searched one.
        partner: output -> the file that is written with it.
        made_from: the picture beside one that it is a result of; results are left alone unless nothing else is named.

    Raises:
        UsageError: ``output`` is a picture's name, and there may be several.
    """
    one_file = len(inputs) == 1 and not _is_folder(inputs[0])
    into_folder = str(output).endswith(("/", os.sep))
    output = None if output is None else Path(output)
    into_folder |= output is not None and output.is_dir()
    if output is not None and not one_file and output.suffix.lower() in WRITABLE and not into_folder:
        raise UsageError(f"{output} is one picture; the output of several, or of a folder, is a folder")
    jobs: list[Job] = []
    for path in inputs:
        if _is_folder(path):
            named = path.resolve() if path.name in ("", "..") else path
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
    if partner is not None:
        jobs = [job if job.output is None else replace(job, partner=partner(job.output)) for job in jobs]
    return list(_checked(jobs))


def _do(
    job: Job, enlarge: Callable[[Path, Path], Any], overwrite: bool, sources: Collection[Path]
) -> tuple[Status, str]:
    if job.output is None:
        return ("skipped", job.note) if job.note else ("failed", job.problem or f"{job.input}: has no output")
    try:
        existing = [path for path in job.outputs if path.exists()]
        if existing and job.input.exists():
            if not overwrite and len(existing) == len(job.outputs):
                return "skipped", f"{job.output}: exists, skipped (--overwrite replaces it)"
            if not overwrite:
                return "failed", f"{existing[0]}: exists without its partner (--overwrite replaces it)"
            for path in existing:
                if path.resolve() in sources:
                    return "failed", f"{job.input}: would overwrite {path}, another of the inputs"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ImageWarning)
            enlarge(job.input, job.output)
    except ImageError as error:
        return "failed", str(error)
    except MemoryError:
        return "failed", f"{job.input}: the enlarged picture does not fit into this machine's memory"
    except OSError as error:
        return "failed", f"{job.input}: {error.strerror or error}"
    except Exception as error:  # whatever is wrong with one picture, the others go on
        return "failed", f"{job.input}: {type(error).__name__}: {' '.join(str(error).split())}"
    for other in (warning for warning in caught if not issubclass(warning.category, ImageWarning)):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    notes = [str(warning.message) for warning in caught if issubclass(warning.category, ImageWarning)]
    return "done", f"{job.input} -> {job.output}" + (f" ({'; '.join(notes)})" if notes else "")


def run(jobs: Sequence[Job], enlarge: Callable[[Path, Path], Any], overwrite: bool = False) -> Iterator[Result]:
    """Do the jobs in order, one result each; a failure is a result, and the others go on."""
    sources = {job.input.resolve() for job in jobs if job.note is None}
    for job in jobs:
        start = time.perf_counter()
        status, message = _do(job, enlarge, overwrite, sources)
        output = None if job.output is None else str(job.output)
        yield Result(str(job.input), output, status, message, round(time.perf_counter() - start, 3))
