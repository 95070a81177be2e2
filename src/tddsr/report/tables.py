"""The tables of a report: what goes into them, and the cells that they show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from tddsr.evaluation.results import Better, Result, read_result
from tddsr.report import confidence
from tddsr.report.confidence import Paired

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


# What goes into a table


@dataclass(frozen=True)
class Source:
    """A result and the folder where it was read."""

    folder: Path
    result: Result

    @classmethod
    def read(cls, folder: Path) -> Source:
        """Read ``folder``; see ``read_result``."""
        return cls(folder if folder.is_dir() else folder.parent, read_result(folder))


@dataclass(frozen=True)
class Column:
    """A metric: what it is called here and in results."""

    name: str
    metric: str
    better: Better

    @property
    def arrow(self) -> str:
        return "↑" if self.better == "higher" else "↓"


@dataclass(frozen=True)
class Measured:
    """A row: a method of a result."""

    label: str
    source: Source
    method: str


@dataclass(frozen=True)
class Unmeasured:
    """A row, and why it was not measured; ``figures``: column -> as printed somewhere, where it is quoted."""

    label: str
    reason: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Group:
    """A data set. ``comment`` is one line that stands above its table."""

    title: str
    columns: list[Column]
    measured: list[Measured] = field(default_factory=list)
    quoted: list[Unmeasured] = field(default_factory=list)
    absent: list[Unmeasured] = field(default_factory=list)
    quoted_from: str = ""
    comment: str = ""

    @property
    def sources(self) -> list[Source]:
        return list({row.source.folder: row.source for row in self.measured}.values())


# What a table shows

Rank = Literal["", "best", "second"]


@dataclass(frozen=True)
class Cell:
    """A figure as text; ``notes`` are numbers of footnotes."""

    text: str
    rank: Rank = ""
    interval: str = ""
    spread: str = ""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: str
    cells: list[Cell]
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """Rows that are ranked together; ``title`` is empty where there is only one block."""

    title: str
    rows: list[Row]


class Notes:
    """The footnotes of a page, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


@dataclass(frozen=True)
class _Figure:
    """A mean, and what is known of it."""

    mean: float
    interval: tuple[float, float] | None
    spread: float | None
    pictures: int | None


def _figure(row: Measured, metric: str) -> _Figure | None:
    result = row.source.result
    sets = result.by_set(row.method, metric)
    if sets:
        return _Figure(fmean(sets), None, confidence.spread(sets), None)
    pictures = result.by_picture(row.method, metric)
    if not pictures:
        return None
    values = np.array([fmean(seeds.values()) for seeds in pictures.values()])
    # Only seeds that scored every picture: a mean over other pictures differs for another reason than the noise.
    seeds = set.intersection(*(set(scores) for scores in pictures.values()))
    means = [fmean(scores[seed] for scores in pictures.values()) for seed in seeds]
    return _Figure(float(values.mean()), confidence.interval(values), confidence.spread(means), len(values))


def _text(value: float, decimals: int, signed: bool = False) -> str:
    sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + ("∞" if math.isinf(value) else f"{abs(value):.{decimals}f}")


def _decimals(values: Iterable[float]) -> int:
    """As many as the field prints: four for scores up to about 1, two for larger ones."""
    return 4 if all(abs(value) < 2 for value in values if math.isfinite(value)) else 2


def _number(text: str) -> float | None:
    try:
        return float(text.replace("∞", "inf").replace(MINUS, "-"))
    except ValueError:
        return None


def _ranked(rows: list[Row], columns: Sequence[Column]) -> list[Row]:
    """Rank figures as they are shown, so that what reads the same is ranked the same."""
    for index, column in enumerate(columns):
        values = [_number(row.cells[index].text) for row in rows]
        known = [value for value in values if value is not None]
        order = sorted(set(known), reverse=column.better == "higher")
        ranks: dict[float | None, Rank] = dict(zip(order, ("best", "second"), strict=False)) if len(known) > 1 else {}
        for row, value in zip(rows, values, strict=True):
            row.cells[index] = changed(row.cells[index], rank=ranks.get(value, ""))
    return rows


