"""Any number of results as one page: tables in the papers' form, how sure they are, the protocol, and crops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
from PIL import Image

from tddsr import images
from tddsr.evaluation import page, statistics
from tddsr.evaluation.results import Better, Result, read_result, saved_pictures
from tddsr.evaluation.statistics import Paired
from tddsr.evaluation.views import BLOCK, Layer, View, differing_window, embed, with_overview

WINDOW = 192
"""Side of a crop in hr pixels."""


# What goes into a page


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
class Quoted:
    """A row whose figures were not measured but printed somewhere, metric -> as printed."""

    label: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Absent:
    """A row without any figures, and why."""

    label: str
    reason: str


@dataclass
class Group:
    """A data set. ``comment`` is one line that stands above its table."""

    title: str
    columns: list[Column]
    measured: list[Measured] = field(default_factory=list)
    quoted: list[Quoted] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    quoted_from: str = ""
    comment: str = ""

    @property
    def sources(self) -> list[Source]:
        return list({row.source.folder: row.source for row in self.measured}.values())


# What a page shows


@dataclass(frozen=True)
class Cell:
    """A figure as text; ``notes`` are numbers of footnotes."""

    text: str
    rank: Literal["", "best", "second"] = ""
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


@dataclass(frozen=True)
class Section:
    """A data set's part of the page."""

    title: str
    comment: str
    columns: list[Column]
    blocks: list[Block]
    first: str
    comparison: list[Row]
    views: list[View]
    rule: str
    protocols: list[tuple[str, dict[str, str]]]
    failures: list[tuple[str, str, str]]


class _Notes:
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
        return _Figure(fmean(sets), None, statistics.spread(sets), None)
    pictures = result.by_picture(row.method, metric)
    if not pictures:
        return None
    values = np.array([fmean(seeds.values()) for seeds in pictures.values()])
    # Only seeds that scored every picture: a mean over other pictures differs for another reason than the noise.
    seeds = set.intersection(*(set(scores) for scores in pictures.values()))
    means = [fmean(scores[seed] for scores in pictures.values()) for seed in seeds]
    return _Figure(float(values.mean()), statistics.interval(values), statistics.spread(means), len(values))


def _text(value: float, decimals: int, signed: bool = False) -> str:
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    return sign + ("∞" if math.isinf(value) else f"{abs(value):.{decimals}f}")


def _decimals(values: Iterable[float]) -> int:
    """As many as the field prints: four for scores up to about 1, two for larger ones."""
    return 4 if all(abs(value) < 2 for value in values if math.isfinite(value)) else 2


def _ranks(texts: Sequence[str | None], better: Better) -> list[Literal["", "best", "second"]]:
    """Rank figures as they are shown, so that what reads the same is ranked the same."""
    values = [None if text is None else float(text.replace("∞", "inf").replace("−", "-")) for text in texts]
    order = sorted({value for value in values if value is not None}, reverse=better == "higher")
    if len([value for value in values if value is not None]) < 2:
        return [""] * len(values)
    best, second = order[0], order[1] if len(order) > 1 else None
    return ["" if v is None else "best" if v == best else "second" if v == second else "" for v in values]


def _ranked(rows: list[Row], columns: Sequence[Column], known: Sequence[Sequence[bool]]) -> list[Row]:
    for index, column in enumerate(columns):
        texts = [row.cells[index].text if known[i][index] else None for i, row in enumerate(rows)]
        for row, rank in zip(rows, _ranks(texts, column.better), strict=True):
            row.cells[index] = changed(row.cells[index], rank=rank)
    return rows


def _why_missing(row: Measured, column: Column) -> str:
    metric = row.source.result.metrics.get(column.metric)
    if metric is None:
        return f"{column.name}: not asked for in this run"
    if metric.missing:
        return f"{column.name}: {metric.missing}"
    if metric.needs == "reference" and row.source.result.dataset.hr is None:
        return f"{column.name}: needs true pictures, which this data set has not"
    return f"{column.name}: no picture of this method has this score"


def _measured_block(group: Group, notes: _Notes) -> list[Row]:
    figures = [[_figure(row, column.metric) for column in group.columns] for row in group.measured]
    rows = []
    decimals = [
        _decimals(figure.mean for figures_of_row in figures if (figure := figures_of_row[index]) is not None)
        for index in range(len(group.columns))
    ]
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
                interval="–".join(_text(end, places) for end in figure.interval) if figure.interval else "",
                spread="" if figure.spread is None else f"±{figure.spread:.{places}f}",
                notes=(notes.number(f"over {figure.pictures} of {total} pictures"),) if few else (),
            ))  # fmt: skip
        failed = sum(failure.method in (None, row.method) for failure in row.source.result.failures)
        lost = f"{failed} picture{'s' * (failed > 1)} failed; see the failures beneath"
        rows.append(Row(row.label, cells, (notes.number(lost),) if failed else ()))
    rows = _ranked(rows, group.columns, [[figure is not None for figure in found] for found in figures])
    for absent in group.absent:
        note = notes.number(f"not measured here: {absent.reason}")
        rows.append(Row(absent.label, [Cell("n/a") for _ in group.columns], (note,)))
    return rows


