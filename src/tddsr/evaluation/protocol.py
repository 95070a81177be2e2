"""Scoring methods on pictures, with true ones or without; everything that moves a score is stated."""

from __future__ import annotations

import contextlib
import math
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean

import numpy as np
import PIL
import torch
from torch import Tensor

from tddsr import __version__
from tddsr.evaluation.methods import Enlarge, Method
from tddsr.evaluation.pictures import Pair, PictureSet
from tddsr.metrics.fidelity import Colour
from tddsr.metrics.frechet import frechet_distance
from tddsr.metrics.niqe import PATCH
from tddsr.metrics.table import Scores
from tddsr.pictures.files import write_picture
from tddsr.pictures.picture import Picture
from tddsr.pictures.tensors import to_tensor

TRUTH = "hr"
"""In the place of a method: the true pictures, whose features the metrics of sets compare with."""


@dataclass(frozen=True)
class Row:
    """Scores of one method on one picture with one noise seed; one that is not defined is left out.

    ``features``: (C) of each metric of sets.
    """

    method: str
    picture: str
    seed: int
    values: dict[str, float]
    features: dict[str, Tensor] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.method, self.picture, self.seed


@dataclass(frozen=True)
class SetRow:
    """Scores of one method on all pictures together."""

    method: str
    seed: int
    values: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """What could not be scored: a picture with one method, or with any where that is None; '' stands for all."""

    method: str | None
    picture: str
    reason: str


@dataclass(frozen=True)
class Protocol:
    """What a table must state; equal protocols give equal scores."""

    crop: int | None = None
    border: int = 0
    colour: Colour = "y"
    tile: int | str | None = "auto"
    seeds: int = 3
    device: str = "cpu"
    scale: int = 4
    dtype: str = "float32"

    def to_dict(self) -> dict[str, object]:
        """Its fields, and the versions of all that computes."""
        return asdict(self) | {"versions": versions()}

    def statement(self, pictures: PictureSet, scores: Scores, rows: Sequence[Row]) -> str:
        """The protocol, in one line."""
        paired = pictures.hr is not None
        folders = " with ".join(folder.name for folder in (pictures.hr, pictures.lr) if folder)
        parts = [
            f"{len(pictures)} {'pairs' if paired else 'lr pictures'} "
            f"({f'{folders} degraded by {pictures.degradation}' if pictures.degradation else folders})",
            f"x{self.scale}",
            "whole pictures" if self.crop is None else f"central {self.crop}x{self.crop} hr pixels",
            "8-bit outputs",
        ]
        if pixels := [name for name in ("PSNR", "SSIM", "MS-SSIM") if name in scores.loaded]:
            border = f"{self.border} pixels of border" if self.border else "no border"
            colour = "Y of BT.601 studio range" if self.colour == "y" else "RGB"
            parts.append(f"{border} cropped and {colour} for {' and '.join(pixels)}")
        if any(name.startswith("LPIPS") for name in scores.loaded):
            parts.append("LPIPS v0.1 (lower is better)")
        if "NIQE" in scores.loaded:
            without = sum("NIQE" not in row.values for row in rows)
            gaps = f", not defined for {without} of {len(rows)} outputs: too small or too flat" if without else ""
            parts.append(f"NIQE of Y in {PATCH}x{PATCH} patches (lower is better{gaps})")
        if sets := scores.of("set"):
            parts.append(f"{' and '.join(sets)} over all pictures of a seed (biased upwards where they are few)")
        if self.tile is None:
            tile = "no tiles"
        else:
            tile = "tiles fitted to memory" if self.tile == "auto" else f"tiles of {self.tile} lr pixels"
        parts += [f"mean over {self.seeds} noise seed{'s' * (self.seeds > 1)}", tile, f"{self.dtype} on {self.device}"]
        return f"{', '.join(parts)}; {', '.join(f'{name} {number}' for name, number in versions().items())}"


def versions() -> dict[str, str]:
    """Of this package, and of what computes beneath it; other packages' metrics where they are in use."""
    used = {}
    for module, package in (("pyiqa", "pyiqa"), ("torch_fidelity", "torch-fidelity")):
        if module in sys.modules:
            with contextlib.suppress(PackageNotFoundError):
                used[package] = version(package)
    return {
        "tddsr": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        **used,
    }


class Memory:
    """Keeps rows as they come; ``result.Journal`` also writes them down."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, int], Row] = {}
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        with self._lock:
            self.rows[row.key] = row
            self._write(row)

    def _write(self, row: Row) -> None:
        """Nothing to do here."""


@dataclass(frozen=True)
class Table:
    """All scores, in the order of methods, pictures and seeds, whichever was computed first."""

    rows: list[Row]
    sets: list[SetRow]
    failures: list[Failure]

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the pictures that have the score of the mean over the seeds: method -> score -> value."""
        result: dict[str, dict[str, float]] = {}
        for name in dict.fromkeys(row.method for row in self.rows):
            by_metric: dict[str, dict[str, list[float]]] = {}
            for row in self.rows:
                for metric, value in row.values.items() if row.method == name else ():
                    by_metric.setdefault(metric, {}).setdefault(row.picture, []).append(value)
            for whole in self.sets:
                for metric, value in whole.values.items() if whole.method == name else ():
                    by_metric.setdefault(metric, {}).setdefault("", []).append(value)
            result[name] = {
                metric: mean(mean(values) for values in pictures.values()) for metric, pictures in by_metric.items()
            }
        return result