def _why_missing(row: Measured, column: Column) -> str:
    metric = row.source.result.metrics.get(column.metric)
    if metric is None:
        return f"{column.name}: not asked for in this run"
    if metric.missing:
        named = metric.missing.lower().startswith(column.name.lower())
        return metric.missing if named else f"{column.name}: {metric.missing}"
    if metric.needs == "reference" and row.source.result.dataset.hr is None:
        return f"{column.name}: needs true pictures, which this data set has not"
    return f"{column.name}: no picture of this method has this score"


def _measured_block(group: Group, notes: Notes) -> list[Row]:
    figures = [[_figure(row, column.metric) for column in group.columns] for row in group.measured]
    rows = []
    decimals = [_decimals(figure.mean for figure in column if figure) for column in zip(*figures, strict=True)]
    for row, found in zip(group.measured, figures, strict=True):
        total = row.source.result.dataset.pictures
        cells = []
        for column, figure, places in zip(group.columns, found, decimals, strict=True):
            if figure is None:
                cells.append(Cell("n/a", notes=(notes.number(_why_missing(row, column)),)))
                continue
            few = figure.pictures is not None and figure.pictures < total
            cells.append(Cell(
                _text(figure.mean, places),
                interval=DASH.join(_text(end, places) for end in figure.interval) if figure.interval else "",
                spread="" if figure.spread is None else f"±{figure.spread:.{places}f}",
                notes=(notes.number(f"over {figure.pictures} of {total} pictures"),) if few else (),
            ))  # fmt: skip
        failed = sum(failure.method in (None, row.method) for failure in row.source.result.failures)
        lost = f"{failed} picture{'s' * (failed > 1)} failed; see the failures beneath"
        rows.append(Row(row.label, cells, (notes.number(lost),) if failed else ()))
    for absent in group.absent:
        note = notes.number(f"not measured here: {absent.reason}")
        rows.append(Row(absent.label, [Cell("n/a") for _ in group.columns], (note,)))
    return _ranked(rows, group.columns)


def _quoted_block(group: Group, notes: Notes) -> list[Row]:
    rows = []
    for row in group.quoted:
        cells = [Cell(row.figures.get(column.name, DASH)) for column in group.columns]
        why = (notes.number(f"not measured here: {row.reason}"),) if row.reason else ()
        rows.append(Row(f"{row.label} (quoted)", cells, why))
    return _ranked(rows, group.columns)


def blocks(group: Group, notes: Notes) -> list[Block]:
    """The rows that were measured and those that are quoted, each ranked among themselves."""
    measured, quoted = _measured_block(group, notes), _quoted_block(group, notes)
    origin = f"Quoted from {group.quoted_from}, not measured" if group.quoted_from else "Quoted, not measured"
    blocks = [Block("Measured" if quoted else "", measured), Block(origin, quoted)]
    return [block for block in blocks if block.rows]


def _paired(row: Measured, first: Measured, column: Column) -> Paired | None:
    """Compare on the pictures that both have."""
    ours = row.source.result.by_picture(row.method, column.metric)
    theirs = first.source.result.by_picture(first.method, column.metric)
    common = [name for name in theirs if name in ours]
    if len(common) < 2:
        return None
    values, reference = (np.array([fmean(scores[name].values()) for name in common]) for scores in (ours, theirs))
    return confidence.paired(values, reference, column.better == "higher")


def comparison(group: Group) -> list[Row]:
    """Every method less the first one."""
    rows = []
    for row in group.measured[1:]:
        cells = []
        for column in group.columns:
            pair = _paired(row, group.measured[0], column)
            if pair is None:
                cells.append(Cell(DASH))
                continue
            ends = pair.interval
            figure = _figure(group.measured[0], column.metric)
            places = _decimals([figure.mean] if figure else [])
            cells.append(Cell(
                _text(pair.mean, places, signed=True),
                rank="best" if ends and (ends[0] > 0 or ends[1] < 0) else "",
                interval=" to ".join(_text(end, places, signed=True) for end in ends or ()),
                spread=f"{pair.wins} : {pair.losses}, p {_probability(pair.p)}",
            ))  # fmt: skip
        rows.append(Row(row.label, cells))
    return rows


def _probability(p: float) -> str:
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)
