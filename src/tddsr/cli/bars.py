"""Bars on a terminal: how many pictures are done, and how many tiles of the one at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tddsr.cli.root import printable

if TYPE_CHECKING:
    from tddsr.bulk import Result


class Bars:
    """On standard error, while the block lasts; ``pictures``: how many there will be."""

    def __init__(self, pictures: int) -> None:
        self.total = pictures
        text = TextColumn("{task.description}", markup=False)
        columns = text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self.everything = self.progress.add_task("pictures", total=pictures, visible=pictures > 1)
        self.tiles = self.progress.add_task("tiles", total=None, visible=False)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, name: str) -> Callable[[int, int], None]:
        """A picture; what is returned is called with (tiles done, tiles in all)."""
        self.progress.reset(self.tiles, description=printable(name), visible=True)
        return lambda done, total: self.progress.update(self.tiles, completed=done, total=total)

    def track(self, results: Iterable[Result]) -> Iterable[Result]:
        """The same, counted."""
        return self.progress.track(results, self.total, task_id=self.everything)

    def line(self, text: str) -> None:
        """Print above the bars."""
        self.progress.console.out(text, highlight=False)
