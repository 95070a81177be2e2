"""The commands about networks: trained, converted, listed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from tddsr import __version__
from tddsr.cli.root import DeviceOption, app, check_suffix, fail
from tddsr.errors import UsageError


@app.command()
def train(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|KEY=VALUE",
            help="recipes by name or path, each from the end of the one before; then keys, as data.batch=16",
        ),
    ],
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="take one step and say what it took")] = False,
) -> None:
    """Train a teacher or distil a student, in one stage or several.

    The same command again goes on from the last checkpoint.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # else its last bit hangs on memory addresses: resuming is exact
    from rich.console import Console

    from tddsr.device import pick_device

    try:
        from tddsr.training import start
        from tddsr.training.load import load_recipes
    except ModuleNotFoundError as error:
        fail(f"training needs the package {error.name}: pip install 'tddsr[train]'", code=1)
    stages = load_recipes([name for name in recipes if "=" not in name], [key for key in recipes if "=" in key])
    if dry_run and len(stages) > 1:
        raise UsageError(f"--dry-run takes one recipe, not {len(stages)}: the later ones start where others end")
    try:
        for recipe in stages:
            run = start.prepare(recipe, pick_device(device), Console())
            typer.echo(start.dry_run(run)) if dry_run else run.run()
    except RuntimeError as error:  # PyTorch's: memory, a full disk, sizes that do not go together
        fail(" ".join(str(error).split()), code=1)


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
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="leave out what sees the noise: one picture, whatever the seed")
    ] = False,
    reach: Annotated[
        int | None, typer.Option(min=1, help="lr pixels that a pixel depends on, as benchmarks/reach.py measured")
    ] = None,
) -> None:
    """Write a model file again, maybe at half the size; the mean of several from one start; or a published one."""
    import torch

    from tddsr.weights import convert as conversion

    check_suffix(output, ".safetensors")
    dtype = torch.float16 if half else torch.float32
    conversion.convert(
        sources, output, autoencoder=autoencoder, known=known, dtype=dtype, deterministic=deterministic, reach=reach
    )
    mean = f", the mean of {len(sources)} models" if len(sources) > 1 else ""
    typer.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB{mean}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="a student, by name or file")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the graph (.onnx)")],
    eight_bit: Annotated[
        bool, typer.Option("--uint8", help="pixels in and out (h,w,3) of 8 bit, instead of (1,3,h,w) in [0,1]")
    ] = False,
    linked: Annotated[
        bool, typer.Option("--linked", help="leave the weights in the model file, beside which the graph must lie")
    ] = False,
) -> None:
    """Write a model as an ONNX graph of any height and width, for --engine onnx and for other programs."""
    try:
        from tddsr.engines import export as exporting
    except ModuleNotFoundError as error:
        fail(f"exporting needs the package {error.name}: pip install 'tddsr[export]'", code=1)
    check_suffix(output, ".onnx")
    done = exporting.export(model, output, pixels="uint8" if eight_bit else "float32", linked=linked)
    noise = "with noise as its second input" if done.graph.noise else "without noise, which it hardly sees"
    apart = f"at most {255 * done.difference:.2f} of 255 from PyTorch's pixels"
    typer.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {noise}, {apart}")


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
