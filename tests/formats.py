"""What becomes of every kind of file: found by reading and writing samples, and told by ``docs/formats.md``.

python -m tests.formats
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures.files import kind_of, read_picture, write_picture
from tddsr.pictures.frames import encode_frames, find_frames
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import Picture
from tddsr.pictures.profiles import gamma_profile
from tests import samples
from tests.samples import pixels

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"

OUTPUTS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WebP": ".webp"}

METADATA = {
    "profile": Metadata(icc=samples.PROFILE),
    "EXIF, GPS": Metadata(exif=samples.exif().tobytes()),
    "XMP": Metadata(xmp=samples.XMP),
    "IPTC": Metadata(iptc=samples.IPTC),
    "comment": Metadata(text={"Comment": "box 4"}),
    "other text": Metadata(text={"Title": "Boats"}),
    "resolution": Metadata(dpi=(300, 150)),
}


def picture(channels: int, dtype: type[np.generic] = np.uint8, metadata: Metadata | None = None) -> Picture:
    array = pixels(channels, dtype)
    rgb = array[..., :3] if channels > 2 else array[..., :1].repeat(3, axis=2)
    return Picture(rgb, array[..., -1] if channels in (2, 4) else None, channels < 3, metadata or Metadata())


def through(source: Picture, suffix: str) -> tuple[Picture | None, list[str]]:
    """What is in a file that is written of a picture (None: it is refused), and what is said."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ImageWarning)
        try:
            write_picture(Path(folder, f"a{suffix}"), source)
        except ImageError:
            return None, []
        return read_picture(Path(folder, f"a{suffix}")), [str(warning.message) for warning in said]


def pixels_kept(source: Picture, suffix: str) -> str:
    back, _ = through(source, suffix)
    if back is None:
        return "refused before the work"
    changes = []
    if back.rgb.dtype != source.rgb.dtype:
        changes.append(f"{8 * back.rgb.itemsize} bit")
    if back.grey != source.grey:
        changes.append("as RGB")
    assert (back.alpha is None) == (source.alpha is None)
    exact = back.rgb.dtype == source.rgb.dtype and np.array_equal(back.rgb, source.rgb)
    return ", ".join(changes or ["kept"]) + ("" if exact else ", lossy")


def metadata_kept(metadata: Metadata, suffix: str, channels: int = 3) -> str:
    back, said = through(picture(channels, metadata=metadata), suffix)
    assert back is not None
    told = back.metadata
    if told.dpi is not None:
        told = replace(told, dpi=(round(told.dpi[0]), round(told.dpi[1])))
    if told == metadata:
        return "kept"
    assert told == Metadata(), told
    return "left out, said" if said else "left out"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_pixels() -> str:
    kinds = {1: "grey", 2: "grey with transparency", 3: "RGB", 4: "RGB with transparency"}
    rows = [
        [f"{name}, {bits} bit", *(pixels_kept(picture(channels, dtype), suffix) for suffix in OUTPUTS.values())]
        for bits, dtype in ((8, np.uint8), (16, np.uint16))
        for channels, name in kinds.items()
    ]
    lossless = picture(4, metadata=Metadata(lossless=True))
    rows.append(["read from a lossless WebP", *(pixels_kept(lossless, suffix) for suffix in OUTPUTS.values())])
    return table(["pixels", *OUTPUTS], rows)


def of_metadata() -> str:
    rows = [[name, *(metadata_kept(told, suffix) for suffix in OUTPUTS.values())] for name, told in METADATA.items()]
    profile = Metadata(icc=gamma_profile(1 / 1.8, grey=True))
    grey = ["grey profile"]
    for suffix in OUTPUTS.values():
        kept = metadata_kept(profile, suffix, channels=1)
        grey.append("pixels become sRGB" if kept == "left out" else kept)
    return table(["metadata", *OUTPUTS], [*rows, grey])


def read_as(content: bytes) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ImageWarning)
        found = read_picture(content)
    metadata = found.metadata
    told = {
        "profile": metadata.icc,
        "EXIF": metadata.exif,
        "XMP": metadata.xmp,
        "IPTC": metadata.iptc,
        "comment": metadata.text.get("Comment"),
        "text": {key for key in metadata.text if key != "Comment"},
        "resolution": metadata.dpi,
        "lossless": metadata.lossless,
    }
    lines = [str(warning.message).removeprefix("the given file: ") for warning in said]
    return [
        "grey" if found.grey else "RGB",
        f"{8 * found.rgb.itemsize} bit" if found.rgb.dtype != np.float32 else "float",
        "" if found.alpha is None else "yes",
        ", ".join(name for name, value in told.items() if value),
        "; ".join(lines),
    ]


def of_files() -> str:
    rows = [[name, *read_as(content)] for name, content in sorted(samples.samples().items())]
    return table(["file", "colours", "depth", "transparency", "metadata", "said"], rows)


