"""Published models that are known by name: where their files are, under which licence, and how they were trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from tddsr.errors import ModelError
from tddsr.model import ModelConfig, Role, ScheduleConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.networks.rrdb import RRDBConfig
from tddsr.weights.download import cache_folder, download, forget
from tddsr.weights.file import write_autoencoder, write_model
from tddsr.weights.recognise import Published, read_published


@dataclass(frozen=True)
class Licence:
    """Under which terms somebody else's weights may be used; ``terms`` is our summary, the text at ``url`` holds."""

    name: str
    url: str
    terms: str


@dataclass(frozen=True)
class PublishedFile:
    """A file of a release; ``size`` in bytes and ``sha256`` where they are known."""

    url: str
    licence: Licence
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublishedModel:
    """A network's file and what its shapes do not tell; ``latent``: whether it needs ``AUTOENCODER`` beside."""

    file: PublishedFile
    role: Role
    schedule: ScheduleConfig
    latent: bool = True


S_LAB = Licence(
    "NTU S-Lab License 1.0",
    "https://github.com/zsyOAOA/ResShift/blob/master/LICENSE",
    "Use and redistribution, changed or not, for non-commercial purposes alone; redistributions keep the copyright "
    "notice, the conditions and the disclaimer; no endorsement with the authors' names; no warranty. Commercial use "
    "needs the authors' permission.",
)
CC_BY_NC_SA = Licence(
    "CC BY-NC-SA 4.0",
    "https://github.com/wyf0912/SinSR/blob/main/LICENSE",
    "Copyright (c) 2023 Yufei Wang. 'For academic research use only': non-commercial, with attribution, and what is "
    "made of it under the same licence; no warranty. Parts are licensed by ResShift (NTU S-Lab License 1.0, "
    "non-commercial).",
)

BSD_3 = Licence(
    "BSD 3-Clause",
    "https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE",
    "Copyright (c) 2021, Xintao Wang. Use and redistribution, changed or not, with the copyright notice, the "
    "conditions and the disclaimer; no endorsement with the authors' names; no warranty.",
)

_REALESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/"
_RESSHIFT = "https://github.com/zsyOAOA/ResShift/releases/download/v2.0/"
_SINSR = "https://github.com/wyf0912/SinSR/releases/download/v1.0/"

AUTOENCODER = PublishedFile(
    _RESSHIFT + "autoencoder_vq_f4.pth",
    S_LAB,
    size=221364711,
    sha256="e967eaa2c380152811c53e312990d6967a8a957c4f7590f19490ec72110b2889",
)

_FIFTEEN = ScheduleConfig(steps=15, kappa=2, power=0.3, min_noise=0.04)
_FOUR = ScheduleConfig(steps=4, kappa=2, power=0.3, min_noise=0.2)

_ONE = ScheduleConfig(steps=1)
"""Of a network that sees neither x_t nor t."""

MODELS = {
    "realesrgan-x4plus": PublishedModel(
        PublishedFile(
            _REALESRGAN + "RealESRGAN_x4plus.pth",
            BSD_3,
            size=67040989,
            sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        ),
        "teacher",
        _ONE,
        latent=False,
    ),
    "resshift": PublishedModel(
        PublishedFile(
            _RESSHIFT + "resshift_realsrx4_s4_v3.pth",
            S_LAB,
            size=477917058,
            sha256="878da888bbbe10b8b0d4ff179c2de3059fd8a4cf2c705942a77a7f3b23ea1efd",
        ),
        "teacher",
        _FOUR,
    ),
    "resshift-v1": PublishedModel(
        PublishedFile(_RESSHIFT + "resshift_realsrx4_s15_v1.pth", S_LAB), "teacher", _FIFTEEN
    ),
    "resshift-v2": PublishedModel(
        PublishedFile(_RESSHIFT + "resshift_realsrx4_s15_v2.pth", S_LAB), "teacher", _FIFTEEN
    ),
    "sinsr": PublishedModel(PublishedFile(_SINSR + "SinSR_v1.pth", CC_BY_NC_SA), "student", _FIFTEEN),
    "sinsr-v2": PublishedModel(PublishedFile(_SINSR + "SinSR_v2.pth", CC_BY_NC_SA), "student", _FIFTEEN),
}
"""By name: Real-ESRGAN x4plus; ResShift v3 (4 steps), v1 and v2 (15 steps); SinSR as scored on RealSet65 and,
v2, on RealSR."""

UNPUBLISHED = {"tddsr-paper": "its authors published no weights; train it: tddsr train realsr"}
"""Models that users may ask for by name, and why they cannot be had."""