def _quoted_block(group: Group) -> list[Row]:
    rows = [
        Row(f"{row.label} (quoted)", [Cell(row.figures.get(column.name, "–")) for column in group.columns])
        for row in group.quoted
    ]
    known = [[column.name in row.figures for column in group.columns] for row in group.quoted]
    return _ranked(rows, group.columns, known)


def _blocks(group: Group, notes: _Notes) -> list[Block]:
    measured, quoted = _measured_block(group, notes), _quoted_block(group)
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
    return statistics.paired(values, reference, column.better == "higher")


def _comparison(group: Group) -> list[Row]:
    """Every method less the first one."""
    rows = []
    for row in group.measured[1:]:
        cells = []
        for column in group.columns:
            pair = _paired(row, group.measured[0], column)
            if pair is None:
                cells.append(Cell("–"))
                continue
            ends = pair.interval or (pair.mean, pair.mean)
            figure = _figure(group.measured[0], column.metric)
            places = _decimals([figure.mean] if figure else [])
            cells.append(Cell(
                _text(pair.mean, places, signed=True),
                rank="best" if ends[0] > 0 or ends[1] < 0 else "",
                interval=f"{_text(ends[0], places, signed=True)} to {_text(ends[1], places, signed=True)}",
                spread=f"better {pair.wins}, worse {pair.losses}; p {_probability(pair.p)}",
            ))  # fmt: skip
        rows.append(Row(row.label, cells))
    return rows


def _probability(p: float) -> str:
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


# Crops


