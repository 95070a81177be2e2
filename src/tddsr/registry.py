"""Published models that are known by name: where their files are, under which licence, and how they were trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tddsr.download import cache_folder, download
from tddsr.model import Role, ScheduleConfig


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
        CheckpointError: it cannot be had, or is not the published file.
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
