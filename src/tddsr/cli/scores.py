"""The commands that judge pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tddsr.cli.root import DeviceOption, app, check_suffix, read_tile
from tddsr.errors import UsageError


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
    border: Annotated[int, typer.Option(min=0, help="pixels at each edge that PSNR and (MS-)SSIM leave out")] = 0,
    colour: Annotated[Literal["y", "rgb"], typer.Option(help="what PSNR and (MS-)SSIM look at")] = "y",
    seeds: Annotated[int, typer.Option(min=1, help="noise seeds to average over, where noise changes pictures")] = 3,
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

    where, chosen_tile, presets = pick_device(device), read_tile(tile), choose_presets(preset)
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

    check_suffix(output, ".html")
    called = [name.strip() for name in names.split(",")] if names else crops.labels(inputs)
    if len(inputs) < 2 or len(called) != len(inputs):
        raise UsageError(
            f"compare needs two inputs or more, and a name for each: {len(inputs)} and {len(called)} given"
        )
    shown, total = crops.compare(inputs, called, limit, int(budget * 1e6))
    note = f"The first {len(shown)} of {total} pictures." if len(shown) < total else ""
    page.write(output, page.comparison(f"{', '.join(called[:-1])} and {called[-1]}", shown, note))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