def several_kept(content: bytes, suffix: str) -> str:
    """What becomes of the pictures of a file in another one, in which they are as they were."""
    source = find_frames(content, suffix)
    if source is None:
        return "the first, said"
    made = (([picture.pixels], picture.metadata) for picture in source)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ImageWarning)
        back = find_frames(encode_frames(suffix, source.layouts, made, source.timing), suffix)
    assert back is not None
    assert [layout.size for layout in back.layouts] == [layout.size for layout in source.layouts]
    if back.timing is None:
        return "pages" + (", timing left out, said" if said else "")
    assert back.timing == source.timing
    return "frames"


def of_several() -> str:
    names = [name for name in sorted(samples.samples()) if name.split()[-1] in ("animated", "pages")]
    contents = {name: samples.samples()[name] for name in names}
    rows = [
        [name, kind_of(content), *(several_kept(content, suffix) for suffix in OUTPUTS.values())]
        for name, content in contents.items()
    ]
    return table(["file", "by default", *OUTPUTS], rows)


def page() -> str:
    return f"""# Files: what is kept, converted, left out

Made by `python -m tests.formats`, which reads and writes files of every kind; a test holds this page to it.

## What is read

A file is told by its content; its suffix counts where a folder is searched. Orientation is applied. CMYK and Lab become
sRGB, CMYK by its profile. gAMA, cHRM and cICP of PNG, the codes of AVIF and HEIC, and EXIF that tells of Adobe RGB
become a profile; for high dynamic range it shows what is brighter than the white of paper as that white. All are read
with all their bits, but for colours of PPM, JPEG 2000 and SGI, of which 8 are, which is said. Of a TIFF that begins
with a preview the largest other picture is taken. Thumbnails, sizes, layers and private tags are not true of a larger
picture, and left out. Left out and said are profiles that do not fit the pixels, EXIF and XMP that are damaged or not
whole, and what follows the first picture of a JPEG: others than previews, and a film.

{of_files()}

Floating point (TIFF) is from 0, black, to 1, white, as it stands, with the file's profile if there is one; 16 bit are
written. Values outside are clipped, which is said. Where more than a tenth of them are outside, such as those of 0 to
255, or one is no number, it is refused. Of extra channels (TIFF) the first that says that it is transparency is taken
as such; the others are left out, which is said.

HEIC needs an extra, `pip install 'tddsr[heif]'`; camera raws another, `tddsr[raw]`: they are developed by LibRaw to
16-bit sRGB, with the camera's white balance and LibRaw's brightness (one pixel in a hundred is white), and EXIF where
the file is a TIFF inside. Refused in one line are whole numbers of 32 bits, unless 16 suffice, or below 0, and floating
point of 64; in a TIFF, grey with transparency in planes, 16 bit in planes and tiles, and colours other than grey, RGB,
YCbCr, CMYK and Lab, of floating point other than grey and RGB; JPEG XL; what is damaged or cut off (only the mark of a
JPEG's end may be missing; damaged metadata of a PNG and those of a JPEG that are cut off are left out, and said); and
what claims more than 178 million pixels, unless `--largest-input` (`largest_input`), in million pixels, allows more.

The result is not in memory as a whole. Nor are inputs of 17 million pixels and more, if they are JPEG, PNG that is not
interlaced, or TIFF, grey or RGB, of 8 or 16 bit, without transparency and upright: their rows are decoded as they are
needed, and once before, so that damage is found before the work. What stays in memory is the file as it lies on the
disk, and of a progressive JPEG (4:2:0) 3 bytes a pixel. Of others, 8 bit of colour take 7 to 10 bytes a pixel of the
input while it is read, 16 bit 18, floating point and transparency more.

## Several pictures

Where the output can hold them, all of them are enlarged, elsewhere the first (the `said` above):

{of_several()}

Frames of an animation are as they are shown, whole and of 8 bit; all have the same noise, so what does not move is
still. Their durations and how often they are played stay (of AVIF Pillow does not tell how often: for ever); a frame
that shows the same as the one before is added to its duration. A GIF becomes a WebP, in a seventh of the bytes of a PNG
(of moving photos); GIF itself has 256 colours, and is not written.
Pages keep each their size, depth, colours, resolution and other metadata; previews and masks are no pages. Of a TIFF
whose first picture Pillow does not know, such as floating-point RGB, the first is taken, which is said. Where one
picture is broken, or of a kind that is refused (above), the file is refused before the work. All of them together have
at most 178 million pixels, or what `--largest-input` says, and a small one counts as 128x128.

In memory is one picture at a time, of a TIFF a few rows of its result, of an animation two frames of it, and what
there is so far of a WebP.

## What is written

{of_pixels()}

{of_metadata()}

Of each kind of metadata JPEG holds 64 KiB: what is longer is left out, which is said. XMP that goes on in further
segments of a JPEG becomes one packet; of a longer one a JPEG gets the first part. A side of a WebP has at most 16383
pixels, of a JPEG 65500, which is told before the work.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