def _without_suffix(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _views(group: Group, count: int, allowance: float) -> tuple[list[View], str]:
    """Crops of the ``count`` pictures on which the methods differ most, and the rule in words."""
    kept = {row.label: saved_pictures(row.source.folder, row.method) for row in group.measured}
    kept = {label: files for label, files in kept.items() if files}
    extra: dict[str, dict[str, Path]] = {"lr": {}, "hr": {}}
    for source in group.sources:
        for kind, files in extra.items():
            files |= saved_pictures(source.folder, kind)
    if len(kept) == 1 and extra["hr"]:
        judged = [*kept.values(), extra["hr"]]  # one method alone: where it differs from the truth
    else:
        judged = list(kept.values())
    if count == 0 or not kept:
        return [], ""
    names = [name for name in judged[0] if all(name in files for files in judged[1:])]
    found = []
    for name in names:
        stack = [images.read(files[name]).rgb_8_bit for files in judged]
        if len({picture.shape for picture in stack}) == 1:
            found.append((*differing_window(stack, WINDOW), name))
    found.sort(key=lambda entry: (-entry[0], entry[2]))
    chosen = found[:count]
    views = [
        _view(name, box, kept, extra, allowance / len(chosen), f"{difference:.1f}") for difference, box, name in chosen
    ]
    what = "the methods differ" if len(kept) > 1 else "the method and the truth differ"
    if not found:
        return [], "No crops: no picture was kept at the same size for every method."
    rule = (
        f"The {len(chosen)} of {len(found)} pictures, and in each the window of at most {WINDOW}×{WINDOW} pixels, in "
        f"which {what} most (mean over the window of the brightest less the darkest, of 255): the extremes, not "
        "typical pictures."
    )
    return views, rule


def _view(
    name: str,
    box: tuple[int, int, int, int],
    kept: dict[str, dict[str, Path]],
    extra: dict[str, dict[str, Path]],
    allowance: float,
    difference: str,
) -> View:
    wholes = {label: _open(files[name]) for label, files in kept.items() if name in files}
    first = next(iter(wholes.values()))
    layers = [Layer(label, whole.crop(box)) for label, whole in wholes.items()]
    if name in extra["lr"]:
        small = _open(extra["lr"][name])
        if small.width * BLOCK == first.width and small.height * BLOCK == first.height:
            left, top, right, bottom = (edge // BLOCK for edge in box)
            layers.insert(0, Layer("input", small.crop((left, top, right, bottom)), enlarged=True))
    if name in extra["hr"]:
        layers.append(Layer("truth", _open(extra["hr"][name]).crop(box)))
    view = with_overview(embed(f"{name}, difference {difference}", layers, allowance), first, box)
    methods = [index for index, layer in enumerate(layers) if layer.label in kept]
    return changed(view, start=(methods[0], methods[1] if len(methods) > 1 else len(layers) - 1))


def _open(path: Path) -> Image.Image:
    return Image.fromarray(images.read(path).rgb_8_bit)


# The page


def _protocol(source: Source) -> tuple[str, dict[str, str]]:
    """The statement, and everything behind it."""
    result = source.result
    data, protocol = result.dataset, result.protocol
    lines: dict[str, Any] = {
        "run": result.name,
        "data set": f"{data.name}, {data.pictures} pictures",
        "true pictures": data.hr,
        "small pictures": data.lr,
        "degradation": data.degradation,
        **protocol.model_dump(exclude={"statement", "versions"}),
        "versions": ", ".join(f"{name} {version}" for name, version in protocol.versions.items()),
        "methods": "; ".join(
            f"{name}: {method.spec}" + (f", {method.steps} step{'s' * (method.steps > 1)}" if method.steps else "")
            for name, method in result.methods.items()
        ),
    }
    return protocol.statement, {key: str(value) for key, value in lines.items() if value not in (None, "", [])}


def _section(group: Group, notes: _Notes, pictures: int, allowance: float) -> Section:
    views, rule = _views(group, pictures, allowance)
    failures = {
        (failure.method or "every method", failure.picture, failure.reason)
        for source in group.sources
        for failure in source.result.failures
    }
    return Section(
        group.title,
        group.comment,
        group.columns,
        _blocks(group, notes),
        group.measured[0].label if group.measured else "",
        _comparison(group),
        views,
        rule,
        [_protocol(source) for source in group.sources],
        sorted(failures),
    )


def by_data_set(sources: Sequence[Source]) -> list[Group]:
    """Groups of results that may be compared: of one data set, degraded, cropped and scored alike."""
    together: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        data, protocol = source.result.dataset, source.result.protocol
        alike = (data.name, data.degradation, data.pictures, protocol.scale)
        alike += (protocol.crop, protocol.border, protocol.colour)
        together.setdefault(tuple(map(str, alike)), []).append(source)
    groups = []
    for members in together.values():
        metrics = {name: metric for source in members for name, metric in source.result.metrics.items()}
        columns = [Column(name, name, metric.better) for name, metric in metrics.items()]
        names = [method for source in members for method in source.result.methods]
        measured = [
            Measured(_unique(method, source, names), source, method)
            for source in members
            for method in source.result.methods
        ]
        statements = list(dict.fromkeys(source.result.protocol.statement for source in members))
        comment = statements[0] if len(statements) == 1 else "From runs with several protocols; see beneath."
        groups.append(Group(members[0].result.dataset.name, columns, measured, comment=comment))
    titles = [group.title for group in groups]
    for index, group in enumerate(groups):
        if titles.count(group.title) > 1:  # the same pictures, not scored alike: not to be compared
            group.title += f", protocol {titles[:index].count(group.title) + 1}"
    return groups


def _unique(method: str, source: Source, names: Sequence[str]) -> str:
    return method if names.count(method) == 1 else f"{method} ({source.folder.resolve().name})"


def write_report(
    groups: Sequence[Group], folder: Path, title: str, pictures: int = 4, budget: int = 8_000_000, comment: str = ""
) -> list[Path]:
    """Write ``folder/report.html`` and ``folder/report.md``.

    Args:
        groups: one for each data set.
        folder: made where it does not exist.
        title: of the page.
        pictures: crops of at most so many pictures a data set.
        budget: bytes that all embedded pictures together may take.
        comment: one line beneath the title.

    Raises:
        ImageError: a saved picture cannot be read, or the pictures do not fit into the budget.
        OSError: the folder cannot be written to.
    """
    notes = _Notes()
    with_pictures = sum(any(saved_pictures(r.source.folder, r.method) for r in group.measured) for group in groups)
    # Some of the budget is for the overviews.
    allowance = 0.9 * budget / max(1, with_pictures)
    sections = [_section(group, notes, pictures, allowance) for group in groups]
    values: dict[str, Any] = {
        "title": title,
        "comment": comment,
        "sections": sections,
        "notes": notes.texts,
        "level": round(100 * statistics.LEVEL),
        "resamples": statistics.RESAMPLES,
        "bootstrap_seed": statistics.SEED,
    }
    written = []
    for name in ("report.html", "report.md"):
        page.write(folder / name, page.render(name, **values))
        written.append(folder / name)
    return written
