"""The tables of the paper: what can be measured on this machine, beside what the paper prints.

    python benchmarks/paper_tables.py table1 [KEY=VALUE...] [-o FOLDER]

A table is a file of benchmarks/tables, by name or path. What is measured is kept in FOLDER/results, and read again as
long as options, pictures, weights and features stay the same. Nothing is downloaded. Writes report.html and report.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tddsr.degradation.presets import Preset
from tddsr.device import pick_device
from tddsr.errors import MethodUnavailableError, RecipeError, ResultError, TddsrError
from tddsr.evaluation.methods import check_name, find_methods
from tddsr.evaluation.pictures import PictureSet, find_pictures
from tddsr.evaluation.results import Better, Protocol, read_result
from tddsr.evaluation.run import evaluate
from tddsr.files import file_hash, files_hash
from tddsr.metrics.table import Scores, Setting, choose, load_scores
from tddsr.pictures.folders import ALL
from tddsr.report.build import write_report
from tddsr.report.tables import Column, Group, Measured, Source, Unmeasured
from tddsr.training.load import load_settings
from tddsr.training.recipe import Part
from tddsr.weights.names import SHIPPED
from tddsr.weights.registry import MODELS, files_here

TABLES = Path(__file__).parent / "tables"


def content_hash(path: Path) -> str:
    """Of a file, or of all files below a folder; empty where there is nothing."""
    if path.is_dir():
        return files_hash({file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()})
    return file_hash(path) if path.is_file() else ""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _a_number(text: str) -> str:
    float(text)
    return text


Printed = Annotated[str, AfterValidator(_a_number)]
"""A figure as it is printed, with its last zeros; so it stands in quotes in YAML."""


class ColumnConfig(_Section):
    """A metric of the table."""

    metric: str | None = Field(None, description="its name for `tddsr eval`; unset: the column's")
    better: Better


class DataConfig(_Section):
    """A data set: the options of `tddsr eval`."""

    hr: Path | None = None
    lr: Path | None = None
    preset: Preset = "resshift"
    seed: int = Field(0, ge=0, description="of the degradation")
    crop: int | None = Field(None, ge=32, multiple_of=4)
    part: Part | None = Field(None, description="of hr, as for training")
    side: int | None = Field(None, ge=32, description="that hr is reduced to, as for training")

    @model_validator(mode="after")
    def _some_pictures(self) -> DataConfig:
        if self.hr is None and self.lr is None:
            raise ValueError("a data set needs hr, lr or both")
        if self.lr is not None and (self.part is not None or self.side is not None):
            raise ValueError(f"part and side are for hr that is degraded: leave them out, or lr ({self.lr})")
        return self


class RowConfig(_Section):
    """A row: how to measure it, and what the paper prints."""

    method: str | dict[str, str] | None = Field(
        None, description="method of `tddsr eval` or folder of finished pictures; or one for each data set"
    )
    quoted: dict[str, dict[str, Printed]] = Field({}, description="data set -> column -> figure")

    def method_for(self, data: str) -> str | None:
        return self.method.get(data) if isinstance(self.method, dict) else self.method


class PaperTable(_Section):
    """One table."""

    title: str
    source: str = Field("", description="where the quoted figures were printed")
    comment: str = ""
    out: Path
    features: Path | None = Field(None, description="folder of the weights that metrics need")
    device: str = "auto"
    seeds: int = Field(3, ge=1, description="noise seeds")
    limit: int | None = Field(None, ge=1, description="pictures of each data set; unset: all")
    columns: dict[str, ColumnConfig] = Field(min_length=1)
    data: dict[str, DataConfig] = Field(min_length=1)
    rows: dict[str, RowConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> PaperTable:
        for label, row in self.rows.items():
            if row.method is not None:
                check_name(label)
            if row.quoted and not self.source:
                raise ValueError(f"rows.{label} quotes figures: 'source' must say where they were printed")
            named = [*row.quoted, *(row.method if isinstance(row.method, dict) else ())]
            for data in named:
                if data not in self.data:
                    raise ValueError(f"rows.{label}: no data set is called {data}; there are {', '.join(self.data)}")
            for column in (name for figures in row.quoted.values() for name in figures):
                if column not in self.columns:
                    raise ValueError(f"rows.{label}: no column is called {column}; there are {', '.join(self.columns)}")
        return self


def load_table(name: str, overrides: Sequence[str] = ()) -> PaperTable:
    """Read a table by name (``table1``) or path; ``overrides`` as for training.

    Raises:
        RecipeError: no such table, not YAML, an unknown key, or an impossible value.
    """
    path = next((path for path in (Path(name), TABLES / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in TABLES.glob("*.yaml")))
        raise RecipeError(f"no table '{name}': neither a file nor one of {known}")
    return load_settings(PaperTable, path, overrides)


class Measuring:
    """Runs the rows of one data set that can run on this machine, into a folder.

    Args:
        table: what to measure.
        data: the data set.
        folder: of its results, one each row.
    """

    def __init__(self, table: PaperTable, data: DataConfig, folder: Path) -> None:
        self.table, self.data, self.folder = table, data, folder
        self.device = pick_device(table.device)
        self._content = [content_hash(path) for path in (data.hr, data.lr, table.features) if path]

    @functools.cached_property
    def scores(self) -> Scores:
        """Loaded when a row is scored for the first time."""
        names = [column.metric or name for name, column in self.table.columns.items()]
        metrics = choose(names, truth=self.data.hr is not None)
        return load_scores(metrics, Setting(features=self.table.features, device=self.device))

    @functools.cached_property
    def pictures(self) -> PictureSet:
        data = self.data
        part = data.part or ALL
        return find_pictures(data.hr, data.lr, data.preset, data.seed, self.table.limit, data.crop, part, data.side)

    def row(self, label: str, method: str) -> Source:
        """The result of one row, new or from before.

        Raises:
            Exception: whatever scoring it raises; it has no result.
        """
        target = self._place(label, method)
        if any(metric in self.scores.loaded for metric in _missing_metrics(target)):
            shutil.rmtree(target)  # a folder of scores keeps the metrics that it began with
        if not _is_done(target, label):
            print(f"measuring {label} on {self.data.hr or self.data.lr} ...", file=sys.stderr)
            protocol = Protocol(crop=self.data.crop, seeds=self.table.seeds, device=self.device.type)
            methods, unavailable = find_methods([f"{label}={method}"], self.device)
            if unavailable:
                raise MethodUnavailableError(unavailable[label])
            evaluate(methods, self.pictures, self.scores, protocol, target, save=True)
        return Source.read(target)

    def _place(self, label: str, method: str) -> Path:
        """What moves the scores is in the folder's name: where it changes, nothing old is taken for new."""
        model = _model_of(method)
        options = self.table.model_dump(mode="json", include={"seeds", "limit", "columns", "device"})
        stamp = [label, method, options, self.data.model_dump(mode="json"), *self._content]
        stamp.append(content_hash(Path(SHIPPED.get(model, model))))
        return self.folder / f"{_slug(label)}-{hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:8]}"


