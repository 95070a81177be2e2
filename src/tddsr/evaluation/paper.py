"""Report recipes: the tables of a paper, with what can be measured on this machine beside what the paper prints."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tddsr.degradation import Preset
from tddsr.errors import ResultError
from tddsr.evaluation.methods import check_name
from tddsr.evaluation.results import Better, read_result
from tddsr.files import content_hash
from tddsr.metrics.table import METRICS, Setting
from tddsr.report.tables import Absent, Column, Group, Measured, Quoted, Source
from tddsr.training.recipe import Part, find_recipe, load_settings
from tddsr.weights.names import SHIPPED
from tddsr.weights.published import MODELS, UNPUBLISHED, files_here


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
    crop: int | None = Field(None, ge=32)
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


class ReportRecipe(_Section):
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
    def _names_are_known(self) -> ReportRecipe:
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


def load_report_recipe(name: str, overrides: Sequence[str] = ()) -> ReportRecipe:
    """Read a report recipe by name (``table1``) or path; ``overrides`` as for training.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key, or an impossible value.
    """
    return load_settings(ReportRecipe, find_recipe(name, "reports"), overrides)


def measure(recipe: ReportRecipe, folder: Path, tell: Callable[[str], None] = lambda line: None) -> list[Group]:
    """Run what can run on this machine, into ``folder/results``, and gather the table's data sets.

    A row that was measured before, with the same options, pictures, weights and features, is read again.

    Args:
        recipe: what to measure.
        folder: of the report.
        tell: called with a line before something is measured.
    """

    @functools.cache
    def at_hand(metric: str) -> bool:
        return metric in METRICS and not isinstance(METRICS[metric].try_load(Setting(features=recipe.features)), str)

    columns = [Column(name, entry.metric or name, entry.better) for name, entry in recipe.columns.items()]
    groups = []
    for name, data in recipe.data.items():
        group = Group(name, columns, quoted_from=recipe.source)
        missing_data = _data_missing(name, data)
        content = [] if missing_data else [content_hash(path) for path in (data.hr, data.lr, recipe.features) if path]
        for label, row in recipe.rows.items():
            method = row.method_for(name)
            reason = ""
            if method is not None:
                missing = missing_data or _method_missing(label, method)
                place = folder / "results" / _slug(name)
                found = missing or _measure_row(recipe, data, content, label, method, place, at_hand, tell)
                if isinstance(found, str):
                    reason = found
                else:
                    group.measured.append(Measured(label, found, label))
            if name in row.quoted:
                group.quoted.append(Quoted(label, row.quoted[name], reason))
            elif reason:
                group.absent.append(Absent(label, reason))
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
    if model in UNPUBLISHED:
        return f"{model}: {UNPUBLISHED[model]}"
    a_path = "/" in model or model.endswith(".safetensors")
    if a_path and model not in SHIPPED and not Path(model).exists():
        return f"{model} does not exist; 'rows.{label}.method=MODEL or FOLDER' says where it is"
    return None


def _measure_row(
    recipe: ReportRecipe,
    data: DataConfig,
    content: Sequence[str],
    label: str,
    method: str,
    folder: Path,
    at_hand: Callable[[str], bool],
    tell: Callable[[str], None],
) -> Source | str:
    """The result of one row, new or from before; or why there is none.

    ``content``: of its pictures and features. ``at_hand``: whether a metric can be had.
    """
    options = [f"{label}={method}", "--seeds", str(recipe.seeds), "--save"]
    options += ["--metrics", ",".join(entry.metric or name for name, entry in recipe.columns.items())]
    options += ["--preset", data.preset, "--seed", str(data.seed), "--device", recipe.device]
    for key, value in (
        ("hr", data.hr), ("lr", data.lr), ("crop", data.crop), ("side", data.side), ("limit", recipe.limit),
        ("features", recipe.features),
    ):  # fmt: skip
        if value is not None:
            options += [f"--{key}", str(value)]
    if data.part is not None:
        options += ["--part", *map(str, data.part)]
    # What moves the scores is in the folder's name: where it changes, nothing old is taken for new.
    stamp = [options, *content, content_hash(Path(SHIPPED.get(_model_of(method), _model_of(method))))]
    target = folder / f"{_slug(label)}-{hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:8]}"
    if any(at_hand(metric) for metric in _missing_metrics(target)):
        shutil.rmtree(target)  # a folder of `tddsr eval` keeps the metrics that it began with
    if not _is_done(target, label, despite_failures=False):
        tell(f"measuring {label} on {data.hr or data.lr} ...")
        command = [sys.executable, "-m", "tddsr", "eval", *options, "-o", str(target)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if not _is_done(target, label):
            lines = done.stderr.strip().splitlines()
            return lines[-1] if lines else f"`tddsr eval` ended with exit code {done.returncode} and said nothing"
    return Source.read(target)


def _missing_metrics(folder: Path) -> list[str]:
    """Those that could not be had when ``folder`` was measured."""
    try:
        return [name for name, metric in read_result(folder).metrics.items() if metric.missing is not None]
    except ResultError:
        return []


def _is_done(folder: Path, label: str, despite_failures: bool = True) -> bool:
    """Whether ``folder`` holds every picture's scores, or failures; `tddsr eval` goes on from part of them."""
    try:
        result = read_result(folder)
    except ResultError:
        return False
    seeds = Counter(score.picture for score in result.scores if score.method == label)
    failed = {failure.picture for failure in result.failures}
    if failed and not despite_failures:
        return False
    missing = result.dataset.pictures - len(seeds.keys() | failed)
    return label in result.methods and missing <= 0 and len({seeds[name] for name in seeds if name not in failed}) <= 1


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-").lower()
