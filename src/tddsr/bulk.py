"""Many files: which picture goes where, and going on when one of them fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tddsr import images

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Job:
    """One picture to enlarge; a ``problem`` found while planning makes it fail without a try."""

    input: Path
    output: Path | None
    problem: str | None = None


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


def _folder_jobs(folder: Path, output: Path, default_output: Callable[[Path], Path]) -> Iterator[Job]:
    inside = output.resolve()
    try:
        found = images.find(folder)
    except images.ImageError as error:
        yield Job(folder, None, str(error))
        return
    for path in found:
        if inside not in path.resolve().parents:
            yield Job(path, output / path.relative_to(folder).with_suffix(default_output(path).suffix))


def plan(
    inputs: Sequence[Path], output: Path | None, default_output: Callable[[Path], Path], folder_tag: str = ""
) -> list[Job]:
    """Pair every picture with its output.

    Args:
        inputs: files and folders; a folder is searched to its depths and its tree mirrored.
        output: a file (for one picture), or a folder; None writes beside the input.
        default_output: where the result of a file is written by default; its suffix is used in any case.
        folder_tag: added to a folder's name to make its default output.
    """
    one_file = len(inputs) == 1 and not inputs[0].is_dir()
    jobs: list[Job] = []
    for path in inputs:
        if path.is_dir():
            named = path.resolve() if path.name in ("", "..") else path
            folder = output or named.with_name(named.name + folder_tag)
            jobs += _folder_jobs(path, folder, default_output)
        elif output is None:
            jobs.append(Job(path, default_output(path)))
        elif one_file and output.suffix and not output.is_dir():
            jobs.append(Job(path, output))
        else:
            jobs.append(Job(path, output / path.with_suffix(default_output(path).suffix).name))
    seen: dict[Path, Path] = {}
    for index, job in enumerate(jobs):
        if job.output is None:
            continue
        first = seen.setdefault(job.output.resolve(), job.input)
        if first != job.input:
            jobs[index] = Job(job.input, None, f"{job.input}: would be written to {job.output}, like {first}")
    return jobs


def run(jobs: Sequence[Job], enlarge: Callable[[Path, Path], Any], overwrite: bool = False) -> Iterator[Result]:
    """Do the jobs in order, one result each; a failure is a result, and the others go on."""
    for job in jobs:
        start = time.perf_counter()
        status: Status = "failed"
        if job.problem is not None or job.output is None:
            message = job.problem or ""
        elif job.output.exists() and not overwrite and job.input.exists():
            status, message = "skipped", f"{job.output}: exists, skipped (--overwrite replaces it)"
        else:
            try:
                enlarge(job.input, job.output)
                status, message = "done", f"{job.input} -> {job.output}"
            except images.ImageError as error:
                message = str(error)
            except MemoryError:
                message = f"{job.input}: the enlarged picture does not fit into memory; use a smaller --scale"
            except RuntimeError as error:
                message = f"{job.input}: {str(error).splitlines()[0]}"
        output = None if job.output is None else str(job.output)
        yield Result(str(job.input), output, status, message, round(time.perf_counter() - start, 3))
