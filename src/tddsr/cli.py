"""The commands: they read options, call the library and print. Heavy imports wait until a command runs."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from tddsr import __version__
from tddsr.errors import TddsrError, UsageError
from tddsr.files import clean_up_when_ended


class _Commands(TyperGroup):
    """Where errors become lines and exit codes: 1 for what could not be done, 2 for a wrong option."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TddsrError as error:
            _fail(str(error), error.exit_code)
        except BrokenPipeError:  # the reader has seen enough
            raise
        except OSError as error:  # of an output: a full disk, a folder that may not be written to
            _fail(f"{error.filename or 'tddsr'}: {error.strerror or error}", code=1)
        except KeyboardInterrupt:
            _fail("stopped; where results are kept, the same command goes on from them", code=130)


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


def _tile(value: str) -> int | Literal["auto"] | None:
    if value == "auto" or value == "none":
        return None if value == "none" else "auto"
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--tile is '{value}', not auto, none or a number of pixels")
    return int(value)


@app.command()
def upscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="pictures and folders")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="file or folder/, else beside IN")] = None,
    scale: Annotated[float, typer.Option(min=1, max=8, help="how many times as large")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="chooses the noise")] = 0,
    model: Annotated[str, typer.Option(help="compact, compact-small (faster), sinsr .. or a model file")] = "compact",
    steps: Annotated[int | None, typer.Option(min=1, help="evaluations; by default the model's own number")] = None,
    sampler: Annotated[Literal["deterministic", "stochastic"], typer.Option(help="with many steps")] = "deterministic",
    device: DeviceOption = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="half precision is for accelerators")
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the network, for many pictures")] = False,
    tile: Annotated[str, typer.Option(help="auto, none, or the side of a tile in input pixels")] = "auto",
    overwrite: OverwriteOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="one line of JSON for each picture")] = False,
) -> None:
    """Enlarge pictures. A picture that fails is reported, the others go on, and the exit code is 1."""
    from rich.console import Console
    from rich.progress import Progress

    from tddsr import bulk
    from tddsr.upscaler import Upscaler, made_from, output_path

    upscaler = Upscaler.load(model, device=device, dtype=dtype, tile=_tile(tile), compiled=compiled)
    if steps is not None:
        upscaler.engine.check_steps(steps)
    jobs = bulk.plan(inputs, output, lambda p: output_path(p, scale), folder_tag=f"_x{scale:g}", made_from=made_from)

    console = Console(stderr=True)
    failed = False
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        everything = progress.add_task("pictures", total=len(jobs), visible=len(jobs) > 1)
        tiles = progress.add_task("tiles")

        def enlarge(source: Path, target: Path) -> None:
            progress.reset(tiles, description=source.name)
            upscaler(
                source, output=target, scale=scale, seed=seed, steps=steps, sampler=sampler,
                progress=lambda done, total: progress.update(tiles, completed=done, total=total),
            )  # fmt: skip

        for result in bulk.run(jobs, enlarge, overwrite):
            progress.advance(everything)
            failed |= _say(result, as_json)
    if failed:
        raise typer.Exit(1)


@app.command()
def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="HR...", help="sharp pictures and folders")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the pairs: DIR/hr and DIR/lr")],
    seed: Annotated[int, typer.Option(min=0, help="chooses the degradation of each picture")] = 0,
    preset: Annotated[str, typer.Option(help="resshift, realesrgan, clean, web, film ..")] = "resshift",
    overwrite: OverwriteOption = False,
) -> None:
    """Write pairs for training and testing: the sharp picture (cropped to a multiple of 4) and a bad small one."""
    from tddsr import bulk
    from tddsr.degradation.files import degrade_file
    from tddsr.degradation.presets import Degradation, choose_presets

    (name,) = choose_presets(preset, most=1)
    settings = Degradation.preset(name)
    pairs = (output / "hr", output / "lr")
    jobs = bulk.plan(
        inputs, pairs[0], lambda path: path.with_suffix(".png"), exclude=pairs,
        partner=lambda hr: pairs[1] / hr.relative_to(pairs[0]),
    )  # fmt: skip

    def write_pair(source: Path, target: Path) -> None:
        degrade_file(source, output, target.relative_to(pairs[0]), settings, seed)

    failed = [_say(result) for result in bulk.run(jobs, write_pair, overwrite)]
    if any(failed):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="name or path of a recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. data.batch=16")] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="take one step, keep nothing, say what it took")] = False,
) -> None:
    """Train a teacher or distil a student. The same command again goes on from the last checkpoint."""
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # else its last bit hangs on memory addresses: resuming is exact
    from rich.console import Console

    from tddsr.device import pick_device
    from tddsr.training.load import load_recipe

    try:
        from tddsr.training import start
    except ModuleNotFoundError as error:
        _fail(f"training needs the package {error.name}: pip install 'tddsr[train]'", code=1)
    try:
        run = start.prepare(load_recipe(recipe, overrides or []), pick_device(device), Console())
        typer.echo(start.dry_run(run)) if dry_run else run.run()
    except RuntimeError as error:  # PyTorch's: memory, a full disk, sizes that do not go together
        _fail(" ".join(str(error).split()), code=1)


