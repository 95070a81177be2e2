"""What ``tddsr eval -o FOLDER`` leaves behind: ``result.json``, and ``pictures/METHOD/NAME.png`` where they were kept.

``pictures`` also holds ``hr`` and ``lr``, the truth and the input, a quarter of its size.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from tddsr.errors import ResultError

Better = Literal["higher", "lower"]

Score = Annotated[float, PlainSerializer(lambda v: v if math.isfinite(v) else str(v), when_used="json")]
"""JSON has no infinity; it is written as the text "inf"."""


class _Part(BaseModel):
    # Keys that a later version adds are no reason to refuse a result.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Dataset(_Part):
    """The pictures that were scored."""

    name: str
    hr: str | None = None
    lr: str | None = None
    degradation: str | None = None
    pictures: int = Field(ge=0)
    digest: str | None = None


class Protocol(_Part):
    """Everything that moves a score; ``statement`` says it in one line."""

    scale: int
    crop: Any = None
    border: Any = None
    colour: Any = None
    tile: Any = None
    dtype: Any = None
    seeds: Any = None
    statement: str
    versions: dict[str, Any] = {}


class Metric(_Part):
    """A score: which way is better, and what it lacks on that machine."""

    better: Better
    range: tuple[float | None, float | None] = (None, None)
    needs: Literal["reference", "none", "set"]
    missing: str | None = None


class Method(_Part):
    """How the pictures were made."""

    spec: str
    steps: int | None = None
    quoted: bool = False


class PictureScore(_Part):
    """Scores of one picture of one method and one noise seed (None where no noise is drawn)."""

    method: str
    picture: str
    seed: int | None = None
    values: dict[str, Score]


class SetScore(_Part):
    """Scores of all pictures of one method and one noise seed as a whole."""

    method: str
    seed: int | None = None
    values: dict[str, Score]


class Failure(_Part):
    """A picture that could not be read (``method`` is None), made or scored."""

    method: str | None = None
    picture: str
    reason: str


class Result(_Part):
    """One run of ``tddsr eval``."""

    format: Literal["tddsr-eval-1"] = "tddsr-eval-1"
    name: str
    dataset: Dataset
    protocol: Protocol
    metrics: dict[str, Metric]
    methods: dict[str, Method]
    scores: list[PictureScore] = []
    sets: list[SetScore] = []
    failures: list[Failure] = []

    def by_picture(self, method: str, metric: str) -> dict[str, dict[int | None, float]]:
        """Picture -> noise seed -> score; scores that are not defined (NaN) are left out."""
        found: dict[str, dict[int | None, float]] = {}
        for score in self.scores:
            value = score.values.get(metric, math.nan)
            if score.method == method and not math.isnan(value):
                found.setdefault(score.picture, {})[score.seed] = value
        return found

    def by_set(self, method: str, metric: str) -> list[float]:
        """The score of the whole set, for each noise seed."""
        values = [score.values.get(metric, math.nan) for score in self.sets if score.method == method]
        return [value for value in values if not math.isnan(value)]


def read_result(folder: Path) -> Result:
    """Read ``folder/result.json`` (or that file itself).

    Raises:
        ResultError: it is missing, or not what ``tddsr eval`` writes.
    """
    path = folder / "result.json" if folder.is_dir() else folder
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise ResultError(f"{path}: cannot be read ({reason}); `tddsr eval ... -o FOLDER` writes one") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"{place}: {first['msg']}" if place else first["msg"]
        raise ResultError(f"{path}: not a result of `tddsr eval -o` ({problem})") from None


def saved_pictures(folder: Path, method: str) -> dict[str, Path]:
    """Name without suffix -> file, of the pictures kept for ``method`` (or ``hr``, ``lr``); empty if none were."""
    if ".." in PurePosixPath(method).parts or PurePosixPath(method).is_absolute():
        return {}  # a name from a file is not to lead out of the folder
    root = folder / "pictures" / method
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.png"))}