def evaluate(
    methods: Mapping[str, Method],
    pictures: PictureSet,
    scores: Scores,
    seeds: int = 1,
    *,
    memory: Memory | None = None,
    save: Path | None = None,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Table:
    """Score every method on every picture, with noise seeds 0 to ``seeds`` - 1 where it draws noise.

    A picture that cannot be read, or that a method fails on, is a ``Failure``; the others go on.

    Args:
        methods: by name.
        pictures: to enlarge.
        scores: those that compare are left out where there are no true pictures.
        seeds: number of noise seeds.
        memory: rows that it holds already are not computed again.
        save: a folder for METHOD/NAME.png of the first seed, and for the set's pictures as hr and lr.
        workers: pictures at a time.
        progress: called once for each method and picture.
    """
    memory = memory or Memory()
    failures = [Failure(None, name, reason) for name, reason in pictures.problems.items()]
    stopped = threading.Event()

    def one(name: str) -> list[Failure]:
        return list(_score_picture(methods, pictures, name, scores, seeds, memory, save, stopped, progress))

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(one, name) for name in pictures.files]
        try:
            for job in as_completed(jobs):
                failures += job.result()
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    return collect(memory, methods, pictures, scores, failures)


def collect(
    memory: Memory, methods: Iterable[str], pictures: PictureSet, scores: Scores, failures: Sequence[Failure] = ()
) -> Table:
    """What ``memory`` holds of these methods and pictures, in order, and the scores of the sets."""
    order = {name: index for index, name in enumerate(methods)}
    rows = sorted(
        (row for row in memory.rows.values() if row.method in order and row.picture in pictures.files),
        key=lambda row: (order[row.method], row.picture, row.seed),
    )
    truth = {row.picture: row.features for row in memory.rows.values() if row.method == TRUTH}
    sets = []
    for method, seed in dict.fromkeys((row.method, row.seed) for row in rows):
        values = {}
        for metric in scores.of("set"):
            both = [
                (row.features[metric], truth[row.picture][metric])
                for row in rows
                if (row.method, row.seed) == (method, seed) and metric in row.features and row.picture in truth
            ]
            if len(both) > 1:
                made, true = (torch.stack(side) for side in zip(*both, strict=True))
                values[metric] = frechet_distance(made, true)
        if values:
            sets.append(SetRow(method, seed, values))
    place = {name: index for index, name in enumerate(["", *order])}
    failures = sorted(failures, key=lambda f: (place.get(f.method or "", -1), f.picture))
    return Table(rows, sets, failures)


def _score_picture(
    methods: Mapping[str, Method],
    pictures: PictureSet,
    name: str,
    scores: Scores,
    seeds: int,
    memory: Memory,
    save: Path | None,
    stopped: threading.Event,
    progress: Callable[[], object],
) -> Iterable[Failure]:
    """Score all methods on one picture, apart from what ``memory`` holds and ``save`` has."""

    def target(method: str, seed: int) -> Path | None:
        return save / method / f"{name}.png" if save is not None and not seed else None

    def done(method: str, seed: int) -> bool:
        file = target(method, seed)
        return (method, name, seed) in memory.rows and (file is None or file.exists())

    wanted = {key: range(seeds if method.noisy else 1) for key, method in methods.items()}
    pair: Pair | None = None
    problem: str | None = None
    for key, method in methods.items():
        if stopped.is_set():
            return
        open_seeds = [seed for seed in wanted[key] if not done(key, seed)]
        if open_seeds and pair is None and problem is None:
            try:
                pair = _read(pictures, name, scores, memory, save)
            except Exception as error:  # whatever is wrong with one picture, the others go on
                problem = _reason(error)
                yield Failure(None, name, problem)
        if pair is not None:
            try:
                for seed in open_seeds:
                    memory.add(_score(key, method.enlarge, pair, seed, scores, target(key, seed)))
            except Exception as error:
                yield Failure(key, name, _reason(error))
        progress()


def _read(pictures: PictureSet, name: str, scores: Scores, memory: Memory, save: Path | None) -> Pair:
    """Read a picture; save it, and keep the truth's features, where that is asked for and not done."""
    pair = pictures.load(name)
    for folder, pixels in (("lr", pair.lr), ("hr", pair.hr)):
        if save is not None and pixels is not None and not (file := save / folder / f"{name}.png").exists():
            write_picture(file, Picture(pixels))
    if pair.hr is not None and scores.of("set") and (TRUTH, name, 0) not in memory.rows:
        memory.add(Row(TRUTH, name, 0, {}, _features(to_tensor(pair.hr), scores)))
    return pair


@torch.inference_mode()
def _score(method: str, enlarge: Enlarge, pair: Pair, seed: int, scores: Scores, target: Path | None) -> Row:
    pixels = enlarge(pair, seed)
    if target is not None:
        write_picture(target, Picture(pixels))
    picture = to_tensor(pixels)
    truth = None if pair.hr is None else to_tensor(pair.hr)
    asked = scores.of("none") if truth is None else scores.of("none", "reference")
    values = {name: float(score(picture, truth)) for name, score in asked.items()}
    return Row(
        method,
        pair.name,
        seed,
        {name: values[name] for name in scores.loaded if not math.isnan(values.get(name, math.nan))},
        {} if truth is None else _features(picture, scores),
    )


@torch.inference_mode()
def _features(picture: Tensor, scores: Scores) -> dict[str, Tensor]:
    return {name: score(picture, None)[0].float().cpu() for name, score in scores.of("set").items()}


def _reason(error: Exception) -> str:
    """One line; our own errors say it all, others need their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