@app.command()
def recipes(
    keys: Annotated[bool, typer.Option("--keys", help="all that a recipe may say, as Markdown")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="the same as a JSON schema, for editors")] = False,
) -> None:
    """List the recipes that `tddsr train` has by name, where each is from, and what it is."""
    from tddsr.training import load, reference

    if keys:
        typer.echo(reference.page())
    elif schema:
        typer.echo(json.dumps(reference.schema(), indent=1))
    else:
        for name, where, what in load.catalogue():
            typer.echo(f"{name:26} {where:16} {what}")


@app.command()
def convert(
    sources: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="models by name or file, or one published checkpoint (.pth)")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="the new file (.safetensors)")],
    half: Annotated[bool, typer.Option("--half", help="store the weights in 16 bit: half the size")] = False,
    autoencoder: Annotated[
        Path | None, typer.Option(help="of a published network; without it, the published one is downloaded")
    ] = None,
    known: Annotated[
        str | None,
        typer.Option("--as", help="as realesrgan-x4plus, resshift, resshift-v1, -v2, sinsr or sinsr-v2"),
    ] = None,
) -> None:
    """Write a model file again, maybe at half the size; the mean of several from one start; or a published one."""
    import torch

    from tddsr.weights import convert as conversion

    _check_suffix(output, ".safetensors")
    dtype = torch.float16 if half else torch.float32
    conversion.convert(sources, output, autoencoder=autoencoder, known=known, dtype=dtype)
    mean = f", the mean of {len(sources)} models" if len(sources) > 1 else ""
    typer.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB{mean}")


@app.command(name="eval")
def evaluate(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD...",
            help="nearest, bilinear, bicubic, lanczos; MODEL, MODEL@STEPS or MODEL@STEPS:stochastic; spandrel:FILE; "
            "NAME=FOLDER of finished pictures; NAME=any of these",
        ),
    ],
    hr: Annotated[Path | None, typer.Option(help="folder of true pictures; without it, nothing is compared")] = None,
    lr: Annotated[Path | None, typer.Option(help="folder of lr pictures; without it, those of --hr, degraded")] = None,
    preset: Annotated[
        str, typer.Option(help="of the degradation; of several, with commas between, the table has them all")
    ] = "resshift",
    seed: Annotated[int, typer.Option(min=0, help="of the degradation")] = 0,
    metrics: Annotated[list[str] | None, typer.Option(help="names, or all; by default the usual five")] = None,
    border: Annotated[int, typer.Option(min=0, help="pixels at each edge that PSNR and SSIM leave out")] = 0,
    colour: Annotated[Literal["y", "rgb"], typer.Option(help="what PSNR and SSIM look at")] = "y",
    seeds: Annotated[int, typer.Option(min=1, help="noise seeds to average over")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many pictures")] = None,
    crop: Annotated[int | None, typer.Option(min=32, help="score only the centre, so many hr pixels square")] = None,
    part: Annotated[tuple[float, float], typer.Option(help="shares of --hr, from and to, as data.part")] = (0, 1),
    side: Annotated[int | None, typer.Option(min=32, help="reduce --hr to this shorter side, then degrade")] = None,
    tile: Annotated[str, typer.Option(help="auto, none, or the side of a tile in input pixels")] = "auto",
    features: Annotated[Path | None, typer.Option(help="folder of the weights that metrics need")] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=1, help="pictures at a time")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder for the scores, from which the same command goes on")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="keep the pictures, too, in the folder of --output")] = False,
) -> None:
    """Score methods, against true pictures or without; prints a Markdown table and the protocol."""
    if crop is not None and crop % 4:
        raise UsageError(f"--crop is {crop}; it must be a multiple of 4")
    if save and output is None:
        raise UsageError("--save needs --output, the folder to keep the pictures in")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tddsr.degradation.presets import choose_presets
    from tddsr.device import pick_device
    from tddsr.evaluation import run
    from tddsr.evaluation.methods import find_methods
    from tddsr.evaluation.pictures import find_pictures
    from tddsr.evaluation.results import Protocol, Result, markdown, problems
    from tddsr.metrics.table import Setting, choose, load_scores

    where, chosen_tile, presets = pick_device(device), _tile(tile), choose_presets(preset)
    names = [name for value in metrics or [] for name in value.replace(",", " ").split()]
    chosen = choose(names, truth=hr is not None)
    if lr is not None and len(presets) > 1:
        raise UsageError(f"--preset {preset} is for --hr that is degraded: leave it or --lr away")
    protocol = Protocol(crop=crop, border=border, colour=colour, tile=chosen_tile, seeds=seeds, device=where.type)
    sets = {name: find_pictures(hr, lr, name, seed, limit, crop, part, side) for name in presets}
    methods, unavailable = find_methods(specs, where, chosen_tile)
    ready = load_scores(chosen, Setting(colour, border, features, where))
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    results: dict[str, Result] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("outputs", total=sum(map(len, sets.values())) * len(methods))
        for title, pictures in sets.items():
            results[title] = run.evaluate(
                methods, pictures, ready, protocol, output / title if output and len(sets) > 1 else output,
                save=save, unavailable=unavailable, workers=workers, progress=lambda: progress.advance(bar),
            )  # fmt: skip
    failed = list(problems(results))
    for problem in failed:
        typer.echo(problem, err=True)
    typer.echo(markdown(results))
    for result in results.values():
        typer.echo(f"\n{result.protocol.statement}")
    if failed:
        raise typer.Exit(1)