def measure(table: PaperTable, folder: Path) -> list[Group]:
    """Measure what can be, into ``folder/results``, and gather the table's data sets; a row that fails has a reason."""
    columns = [Column(name, entry.metric or name, entry.better) for name, entry in table.columns.items()]
    groups = []
    for name, data in table.data.items():
        group = Group(name, columns, quoted_from=table.source)
        missing_data = _data_missing(name, data)
        measuring = None if missing_data else Measuring(table, data, folder / "results" / _slug(name))
        for label, row in table.rows.items():
            method, reason = row.method_for(name), ""
            if method is not None:
                reason = missing_data or _method_missing(label, method) or ""
                if measuring is not None and not reason:
                    try:
                        group.measured.append(Measured(label, measuring.row(label, method), label))
                    except Exception as error:  # whatever one row fails on, the others go on
                        reason = " ".join(str(error).split()) or type(error).__name__
            if name in row.quoted:
                group.quoted.append(Unmeasured(label, reason, row.quoted[name]))
            elif reason:
                group.absent.append(Unmeasured(label, reason))
        statements = dict.fromkeys(row.source.result.protocol.statement for row in group.measured)
        group.comment = next(iter(statements)) if len(statements) == 1 else ""
        groups.append(group)
    return groups


def _data_missing(name: str, data: DataConfig) -> str | None:
    for key, folder in (("hr", data.hr), ("lr", data.lr)):
        if folder is not None and not folder.is_dir():
            return f"{folder}: no such folder; data.{name}.{key}=FOLDER says where the pictures are"
    return None


def _model_of(method: str) -> str:
    """The name, file or folder in MODEL@STEPS:SAMPLER or KIND:FILE."""
    return method.partition("@")[0].rpartition(":")[2]


def _method_missing(label: str, method: str) -> str | None:
    """Why ``method`` cannot run here; nothing is downloaded for a report."""
    model = _model_of(method)
    if model in MODELS:
        if files_here(model):
            return None
        return f"{model} is not on this machine; `tddsr upscale PICTURE --model {model}` downloads it, with its licence"
    a_path = "/" in model or model.endswith(".safetensors")
    if a_path and model not in SHIPPED and not Path(model).exists():
        return f"{model} does not exist; 'rows.{label}.method=MODEL or FOLDER' says where it is"
    return None


def _missing_metrics(folder: Path) -> list[str]:
    """Those that could not be had when ``folder`` was measured."""
    try:
        return [name for name, metric in read_result(folder).metrics.items() if metric.missing is not None]
    except ResultError:
        return []


def _is_done(folder: Path, label: str) -> bool:
    """Whether ``folder`` holds every picture's scores; scoring goes on from part of them."""
    try:
        result = read_result(folder)
    except ResultError:
        return False
    seeds = Counter(score.picture for score in result.scores if score.method == label)
    complete = len(seeds) == result.dataset.pictures and len(set(seeds.values())) == 1
    return complete and not result.failures


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-").lower()


def main() -> None:
    """Measure a table and write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="table1 to table6, pairs, faces, or a file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. limit=10")
    parser.add_argument("-o", "--output", type=Path, help="folder of the page; unset: the table's own")
    parser.add_argument("--pictures", type=int, default=4, help="crops of at most so many pictures a data set")
    options = parser.parse_intermixed_args()
    try:
        table = load_table(options.table, options.overrides)
        output = options.output or table.out
        groups = measure(table, output)
        for path in write_report(groups, output, table.title, options.pictures, comment=table.comment):
            print(path)
    except KeyboardInterrupt:
        sys.exit(130)
    except (TddsrError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