def fetch(file: PublishedFile, folder: Path | None = None) -> Path:
    """``file`` in ``folder``, by default the cache: downloaded once, verified each time.

    Its licence is shown on stderr before it is downloaded.

    Raises:
        ModelError: it cannot be had, or is not the published file.
    """
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bars:  # fmt: skip
        bar = bars.add_task(file.name, total=file.size, visible=False)

        def before() -> None:
            notice = f"{file.name}: not part of tddsr, downloaded from {file.url}"
            sys.stderr.write(f"{notice}\n  licence: {file.licence.name}, {file.licence.url}\n  {file.licence.terms}\n")

        return download(
            file.url,
            (folder or cache_folder()) / file.name,
            size=file.size,
            sha256=file.sha256,
            before=before,
            progress=lambda done, total: bars.update(bar, completed=done, total=total, visible=True),
        )


def convert_published(
    source: Path,
    output: Path,
    *,
    autoencoder: Path | None = None,
    known: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the published checkpoint ``source`` as a file of ours.

    Args:
        source: a Swin U-Net or RRDBNet, which becomes a model file; or a VQ autoencoder, which becomes a file for
            ``autoencoder``.
        output: a safetensors file.
        autoencoder: of a network: a published checkpoint or a converted one; by default the registered one, fetched.
        known: as which of the registered ``MODELS`` the network was trained; by default as its file's name says.
        dtype: of the weights in the file; integer buffers stay as they are.

    Raises:
        ModelError: a file that does not fit, or it is not known how the network was trained.
        OSError: ``output`` cannot be written.
    """
    read = read_published(source)
    if isinstance(read.config, VQConfig):
        if known or autoencoder:
            raise ModelError(f"{source} is an autoencoder, which is converted alone: leave the other options away")
        write_autoencoder(read.config, read.weights, output, dtype, _note(source))
        return
    name = known or next((name for name, model in MODELS.items() if model.file.name == source.name), None)
    if name not in MODELS:
        raise ModelError(
            f"{f'{name!r} is no registered model' if name else f'{source} does not tell how it was trained'}: "
            f"choose --as {', '.join(MODELS)}"
        )
    model = MODELS[name]
    if isinstance(read.config, RRDBConfig):
        if autoencoder or model.latent:
            raise ModelError(
                f"{source} is an RRDBNet, which has no autoencoder: --as realesrgan-x4plus, without --autoencoder"
            )
        config = ModelConfig(role=model.role, network=read.config, schedule=model.schedule)
        write_model(config, read.weights, {}, output, dtype, _note(source, model.file.licence))
        return
    if not model.latent:
        raise ModelError(f"{source} is a Swin U-Net, not the network of {name}")
    place = autoencoder or fetch(AUTOENCODER)
    space = _space(place, read.channels)
    config = ModelConfig(role=model.role, network=read.config, space=space.config, schedule=model.schedule)
    write_model(
        config, read.weights, space.weights, output, dtype, f"{_note(source, model.file.licence)}; {_note(place)}"
    )


def have_model(name: str) -> Path:
    """The model file of a registered model: fetched and converted the first time, then from the cache.

    Raises:
        ModelError: a file cannot be had, or is not what it should be.
    """
    path = cache_folder() / f"{name}.safetensors"
    if path.is_file():  # always whole; and a cache may be read-only
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():  # nobody else was faster
                _make(name, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _make(name: str, path: Path) -> None:
    """Fetch both files first, so that whatever fails after that is the fault of the network's."""
    file = MODELS[name].file
    source, autoencoder = fetch(file), fetch(AUTOENCODER) if MODELS[name].latent else None
    try:
        convert_published(source, path, autoencoder=autoencoder, known=name)
    except ModelError as error:
        if file.sha256 is not None:
            raise
        forget(source)  # without a known hash, what came may have been a hotspot's page of welcome
        raise ModelError(f"{error}; it was deleted: try again, or look what {file.url} gives") from error


def _space(path: Path, channels: int) -> Published:
    space = read_published(path)
    if not isinstance(space.config, VQConfig):
        raise ModelError(f"{path} is not an autoencoder but a network")
    factor = 1 << (len(space.config.multiples) - 1)
    if (factor, space.channels) != (4, channels):
        raise ModelError(
            f"{path} codes pictures at 1/{factor} of their size in {space.channels} channels; "
            f"the network needs 1/4 and {channels}"
        )
    return space


def _note(path: Path, licence: Licence | None = None) -> str:
    """Where weights come from and, where it is known, their licence, which goes wherever they go."""
    found = licence or (AUTOENCODER.licence if path.name == AUTOENCODER.name else None)
    return f"from {path.name}" + (f", {found.name} ({found.url})" if found else "")