BudgetOption = Annotated[float, typer.Option(min=0.1, help="MB that the embedded pictures may take together")]


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="folders that eval -o wrote")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of report.html and report.md")],
    title: Annotated[str, typer.Option(help="of the page")] = "Scores",
    pictures: Annotated[int, typer.Option(min=0, help="crops of at most so many pictures a data set")] = 4,
    budget: BudgetOption = 8,
) -> None:
    """Gather results on one page: tables, how sure they are, the protocol, and crops to compare by hand."""
    from tddsr.report.build import by_data_set, write_report
    from tddsr.report.tables import Source

    groups = by_data_set([Source.read(folder) for folder in results])
    for path in write_report(groups, output, title, pictures, int(budget * 1e6)):
        typer.echo(path)


@app.command()
def compare(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="A B...", help="pictures of one scene, or folders with the same names")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="the page (.html)")],
    names: Annotated[str | None, typer.Option(help="what to call them, with commas between")] = None,
    limit: Annotated[int, typer.Option(min=1, help="of folders, at most so many pictures")] = 12,
    budget: BudgetOption = 20,
) -> None:
    """Write a page with a slider between pictures. Sizes may differ by a whole factor: small ones are enlarged."""
    from tddsr.report import crops, page

    _check_suffix(output, ".html")
    called = [name.strip() for name in names.split(",")] if names else crops.labels(inputs)
    if len(inputs) < 2 or len(called) != len(inputs):
        raise UsageError(
            f"compare needs two inputs or more, and a name for each: {len(inputs)} and {len(called)} given"
        )
    shown, total = crops.compare(inputs, called, limit, int(budget * 1e6))
    note = f"The first {len(shown)} of {total} pictures." if len(shown) < total else ""
    page.write(output, page.comparison(f"{', '.join(called[:-1])} and {called[-1]}", shown, note))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="one line of JSON for each model")] = False,
) -> None:
    """List the models that have a name: where their weights are, how large, under which licence, and what for."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from tddsr.weights.names import list_models

    table = Table("name", "weights", "size", "licence", "purpose", box=None)
    table.columns[0].no_wrap = True
    for model in list_models():
        if as_json:
            typer.echo(json.dumps(asdict(model)))
        size = "unknown" if model.size is None else decimal(model.size)
        table.add_row(model.name, model.where, size, model.licence, model.purpose)
    if not as_json:
        Console().print(table)


@app.command()
def info() -> None:
    """Print versions, devices and folders, to paste into a report of a fault."""
    from tddsr.device import describe

    for name, value in {"tddsr": __version__, **describe()}.items():
        typer.echo(f"{name}: {value}")


def _check_suffix(output: Path, suffix: str) -> None:
    """So that a slip of the hand replaces no picture."""
    if output.suffix.lower() != suffix:
        raise UsageError(f"{output}: the output is a {suffix} file")


def _say(result: Any, as_json: bool = False) -> bool:
    """Print a ``bulk.Result``; whether it failed."""
    failed = result.status == "failed"
    typer.echo(json.dumps(result.to_dict()) if as_json else result.message, err=failed and not as_json)
    return bool(failed)


def _fail(message: str, code: int) -> NoReturn:
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
        _fail(f"{command}: {error.format_message()}", error.exit_code)
    except typer.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
