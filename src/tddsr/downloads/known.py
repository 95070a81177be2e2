"""Files that other people published: where they are, how they are told, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Under which terms somebody else's weights may be used; ``terms`` is our summary, the text at ``url`` holds."""

    name: str
    url: str
    terms: str


@dataclass(frozen=True)
class PublishedFile:
    """A file of a release; ``size`` in bytes and ``sha256`` where they are known.

    ``saved_as`` is its name here and on a mirror, where its own says nothing.
    """

    url: str
    licence: Licence
    size: int | None = None
    sha256: str | None = None
    saved_as: str = ""

    @property
    def name(self) -> str:
        return self.saved_as or self.url.rpartition("/")[2]


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
_BSD = (
    "Use and redistribution, changed or not, with the copyright notice, the conditions and the disclaimer; no "
    "endorsement with the authors' names; no warranty."
)
_REALESRGAN_BSD = Licence(
    "BSD 3-Clause",
    "https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE",
    f"Copyright (c) 2021, Xintao Wang. {_BSD}",
)
_TORCHVISION_BSD = Licence(
    "BSD 3-Clause",
    "https://github.com/pytorch/vision/blob/main/LICENSE",
    f"Copyright (c) Soumith Chintala 2016. {_BSD} Trained on ImageNet, whose pictures are for research.",
)
_DINO_APACHE = Licence(
    "Apache-2.0",
    "https://huggingface.co/facebook/dino-vits16",
    "Use and redistribution, changed or not, with the licence and a note of changes; no warranty.",
)

_RESSHIFT = "https://github.com/zsyOAOA/ResShift/releases/download/v2.0/"
_SINSR = "https://github.com/wyf0912/SinSR/releases/download/v1.0/"

REALESRGAN_X4PLUS = PublishedFile(
    "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth",
    _REALESRGAN_BSD,
    size=67040989,
    sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
)
AUTOENCODER = PublishedFile(
    _RESSHIFT + "autoencoder_vq_f4.pth",
    S_LAB,
    size=221364711,
    sha256="e967eaa2c380152811c53e312990d6967a8a957c4f7590f19490ec72110b2889",
)
RESSHIFT_V3 = PublishedFile(
    _RESSHIFT + "resshift_realsrx4_s4_v3.pth",
    S_LAB,
    size=477917058,
    sha256="878da888bbbe10b8b0d4ff179c2de3059fd8a4cf2c705942a77a7f3b23ea1efd",
)
RESSHIFT_V1 = PublishedFile(_RESSHIFT + "resshift_realsrx4_s15_v1.pth", S_LAB)
RESSHIFT_V2 = PublishedFile(_RESSHIFT + "resshift_realsrx4_s15_v2.pth", S_LAB)
SINSR_V1 = PublishedFile(_SINSR + "SinSR_v1.pth", CC_BY_NC_SA)
SINSR_V2 = PublishedFile(_SINSR + "SinSR_v2.pth", CC_BY_NC_SA)

ALEXNET = PublishedFile(
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    _TORCHVISION_BSD,
    size=244408911,
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
)
VGG16 = PublishedFile(
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    _TORCHVISION_BSD,
    size=553433881,
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)
DINO_VITS16 = PublishedFile(
    "https://huggingface.co/facebook/dino-vits16/resolve/main/pytorch_model.bin",
    _DINO_APACHE,
    saved_as="dino_vits16.bin",
)
