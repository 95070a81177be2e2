"""The commands that make pictures of pictures."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tddsr.cli.root import OverwriteOption, app, read_tile, tell, without_collection
from tddsr.errors import UsageError

if TYPE_CHECKING:
    from tddsr.cli.bars import Bars


@app.command()
def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="pictures and folders; - is standard input", readable=False)
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="file, folder/ or - (standard output), else beside IN")
    ] = None,
    scale: Annotated[float | None, typer.Option(min=1, max=8, help="how many times as large; by default 4")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="of the result in pixels, instead of --scale")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="of the result in pixels, instead of --scale")] = None,
    max_side: Annotated[int | None, typer.Option(min=1, help="its width or height, whichever is longer")] = None,
    seed: Annotated[int, typer.Option(min=0, help="chooses the noise; the shipped models see none")] = 0,
    model: Annotated[str, typer.Option(help="compact, compact-small (faster), sinsr .. or a model file")] = "compact",
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0 is faithful, 1 as sharp as the model; between: weights between")
    ] = 1,
    faithful: Annotated[
        str | None, typer.Option(help="model of the same network for a --strength below 1, if none comes with --model")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="evaluations; by default the model's own number")] = None,
    sampler: Annotated[Literal["deterministic", "stochastic"], typer.Option(help="with many steps")] = "deterministic",
    engine: Annotated[
        Literal["auto", "onnx", "torch"],
        typer.Option(help="ONNX Runtime, or PyTorch for other models than shipped"),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, directml, coreml, openvino")] = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="bfloat16 where PyTorch and the machine have it")] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="half precision is for accelerators")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the network, for many pictures")] = False,
    tile: Annotated[str, typer.Option(help="auto, none, or the side of a tile in input pixels")] = "auto",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="leave out EXIF and all else but the colour profile")
    ] = False,
    largest_input: Annotated[
        float | None, typer.Option(min=0.1, help="million pixels; what claims more is refused; by default 178")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON for each picture, and a summary")] = False,
) -> None:
    """Enlarge pictures. A picture that fails is reported, the others go on, and the exit code is 1."""
    with without_collection():
        from tddsr import bulk
        from tddsr.engines.engine import describe
        from tddsr.pictures.frames import count_pictures
        from tddsr.pictures.sizes import Size, made_from, output_path
        from tddsr.upscaler import Upscaler

    sizes = {"--scale": scale, "--width": width, "--height": height, "--max-side": max_side}
    if len(given := [name for name, value in sizes.items() if value is not None]) > 1:
        raise UsageError(f"{' and '.join(given)}: each says how large the result is; give one")
    if faithful is not None and strength == 1:
        raise UsageError(f"--faithful {faithful} does nothing at a --strength of 1: give one below")
    size = Size(scale or 4, width, height, max_side)
    jobs = bulk.plan(inputs, output, lambda p: output_path(p, size), folder_tag=f"_{size.tag}", made_from=made_from)
    to_stdout = any(job.output == bulk.STREAM for job in jobs)
    if (to_stdout and sys.stdout is None) or (bulk.STREAM in inputs and sys.stdin is None):
        raise UsageError("standard input or output, which - is, is closed")
    if to_stdout and sys.stdout.isatty():
        raise UsageError("standard output is a terminal, which shows no picture: > FILE, | COMMAND or -o FILE")
    if bulk.STREAM in inputs and sys.stdin.isatty():
        raise UsageError("standard input is a terminal, which sends no picture: < FILE or COMMAND |")
    upscaler = Upscaler.load(
        model, strength=strength, faithful=faithful, engine=engine, device=device, dtype=dtype, fast=fast,
        tile=read_tile(tile), compiled=compiled,
    )  # fmt: skip
    if steps is not None:
        upscaler.engine.check_steps(steps)

    live = sys.stderr.isatty() and not as_json
    with _bars(len(jobs)) if live else contextlib.nullcontext() as bars:

        def enlarge(source: Path, target: Path) -> int:
            picture: Any = source
            if bulk.STREAM in (source, target):
                picture = sys.stdin.buffer.read() if source == bulk.STREAM else source.read_bytes()
            large = upscaler(
                picture, **asdict(size), seed=seed, steps=steps, sampler=sampler, strip_metadata=strip_metadata,
                largest_input=largest_input, output=None if target == bulk.STREAM else target,
                progress=bars.begin(source.name) if bars else None,
            )  # fmt: skip
            if target == bulk.STREAM:
                sys.stdout.buffer.write(large)
                sys.stdout.buffer.flush()
            return count_pictures(large if target == bulk.STREAM else target)

        def echo(message: str, *, err: bool) -> None:
            if bars and (err or sys.stdout.isatty()):
                bars.line(message)
            else:
                typer.echo(message, err=err)

        results = bulk.run(jobs, enlarge, overwrite)
        shown = bars.track(results) if bars else results
        told = {"strength": strength}
        tell(shown, as_json, to_stderr=to_stdout, echo=echo, about=lambda: {**describe(upscaler.engine), **told})


def _bars(pictures: int) -> Bars:
    from tddsr.cli.bars import Bars  # who looks at no terminal need not wait for rich

    return Bars(pictures)


@app.command()
def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="HR...", help="sharp pictures and folders", readable=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the pairs: DIR/hr and DIR/lr")],
    seed: Annotated[int, typer.Option(min=0, help="chooses the degradation of each picture")] = 0,
    preset: Annotated[
        str, typer.Option(help="resshift, realesrgan, resshift-test, clean, blurred, web or film")
    ] = "resshift",
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

    tell(bulk.run(jobs, write_pair, overwrite))
