"""The journal of an evaluation, from which it goes on: a line of JSON for each score, as soon as there is one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError

from tddsr.errors import ResultError
from tddsr.evaluation.methods import Method
from tddsr.evaluation.results import MethodInfo, Score, first_problem
from tddsr.files import whole_or_nothing

JOURNAL = "journal.jsonl"


def _from_text(value: object) -> object:
    return np.frombuffer(base64.b64decode(value), np.float32).tobytes() if isinstance(value, str) else value


Vector = Annotated[
    bytes,
    BeforeValidator(_from_text),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json"),
]
"""(C) float32; base64 in JSON."""


class PictureScore(Score):
    """A line of the journal: a picture's scores, and what the result leaves out: features for each metric of sets."""

    picture: str
    features: dict[str, Vector] = Field({})


class NamedMethod(MethodInfo):
    """A line of the journal: what the name of a method stands for."""

    method: str


Line = NamedMethod | PictureScore
_HEADER = TypeAdapter(dict[str, Any])
_LINE: TypeAdapter[Line] = TypeAdapter(Line)


class Journal:
    """All methods and scores so far; with a ``stream`` each is also written there as it comes."""

    def __init__(
        self, folder: Path | None = None, written: Iterable[Line] = (), stream: BinaryIO | None = None
    ) -> None:
        self.scores: dict[tuple[str, str, int], PictureScore] = {}
        self.methods: dict[str, NamedMethod] = {}
        self._folder = folder
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()
        for line in written:
            self.add(line)
        self._stream = stream

    def add(self, line: Line) -> None:
        """Take in a line, and write it."""
        with self._lock:
            if isinstance(line, NamedMethod):
                self.methods[line.method] = line
            else:
                self.scores[line.method, line.picture, line.seed] = line
            if self._stream is not None:
                self._stream.write(line.model_dump_json(exclude_defaults=True).encode() + b"\n")
                self._stream.flush()

    def register(self, methods: Mapping[str, Method]) -> None:
        """Write down what the names stand for.

        Raises:
            ResultError: one stood for something else.
        """
        for name, method in methods.items():
            line = NamedMethod(method=name, spec=method.spec, steps=method.steps, digest=method.digest)
            if (known := self.methods.get(name)) is None:
                self.add(line)
            elif known != line:
                what = "other weights or pictures" if known.spec == line.spec else known.spec
                raise ResultError(
                    f"{self._folder} holds scores of {what} under the name {name}; choose another folder, or name it: "
                    f"NAME={line.spec}"
                )


@contextmanager
def open_journal(folder: Path, header: Mapping[str, object]) -> Iterator[Journal]:
    """The journal in ``folder``, which is made; nobody else writes there meanwhile.

    ``header`` is its first line: whatever the scores depend on, apart from the methods.

    Raises:
        ResultError: the journal has another header or is damaged, or another process writes there.
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise ResultError(f"{folder}: another process writes its scores there; wait, or choose another") from None
    with held:
        file = folder / JOURNAL
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # a line that a killed run did not finish
        known = _read(file, lines, header) if lines else []
        with whole_or_nothing(file) as temporary:
            temporary.write_bytes(b"".join(lines) or (json.dumps(header, ensure_ascii=False) + "\n").encode())
        with file.open("ab") as stream:
            yield Journal(folder, known, stream)


def _read(file: Path, lines: Sequence[bytes], header: Mapping[str, object]) -> list[Line]:
    try:
        theirs = _HEADER.validate_json(lines[0])
        if changed := [key for key in header if theirs.get(key) != header[key]]:
            found = "; ".join(f"{key} was {theirs.get(key)}, now {header[key]}" for key in changed)
            raise ResultError(f"{file.parent} holds scores by another protocol ({found}); choose another folder")
        return [_LINE.validate_json(line) for line in lines[1:]]
    except ValidationError as error:
        raise ResultError(f"{file} is damaged ({first_problem(error)}); remove it to score anew") from error
