"""The files of an evaluation: a journal that it goes on from, and the tables made of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from tddsr.errors import ResultError
from tddsr.evaluation.methods import Method
from tddsr.evaluation.pictures import PictureSet
from tddsr.evaluation.protocol import Memory, Protocol, Row, Table
from tddsr.files import whole_or_nothing
from tddsr.metrics.table import Scores

FORMAT = "tddsr-eval-1"
RESULT, TABLE, JOURNAL, PICTURES = "result.json", "scores.csv", "journal.jsonl", "pictures"
"""Names of files and folders in the folder of an evaluation."""


class Journal(Memory):
    """Rows that are written down one by one: a line of JSON each, after a first one that states the protocol.

    Use as a context manager: nobody else writes into the folder meanwhile.

    Raises:
        ResultError: the folder holds scores by another protocol, or another process writes there.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, protocol: Protocol, pictures: PictureSet, scores: Scores) -> None:
        super().__init__()
        self.folder = folder
        self.methods: dict[str, dict[str, Any]] = {}
        self._header = {
            "format": FORMAT,
            **protocol.to_dict(),
            **_content(pictures),
            "metrics": ", ".join(scores.loaded),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / JOURNAL
        self._folder_lock = FileLock(folder / ".lock")

    def __enter__(self) -> Journal:
        try:
            self._folder_lock.acquire(timeout=0)
        except Timeout:
            raise ResultError(
                f"{self.folder}: another process writes its scores there; wait, or choose another"
            ) from None
        try:
            self._open()
        except BaseException:
            self._folder_lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._folder_lock.release()

    def _open(self) -> None:
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # a line that a killed run did not finish
        if lines:
            self._load([_parse(line, self._file) for line in lines])
        with whole_or_nothing(self._file) as temporary:
            temporary.write_bytes(b"".join(lines) or _line(self._header))
        self._stream = self._file.open("ab")

    def _load(self, lines: list[dict[str, Any]]) -> None:
        theirs, ours = lines[0], json.loads(_line(self._header))
        changed = [key for key in ours if theirs.get(key) != ours[key]]
        if changed:
            found = "; ".join(f"{key} was {theirs.get(key)}, now {ours[key]}" for key in changed)
            raise ResultError(f"{self.folder} holds scores by another protocol ({found}); choose another folder")
        try:
            for line in lines[1:]:
                self._take_in(line)
        except (KeyError, ValueError, AttributeError) as error:
            raise ResultError(
                f"{self._file} is damaged ({type(error).__name__}: {error}); remove it to score anew"
            ) from error

    def _take_in(self, line: dict[str, Any]) -> None:
        if "spec" in line:
            self.methods[line["method"]] = line
            return
        features = {
            name: torch.from_numpy(np.frombuffer(base64.b64decode(text), np.float32).copy())
            for name, text in line.get("features", {}).items()
        }
        row = Row(line["method"], line["picture"], line["seed"], _numbers(line["values"]), features)
        self.rows[row.key] = row

    def register(self, name: str, method: Method) -> None:
        """Write down what ``name`` stands for.

        Raises:
            ResultError: it stood for something else.
        """
        line = {"method": name, "spec": method.spec, "steps": method.steps, "digest": method.digest}
        known = self.methods.setdefault(name, line)
        if known != line:
            what = "other weights or pictures" if known["spec"] == method.spec else known["spec"]
            raise ResultError(
                f"{self.folder} holds scores of {what} under the name {name}; choose another folder, or name it: "
                f"NAME={method.spec}"
            )
        if known is line:
            self._stream.write(_line(line))
            self._stream.flush()

    def _write(self, row: Row) -> None:
        line: dict[str, Any] = {
            "method": row.method, "picture": row.picture, "seed": row.seed, "values": _writable(row.values),
        }  # fmt: skip
        if row.features:
            line["features"] = {
                name: base64.b64encode(value.numpy().tobytes()).decode() for name, value in row.features.items()
            }
        self._stream.write(_line(line))
        self._stream.flush()


def write_result(
    folder: Path,
    table: Table,
    protocol: Protocol,
    pictures: PictureSet,
    scores: Scores,
    methods: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write result.json and scores.csv into ``folder``, whole or not at all."""
    content = {
        "format": FORMAT,
        "name": folder.absolute().name,
        "dataset": {
            "name": pictures.title,
            "hr": pictures.hr and pictures.hr.name,
            "lr": pictures.lr and pictures.lr.name,
            "degradation": pictures.degradation,
            "pictures": len(pictures),
            "digest": pictures.digest,
        },
        "protocol": protocol.to_dict() | {"statement": protocol.statement(pictures, scores, table.rows)},
        "metrics": {
            metric.name: {
                "better": metric.better,
                "range": list(metric.range),
                "needs": metric.needs,
                "missing": scores.missing.get(metric.name),
            }
            for metric in scores.metrics
        },
        "methods": {
            name: {"spec": method["spec"], "steps": method["steps"], "quoted": False}
            for name, method in methods.items()
        },
        "scores": [
            {"method": row.method, "picture": row.picture, "seed": row.seed, "values": _writable(row.values)}
            for row in table.rows
        ],
        "sets": [{"method": row.method, "seed": row.seed, "values": _writable(row.values)} for row in table.sets],
        "failures": [
            {"method": failure.method, "picture": failure.picture, "reason": failure.reason}
            for failure in table.failures
        ],
    }
    text = io.StringIO()
    columns = [metric.name for metric in scores.metrics if metric.needs != "set"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "picture", "seed", *columns])
    writer.writerows(
        [row.method, row.picture, row.seed, *(row.values.get(c, "") for c in columns)] for row in table.rows
    )
    for name, written in ((RESULT, json.dumps(content, indent=1, ensure_ascii=False) + "\n"), (TABLE, text.getvalue())):
        with whole_or_nothing(folder / name) as temporary:
            temporary.write_text(written, encoding="utf-8", newline="")


def _content(pictures: PictureSet) -> dict[str, object]:
    return {
        "pictures": f"{len(pictures)} of {pictures.title} ({pictures.digest})",
        "degradation": pictures.degradation,
    }


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _parse(line: bytes, file: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ResultError(f"{file} is damaged ({error}); remove it to score anew") from error
    if not isinstance(value, dict):
        raise ResultError(f"{file} is damaged; remove it to score anew")
    return value


def _writable(values: Mapping[str, float]) -> dict[str, float | str]:
    """JSON knows no infinity."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def _numbers(values: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
