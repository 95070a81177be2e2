"""Scoring methods on pictures, with true ones or without; everything that moves a score is stated."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tddsr.evaluation.journal import Journal, PictureScore, open_journal
from tddsr.evaluation.methods import Enlarge, Method
from tddsr.evaluation.pictures import Pair, PictureSet
from tddsr.evaluation.protocol import statement, versions
from tddsr.evaluation.results import (
    FORMAT,
    PICTURES,
    Dataset,
    Failure,
    MetricInfo,
    Protocol,
    Result,
    Score,
    write_result,
)
from tddsr.metrics.frechet import frechet_distance
from tddsr.metrics.table import Scores
from tddsr.pictures.files import write_picture
from tddsr.pictures.picture import Picture
from tddsr.pictures.tensors import to_tensor

TRUTH = "hr"
"""In the place of a method: the true pictures, whose features the metrics of sets compare with."""


def evaluate(
    methods: Mapping[str, Method],
    pictures: PictureSet,
    scores: Scores,
    protocol: Protocol,
    output: Path | None = None,
    *,
    save: bool = False,
    unavailable: Mapping[str, str] | None = None,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Result:
    """Score every method on every picture, with noise seeds 0 to ``protocol.seeds`` - 1 where noise matters.

    A picture that cannot be read, or that a method fails on, is a ``Failure``; the others go on.

    Args:
        methods: by name.
        pictures: to enlarge.
        scores: those that compare are left out where there are no true pictures.
        protocol: what ``scores`` and ``pictures`` follow.
        output: folder for the result, also written where the run is interrupted. The scores that it holds already
            are not computed again, and those of other methods are part of the result.
        save: also the pictures of the first seed, into ``output``.
        unavailable: name of a method that lacks something -> what. A failure.
        workers: pictures at a time.
        progress: called once for each method and picture.

    Raises:
        ResultError: ``output`` holds scores by another protocol, or another process writes there.
        OSError: ``output`` cannot be written to.
    """
    protocol = protocol.model_copy(update={"versions": versions()})
    header = {
        "format": FORMAT,
        **protocol.model_dump(exclude={"statement"}),
        "pictures": f"{len(pictures)} of {pictures.title} ({pictures.digest})",
        "degradation": pictures.degradation,
        "metrics": ", ".join(scores.loaded),
    }
    name = pictures.title if output is None else output.absolute().name
    failures = [Failure(method=method, reason=reason) for method, reason in (unavailable or {}).items()]
    failures += [Failure(picture=picture, reason=reason) for picture, reason in pictures.problems.items()]
    with nullcontext(Journal()) if output is None else open_journal(output, header) as journal:
        journal.register(methods)
        folder = output / PICTURES if output is not None and save else None
        try:
            _Run(methods, pictures, scores, protocol.seeds, journal, folder, progress, failures).score(workers)
        finally:
            failures += _left_out(journal, methods, pictures, failures)
            result = _collect(name, journal, pictures, scores, protocol, failures)
            if output is not None:
                write_result(output, result)
    return result


def _left_out(
    journal: Journal, methods: Mapping[str, Method], pictures: PictureSet, failures: Sequence[Failure]
) -> list[Failure]:
    """What earlier runs into the same folder did not come to."""
    unusable = pictures.problems.keys() | {failure.picture for failure in failures if failure.method is None}
    reason = "has no score from an earlier run: name the method again to try it again"
    return [
        Failure(method=name, picture=picture, reason=reason)
        for name in journal.methods.keys() - methods.keys()
        for picture in pictures.files.keys() - unusable
        if (name, picture, 0) not in journal.scores
    ]


def _collect(
    name: str, journal: Journal, pictures: PictureSet, scores: Scores, protocol: Protocol, failures: Sequence[Failure]
) -> Result:
    """What the journal holds, in order, and the scores of the sets."""
    order = {name: index for index, name in enumerate([None, *journal.methods])}
    rows = sorted(
        (row for row in journal.scores.values() if row.method in order and row.picture in pictures.files),
        key=lambda row: (order[row.method], row.picture, row.seed),
    )
    truth = {row.picture: row.features for row in journal.scores.values() if row.method == TRUTH}
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
                made, true = (
                    torch.frombuffer(bytearray(b"".join(side)), dtype=torch.float32).view(len(side), -1)
                    for side in zip(*both, strict=True)
                )
                values[metric] = frechet_distance(made, true)
        if values:
            sets.append(Score(method=method, seed=seed, values=values))
    said = statement(protocol, pictures, scores, [row.values for row in rows])
    return Result(
        name=name,
        dataset=Dataset(
            name=pictures.title,
            hr=pictures.hr and pictures.hr.name,
            lr=pictures.lr and pictures.lr.name,
            degradation=pictures.degradation,
            pictures=len(pictures),
            digest=pictures.digest,
        ),
        protocol=protocol.model_copy(update={"statement": said}),
        metrics={
            m.name: MetricInfo(better=m.better, range=m.range, needs=m.needs, missing=scores.missing.get(m.name))
            for m in scores.metrics
        },
        methods={**journal.methods},
        scores=[*rows],
        sets=sets,
        failures=sorted(failures, key=lambda f: (order.get(f.method, -1), f.picture)),
    )


@dataclass(frozen=True)
class _Run:
    methods: Mapping[str, Method]
    pictures: PictureSet
    scores: Scores
    seeds: int
    journal: Journal
    save: Path | None
    """a folder for METHOD/NAME.png, and for the set's pictures as hr and lr"""
    progress: Callable[[], object]
    failures: list[Failure]
    stopped: threading.Event = field(default_factory=threading.Event)

    def score(self, workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(self._score_picture, self.pictures.files))
            finally:
                self.stopped.set()

    def _score_picture(self, name: str) -> None:
        """By all methods, apart from what the journal and ``save`` have."""
        seeds = {
            key: [seed for seed in range(self.seeds if method.noisy else 1) if not self._done(key, name, seed)]
            for key, method in self.methods.items()
        }
        try:
            pair = self._read(name) if any(seeds.values()) else None
        except Exception as error:  # whatever is wrong with one picture, the others go on
            pair = None
            self.failures.append(Failure(picture=name, reason=_reason(error)))
        for key, method in self.methods.items():
            if self.stopped.is_set():
                return
            try:
                for seed in seeds[key]:
                    if pair is not None:
                        file = self._file(key, name, seed)
                        self.journal.add(_score(key, method.enlarge, pair, seed, self.scores, file))
            except Exception as error:
                self.failures.append(Failure(method=key, picture=name, reason=_reason(error)))
            self.progress()

    def _file(self, method: str, name: str, seed: int) -> Path | None:
        return self.save / method / f"{name}.png" if self.save is not None and not seed else None

    def _done(self, method: str, name: str, seed: int) -> bool:
        file = self._file(method, name, seed)
        return (method, name, seed) in self.journal.scores and (file is None or file.exists())

    def _read(self, name: str) -> Pair:
        """Read a picture; save it, and keep the truth's features, where that is asked for and not done."""
        pair = self.pictures.load(name)
        for folder, pixels in (("lr", pair.lr), ("hr", pair.hr)):
            file = self._file(folder, name, 0)
            if file is not None and pixels is not None and not file.exists():
                write_picture(file, Picture(pixels))
        if pair.hr is not None and self.scores.of("set") and (TRUTH, name, 0) not in self.journal.scores:
            features = _features(to_tensor(pair.hr), self.scores)
            self.journal.add(PictureScore(method=TRUTH, picture=name, seed=0, values={}, features=features))
        return pair


@torch.inference_mode()
def _score(method: str, enlarge: Enlarge, pair: Pair, seed: int, scores: Scores, target: Path | None) -> PictureScore:
    pixels = enlarge(pair, seed)
    if target is not None:
        write_picture(target, Picture(pixels))
    picture = to_tensor(pixels)
    truth = None if pair.hr is None else to_tensor(pair.hr)
    values = {name: float(score(picture)) for name, score in scores.of("none").items()}
    if truth is not None:
        values |= {name: float(score(picture, truth)) for name, score in scores.of("reference").items()}
    return PictureScore(
        method=method,
        picture=pair.name,
        seed=seed,
        values={name: values[name] for name in scores.loaded if not math.isnan(values.get(name, math.nan))},
        features={} if truth is None else _features(picture, scores),
    )


@torch.inference_mode()
def _features(picture: Tensor, scores: Scores) -> dict[str, bytes]:
    return {name: score(picture)[0].float().cpu().numpy().tobytes() for name, score in scores.of("set").items()}


def _reason(error: Exception) -> str:
    """One line; our own errors say it all, others need their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
