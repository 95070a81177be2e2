"""Any number of results as one page: tables in the papers' form, how sure they are, the protocol, and crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tddsr.evaluation.results import saved_pictures
from tddsr.pictures.files import read_picture
from tddsr.report import confidence, page
from tddsr.report.crops import BLOCK, Layer, View, differing_window, embed_place
from tddsr.report.tables import (
    Block,
    Column,
    Group,
    Measured,
    Notes,
    Row,
    Source,
    Unmeasured,
    blocks,
    comparison,
)

WINDOW = 192
"""Side of a crop in hr pixels."""


@dataclass(frozen=True)
class Section:
    """A data set's part of the page."""

    group: Group
    blocks: list[Block]
    first: str
    comparison: list[Row]
    views: list[View]
    rule: str
    protocols: list[tuple[str, dict[str, str]]]
    failures: list[tuple[str, str, str]]


# Crops


def _views(group: Group, count: int, allowance: float) -> tuple[list[View], str]:
    """Crops of the ``count`` pictures on which the methods differ most, and the rule in words."""
    kept = {row.label: saved_pictures(row.source.folder, row.method) for row in group.measured}
    kept = {label: files for label, files in kept.items() if files}
    extra: dict[str, dict[str, Path]] = {"lr": {}, "hr": {}}
    for source in group.sources:
        for kind, files in extra.items():
            files |= saved_pictures(source.folder, kind)
    judged = list(kept.values())
    if len(kept) == 1 and extra["hr"]:
        judged.append(extra["hr"])  # one method alone: where it differs from the truth
    if count == 0 or not kept:
        return [], ""
    if len(judged) == 1:
        return [], "No crops: there is one method, and no truth to compare it with."
    names = [name for name in judged[0] if all(name in files for files in judged[1:])]
    found = []
    for name in names:
        stack = [read_picture(files[name]).rgb_8_bit for files in judged]
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
        f"The {len(chosen)} of {len(found)} pictures, and in each the window of at most {WINDOW}x{WINDOW} pixels, in "
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
    view = embed_place(f"{name}, difference {difference}", layers, first, box, allowance)
    methods = [index for index, layer in enumerate(layers) if layer.label in kept]
    # At first, the first method beside the one that is least like it; a method alone, beside the truth.
    others = methods[1:] or [len(layers) - 1]
    pixels = [np.asarray(layer.image, np.int16) for layer in layers]
    least_alike = max(others, key=lambda other: np.abs(pixels[other] - pixels[methods[0]]).sum())
    return changed(view, start=(methods[0], least_alike))


def _open(path: Path) -> Image.Image:
    return Image.fromarray(read_picture(path).rgb_8_bit)


# The page


def _facts(source: Source) -> dict[str, str]:
    """What a run's protocol says, apart from its name and methods."""
    data, protocol = source.result.dataset, source.result.protocol
    lines: dict[str, Any] = {
        "data set": f"{data.name}, {data.pictures} pictures",
        "true pictures": data.hr,
        "small pictures": data.lr,
        "degradation": data.degradation,
        **protocol.model_dump(exclude={"statement", "versions"}),
        "versions": ", ".join(f"{name} {version}" for name, version in protocol.versions.items()),
    }
    return {key: str(value) for key, value in lines.items() if value not in (None, "", [])}


def _protocols(sources: Sequence[Source]) -> list[tuple[str, dict[str, str]]]:
    """The statement and everything behind it, once for all runs that have them in common."""
    found: dict[str, tuple[str, dict[str, str], list[Source]]] = {}
    for source in sources:
        statement, facts = source.result.protocol.statement, _facts(source)
        found.setdefault(f"{statement} {facts}", (statement, facts, []))[2].append(source)
    entries = []
    for statement, facts, alike in found.values():
        names = [name for source in alike for name in source.result.methods]
        methods = [
            f"{_unique(name, source, names)}: {method.spec}"
            + (f", {method.steps} step{'s' * (method.steps > 1)}" if method.steps else "")
            for source in alike
            for name, method in source.result.methods.items()
        ]
        runs = ", ".join(source.result.name for source in alike)
        entries.append((statement, {"run": runs, **facts, "methods": "; ".join(methods)}))
    return entries


def _section(group: Group, notes: Notes, pictures: int, allowance: float) -> Section:
    views, rule = _views(group, pictures, allowance)
    failures = {
        (failure.method or "every method", failure.picture, failure.reason)
        for source in group.sources
        for failure in source.result.failures
    }
    return Section(
        group,
        blocks(group, notes),
        group.measured[0].label if group.measured else "",
        comparison(group),
        views,
        rule,
        _protocols(group.sources),
        sorted(failures),
    )


def by_data_set(sources: Sequence[Source]) -> list[Group]:
    """Groups of results that may be compared: of one data set, degraded, cropped and scored alike."""
    together: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        data, protocol = source.result.dataset, source.result.protocol
        of_protocol = (protocol.scale, protocol.crop, protocol.border, protocol.colour)
        alike = (data.name, data.degradation, data.pictures, data.digest, *of_protocol)
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
        # A method that could not run at all has a failure without a picture, and is not among the methods.
        absent = [
            Unmeasured(failure.method, failure.reason)
            for source in members
            for failure in source.result.failures
            if failure.method is not None and not failure.picture and failure.method not in source.result.methods
        ]
        groups.append(Group(members[0].result.dataset.name, columns, measured, absent=absent, comment=comment))
    titles = [group.title for group in groups]
    for index, group in enumerate(groups):
        if titles.count(group.title) > 1:  # other pictures, or not scored alike: not to be compared
            group.title += f" ({titles[:index].count(group.title) + 1})"
    return groups


def _unique(method: str, source: Source, names: Sequence[str]) -> str:
    return method if names.count(method) == 1 else f"{method} ({source.folder.resolve().name})"


def write_report(
    groups: Sequence[Group], folder: Path, title: str, pictures: int = 4, budget: int = 8_000_000, comment: str = ""
) -> list[Path]:
    """Write ``folder/report.html`` and ``folder/report.md``; the folder is made where it does not exist.

    There are crops of at most so many ``pictures`` of each group, which is a data set; ``budget``: bytes that all
    embedded pictures together may take; ``comment``: one line beneath the title.

    Raises:
        ImageError: a saved picture cannot be read, or the pictures do not fit into the budget.
        OSError: the folder cannot be written to.
    """
    notes = Notes()
    with_pictures = sum(any(saved_pictures(r.source.folder, r.method) for r in group.measured) for group in groups)
    allowance = budget / max(1, with_pictures)
    sections = [_section(group, notes, pictures, allowance) for group in groups]
    paths = [folder / "report.html", folder / "report.md"]
    for path in paths:
        text = page.render(
            path.name,
            title=title,
            comment=comment,
            sections=sections,
            notes=notes.texts,
            quoted=any(group.quoted for group in groups),
            level=round(100 * confidence.LEVEL),
            resamples=confidence.RESAMPLES,
            bootstrap_seed=confidence.SEED,
        )
        page.write(path, text)
    return paths
