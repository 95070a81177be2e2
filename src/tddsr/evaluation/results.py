"""What an evaluation finds, in memory and as ``tddsr eval -o FOLDER`` leaves it behind.

The folder holds ``result.json``, ``scores.csv`` and, where they were kept, ``pictures/METHOD/NAME.png``; beside them
``pictures/hr`` and ``pictures/lr``, the truth and the input, a quarter of its size.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainSerializer, ValidationError

from tddsr.errors import ResultError
from tddsr.files import whole_or_nothing

FORMAT: Literal["tddsr-eval-1"] = "tddsr-eval-1"
RESULT, TABLE, PICTURES = "result.json", "scores.csv", "pictures"

Better = Literal["higher", "lower"]

Value = Annotated[float, PlainSerializer(lambda v: v if math.isfinite(v) else str(v), when_used="json")]
"""JSON has no infinity; it is written as the text "inf"."""


class Part(BaseModel, extra="ignore", frozen=True):
    """Of a result or a journal. Keys that another version adds are no reason to refuse it."""


class Dataset(Part):
    """The pictures that were scored."""

    name: str
    hr: str | None = None
    lr: str | None = None
    degradation: str | None = None
    pictures: int = Field(ge=0)
    digest: str | None = None


class Protocol(Part):
    """What a table must state; equal protocols give equal scores. ``statement`` says it in one line."""

    scale: int = 4
    crop: int | None = None
    border: int = 0
    colour: str = "y"
    tile: int | str | None = "auto"
    dtype: str = "float32"
    seeds: int = 3
    device: str = "cpu"
    versions: dict[str, str] = {}
    statement: str = ""


class MetricInfo(Part):
    """A metric: which way is better, and what it lacks on that machine."""

    better: Better
    range: tuple[float | None, float | None] = (None, None)
    needs: Literal["reference", "none", "set"]
    missing: str | None = None


class MethodInfo(Part):
    """How the pictures were made; ``digest`` is of the weights or of finished pictures."""

    spec: str
    steps: int | None = None
    digest: str | None = None


class Score(Part):
    """Scores of one method and noise seed on one picture, or on all as a whole ('')."""

    method: str
    picture: str = ""
    seed: int
    values: dict[str, Value]


class Failure(Part):
    """What could not be scored: a picture with one method, or with any where that is None; '' stands for all."""

    method: str | None = None
    picture: str = ""
    reason: str


class Result(Part):
    """An evaluation, in the order of methods, pictures and seeds, whichever was computed first."""

    format: Literal["tddsr-eval-1"] = FORMAT
    name: str
    dataset: Dataset
    protocol: Protocol
    metrics: dict[str, MetricInfo]
    methods: dict[str, MethodInfo]
    scores: list[Score] = []
    sets: list[Score] = []
    failures: list[Failure] = []

    def by_picture(self, method: str, metric: str) -> dict[str, dict[int, float]]:
        """Picture -> noise seed -> score; scores that are not defined (NaN) are left out."""
        found: dict[str, dict[int, float]] = {}
        for score in self.scores:
            value = score.values.get(metric, math.nan)
            if score.method == method and not math.isnan(value):
                found.setdefault(score.picture, {})[score.seed] = value
        return found

    def by_set(self, method: str, metric: str) -> list[float]:
        """The score of the whole set, for each noise seed."""
        values = [score.values.get(metric, math.nan) for score in self.sets if score.method == method]
        return [value for value in values if not math.isnan(value)]

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the pictures that have the score of the mean over the seeds: method -> score -> value."""
        found: dict[str, dict[str, float]] = {score.method: {} for score in self.scores}
        for method, means in found.items():
            for metric in self.metrics:
                pictures = self.by_picture(method, metric).values()
                if values := self.by_set(method, metric) or [fmean(seeds.values()) for seeds in pictures]:
                    means[metric] = fmean(values)
        return found


def read_result(folder: Path) -> Result:
    """Read ``folder/result.json`` (or that file itself).

    Raises:
        ResultError: it is missing, or not what ``tddsr eval`` writes.
    """
    path = folder / RESULT if folder.is_dir() else folder
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise ResultError(f"{path}: cannot be read ({reason}); `tddsr eval ... -o FOLDER` writes one") from None
    except ValidationError as error:
        raise ResultError(f"{path}: not a result of `tddsr eval -o` ({first_problem(error)})") from None


def write_result(folder: Path, result: Result) -> None:
    """Write result.json and scores.csv into ``folder``, whole or not at all."""
    text = io.StringIO()
    columns = [name for name, metric in result.metrics.items() if metric.needs != "set"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "picture", "seed", *columns])
    for row in result.scores:
        writer.writerow([row.method, row.picture, row.seed, *(row.values.get(name, "") for name in columns)])
    for name, content in ((RESULT, result.model_dump_json(indent=1) + "\n"), (TABLE, text.getvalue())):
        with whole_or_nothing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="")


def first_problem(error: ValidationError) -> str:
    """In one line."""
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def saved_pictures(folder: Path, method: str) -> dict[str, Path]:
    """Name without suffix -> file, of the pictures kept for ``method`` (or ``hr``, ``lr``); empty if none were."""
    if method == ".." or PureWindowsPath(method).name != method:  # which knows all separators, and drives
        return {}  # a name from a file is not to lead out of the folder
    root = folder / PICTURES / method
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.png"))}


# Results of one run on several data sets, by title; the metrics are the same for all.


def problems(results: Mapping[str, Result]) -> Iterator[str]:
    """A line for whatever was not scored; with the title, where there are several."""
    for name, metric in next(iter(results.values())).metrics.items():
        if metric.missing is not None:
            yield f"{name} is not available: {metric.missing}"
    for title, result in results.items():
        for failure in result.failures:
            where = title if len(results) > 1 else None
            yield ": ".join(filter(None, [where, failure.method, failure.picture, failure.reason]))


def markdown(results: Mapping[str, Result]) -> str:
    """The means as one table; '-' where a score is not defined."""
    metrics = next(iter(results.values())).metrics
    rows = [["degradation", "method", *metrics], ["---"] * (2 + len(metrics))]
    for title, result in results.items():
        for method, means in result.means().items():
            cells = {name: f"{value:.4f}" for name, value in means.items()}
            absent = {name: "-" if metric.missing is None else "not available" for name, metric in metrics.items()}
            rows.append([title, method, *(absent | cells).values()])
    return "\n".join(f"| {' | '.join(row if len(results) > 1 else row[1:])} |" for row in rows)
