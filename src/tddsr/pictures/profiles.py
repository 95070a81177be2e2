"""ICC profiles: used where pixels must become RGB; made where a file tells its colours in another way."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tddsr.errors import ImageWarning
from tddsr.pictures.png import MARK

Matrix = NDArray[np.float64]

SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue."""

UNUSED = "its colour profile cannot be used: colours are about right"
"""What is said of pictures that must become RGB."""

_PRIMARIES = {
    1: SRGB,
    5: (0.3127, 0.329, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (0.3127, 0.329, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""Of codes of ITU-T H.273: BT.709, 470, 601, 2020, DCI-P3, Display P3."""

_D50 = np.array([0.9642, 1, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""From XYZ to the responses in which white is adapted to white."""


def in_srgb(image: Image.Image, profile: bytes | None) -> NDArray[Any]:
    """(H,W,3) uint8 of CMYK, LAB or grey, by its profile where there is one that can be used."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = (
            ImageCms.createProfile("LAB")
            if image.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        )
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        if converted is not None:
            return np.asarray(converted)
    if profile:
        warnings.warn(UNUSED, ImageWarning, stacklevel=2)
    return np.asarray(image.convert("RGB"))


def gamma_profile(gamma: float, chromaticity: tuple[float, ...] = SRGB, grey: bool = False) -> bytes:
    """A profile (ICC 2.4) of pixels that are light to the power of ``gamma``: 1 / 2.2 or so, or 1 where linear.

    Raises:
        ValueError: there are no such colours.
    """
    if not 0.01 < gamma < 100:
        raise ValueError(f"gamma is {gamma}")
    return _matrix_profile(b"curv" + struct.pack(">4xIH2x", 1, min(round(256 / gamma), 65535)), chromaticity, grey)


def coded_colours(content: bytes) -> tuple[int, int] | None:
    """The codes (ITU-T H.273) by which a PNG (cICP) or an AVIF or HEIC (nclx) tells its primaries and their transfer.

    None if there are none, or no known primaries.
    """
    if content.startswith(MARK):
        at, form = content.find(b"\0\0\0\4cICP", 0, content.find(b"IDAT")), ">BB"
    else:
        at, form = content.find(b"colrnclx", 0, 2**16) if content[4:8] == b"ftyp" else -1, ">HH"
    codes = content[at + 8 : at + 8 + struct.calcsize(form)]
    if at < 0 or len(codes) < struct.calcsize(form):
        return None
    primaries, transfer = struct.unpack(form, codes)
    return (primaries, transfer) if primaries in _PRIMARIES else None


def coded_profile(primaries: int, transfer: int, grey: bool = False) -> bytes | None:
    """A profile of the colours of such codes; None for sRGB. Unknown transfers are taken for that of sRGB.

    What is brighter than the white of paper in a picture of high dynamic range (PQ, HLG) is shown as that white.
    """
    curves = {4: _power(2.2), 5: _power(2.8), 8: _power(1), 16: _pq, 18: _hlg}
    if primaries == 1 and transfer not in curves:
        return None
    light = curves.get(transfer, _srgb)(np.linspace(0, 1, 4096)).clip(0, 1)
    table = (light * 65535).round().astype(">u2").tobytes()
    return _matrix_profile(b"curv" + struct.pack(">4xI", 4096) + table, _PRIMARIES[primaries], grey)


def _power(gamma: float) -> Callable[[Matrix], Matrix]:
    return lambda values: values**gamma


def _srgb(values: Matrix) -> Matrix:
    return np.where(values < 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _pq(values: Matrix) -> Matrix:
    """Light of SMPTE ST 2084 as a part of 203 cd/m2."""
    root = values ** (1 / 78.84375)
    return 10000 / 203 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _hlg(values: Matrix) -> Matrix:
    """Light of BT.2100 as a part of that at 0.75."""
    light = np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return light / 0.26496256


def _matrix_profile(curve: bytes, chromaticity: tuple[float, ...], grey: bool) -> bytes:
    if grey:
        return _profile(b"GRAY", {b"kTRC": curve})
    colours = zip((b"r", b"g", b"b"), _to_d50(np.reshape(chromaticity, (4, 2))).T, strict=True)
    columns = {name + b"XYZ": _xyz(column) for name, column in colours}
    return _profile(b"RGB ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _to_d50(xy: Matrix) -> Matrix:
    """The matrix from linear RGB to XYZ under D50."""
    try:
        if not xy[:, 1].all():
            raise ValueError("these primaries span no colours")
        white, *primaries = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
        matrix = np.column_stack(primaries)
        matrix = matrix * np.linalg.solve(matrix, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("these primaries span no colours") from error
    adapted = _BRADFORD @ _D50 / (_BRADFORD @ white)
    to_d50: Matrix = np.linalg.solve(_BRADFORD, adapted[:, None] * _BRADFORD) @ matrix
    if not (np.isfinite(to_d50).all() and np.abs(to_d50).max() < 30000):
        raise ValueError("these primaries span no colours")
    return to_d50


def _xyz(values: Matrix) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"tddsr\0"
    description = b"desc" + struct.pack(">4xI", len(text)) + text + bytes(78)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(_D50)} | tags
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    kind = struct.pack(">I4x4s4s4s4s", size, b"\2\x40\0\0", b"mntr", space, b"XYZ ")
    head = kind + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + table + body
