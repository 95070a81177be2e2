"""What the commands share: where their errors end, options of several, and how a line is printed."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from tddsr import __version__
from tddsr.errors import TddsrError, UsageError
from tddsr.files import clean_up_when_ended

if TYPE_CHECKING:
    from tddsr.bulk import Result


class _Commands(TyperGroup):
    """Where errors become lines and exit codes: 1 for what could not be done, 2 for a wrong option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(not arg or re.fullmatch(r"--[\w-]+=", arg) for arg in args):  # as a path it would be this folder
            raise typer.BadParameter("an argument is empty, as of a variable that is not set")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TddsrError as error:
            fail(str(error), error.exit_code)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            fail("this needs PyTorch: pip install 'tddsr[torch]'", code=1)
        except BrokenPipeError:  # the reader has seen enough
            raise
        except OSError as error:  # of an output: a full disk, a folder that may not be written to
            fail(f"{error.filename or 'tddsr'}: {error.strerror or error}", code=1)
        except KeyboardInterrupt:
            fail("stopped; where results are kept, the same command goes on from them", code=130)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace outputs that exist")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="say it")] = False,
) -> None:
    """Enlarge small, blurred, noisy or compressed photos four times, in one network pass; and train such networks."""


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """For imports: they make many objects and no garbage, and looking for some takes a twentieth of a start."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def read_tile(value: str) -> int | Literal["auto"] | None:
    """What ``--tile`` says, for ``Upscaler``."""
    if value == "auto" or value == "none":
        return None if value == "none" else "auto"
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--tile is '{value}', not auto, none or a number of pixels")
    return int(value)


def check_suffix(output: Path, suffix: str) -> None:
    """So that a slip of the hand replaces no picture."""
    if output.suffix.lower() != suffix:
        raise UsageError(f"{output}: the output is a {suffix} file")


def tell(
    results: Iterable[Result],
    as_json: bool = False,
    to_stderr: bool = False,
    echo: Callable[..., None] = typer.echo,
    about: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Print results as they come, and a summary of more than one; the exit code is 1 if any failed.

    Lines of JSON, and of what went well, are for stdout unless a picture goes there. ``echo``: as ``typer.echo``.
    ``about``: what is true of all results, for the lines of JSON.
    """
    start, counts = time.perf_counter(), Counter[str]()
    for result in results:
        counts[result.status] += 1
        line = json.dumps({**asdict(result), **about()}) if as_json else printable(result.message)
        echo(line, err=to_stderr or (result.status == "failed" and not as_json))
    summary = {status: counts[status] for status in ("done", "skipped", "failed")}
    if sum(summary.values()) > 1:
        seconds = time.perf_counter() - start
        if as_json:
            echo(json.dumps({"status": "summary", **summary, "seconds": round(seconds, 3), **about()}), err=to_stderr)
        else:
            counted = ", ".join(f"{count} {status}" for status, count in summary.items())
            echo(f"{counted} in {seconds:.1f} s", err=True)
    if counts["failed"]:
        raise typer.Exit(1)


def printable(text: str) -> str:
    """One line that does to a terminal nothing but to be read: a file's name may hold anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def fail(message: str, code: int) -> NoReturn:
    """End the process with a line and an exit code."""
    typer.echo(message, err=True)
    sys.exit(code)


def main() -> None:
    """Run the command line; a wrong option is one line and exit code 2."""
    clean_up_when_ended()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text at all
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tddsr"
        fail(f"{command}: {error.format_message()}", error.exit_code)
    except typer.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
