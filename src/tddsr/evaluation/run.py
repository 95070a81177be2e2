"""What ``tddsr eval`` does: score into a folder, or into memory, and tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tddsr.evaluation.journal import PICTURES, Journal, write_result
from tddsr.evaluation.methods import Method
from tddsr.evaluation.pictures import PictureSet
from tddsr.evaluation.protocol import Failure, Protocol, Table, collect, evaluate
from tddsr.metrics.table import Scores


def score(
    methods: Mapping[str, Method],
    unavailable: Mapping[str, str],
    pictures: PictureSet,
    scores: Scores,
    protocol: Protocol,
    output: Path | None = None,
    save: bool = False,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Table:
    """Score ``methods``; into ``output``, where it is given: what lies there is gone on with and not computed again.

    Args:
        methods: by name.
        unavailable: name of a method that lacks something -> what. A failure.
        pictures: to enlarge.
        scores: to compute.
        protocol: what ``scores`` and ``pictures`` follow.
        output: folder of the files that ``result`` names, also written where the run is interrupted.
        save: also the pictures.
        workers: pictures at a time.
        progress: called once for each method and picture.

    Raises:
        ResultError: ``output`` holds scores by another protocol.
        OSError: ``output`` cannot be written to.
    """
    failures = [Failure(name, "", reason) for name, reason in unavailable.items()]
    if output is None:
        table = evaluate(methods, pictures, scores, protocol.seeds, workers=workers, progress=progress)
        return Table(table.rows, table.sets, failures + table.failures)
    with Journal(output, protocol, pictures, scores) as journal:
        for name, method in methods.items():
            journal.register(name, method)
        try:
            failures += evaluate(
                methods, pictures, scores, protocol.seeds,
                memory=journal, save=output / PICTURES if save else None, workers=workers, progress=progress,
            ).failures  # fmt: skip
        finally:
            # With the methods of earlier runs into the same folder, and what those did not come to.
            failures += _left_out(journal, methods, pictures, failures)
            table = collect(journal, journal.methods, pictures, scores, failures)
            write_result(output, table, protocol, pictures, scores, journal.methods)
    return table


def _left_out(
    journal: Journal, methods: Mapping[str, Method], pictures: PictureSet, failures: Sequence[Failure]
) -> list[Failure]:
    unusable = pictures.problems.keys() | {failure.picture for failure in failures if failure.method is None}
    reason = "has no score from an earlier run: name the method again to try it again"
    return [
        Failure(name, picture, reason)
        for name in journal.methods.keys() - methods.keys()
        for picture in pictures.files.keys() - unusable
        if (name, picture, 0) not in journal.rows
    ]


def problems(tables: Mapping[str, Table], scores: Scores) -> Iterator[str]:
    """A line for whatever was not scored; with the name of its set, where there are several."""
    for name, remedy in scores.missing.items():
        yield f"{name} is not available: {remedy}"
    for title, table in tables.items():
        for failure in table.failures:
            where = title if len(tables) > 1 else None
            yield ": ".join(filter(None, [where, failure.method, failure.picture, failure.reason]))


def markdown(tables: Mapping[str, Table], scores: Scores) -> str:
    """The means of sets of pictures, by name, as one table; '-' where a score is not defined."""
    names = [metric.name for metric in scores.metrics]

    def cell(values: Mapping[str, float], name: str) -> str:
        if name in scores.missing:
            return "not available"
        return f"{values[name]:.4f}" if name in values else "-"

    several = len(tables) > 1
    head = ["degradation", "method", *names][not several :]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for title, table in tables.items():
        for method, values in table.means().items():
            cells = [title, method, *(cell(values, name) for name in names)][not several :]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
