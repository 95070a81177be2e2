"""A page in one file: templates, style and script put together, nothing left to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tddsr import __version__
from tddsr.files import whole_or_nothing
from tddsr.report.crops import View


def _plain_markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(str(text).split())
    for character in "\\`*_[]|":
        line = line.replace(character, f"\\{character}")
    return line.replace("<", "&lt;")


def render(template: str, **values: object) -> str:
    """Fill a template of this package; in ``.html`` everything that is put in is escaped."""
    environment = Environment(
        loader=PackageLoader("tddsr.report"),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _plain_markdown
    return environment.get_template(template).render(version=__version__, **values)


def write(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def comparison(title: str, views: Sequence[View], note: str) -> str:
    """The page of ``tddsr compare``."""
    return render("compare.html", title=title, views=views, note=note)
