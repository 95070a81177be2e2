"""ICC profiles: used where pixels must become RGB, and made of a gamma and primaries, as PNG files may tell."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Matrix = NDArray[np.float64]

SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue."""

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
    return np.asarray(image.convert("RGB"))


def gamma_profile(gamma: float, chromaticity: tuple[float, ...] = SRGB, grey: bool = False) -> bytes:
    """A profile (ICC 2.4) of pixels that are light to the power of ``gamma``: 1 / 2.2 or so, or 1 where linear.

    Raises:
        ValueError: there are no such colours.
    """
    if not 0.01 < gamma < 100:
        raise ValueError(f"gamma is {gamma}")
    curve = b"curv" + struct.pack(">4xIH2x", 1, min(round(256 / gamma), 65535))
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
