"""Files written band by band."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tddsr.errors import ImageError
from tddsr.pictures.files import (
    WRITABLE,
    encode_bands,
    kind_of,
    read_picture,
    stored_dtype,
    write_bands,
    write_picture,
)
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import Layout, Picture, convert
from tests.conftest import photo
from tests.samples import IPTC, XMP, exif

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = (".png", ".tif", ".tiff")


def pixels(channels: int, dtype=np.uint8, height: int = 37, width: int = 29) -> np.ndarray:
    colours = photo(height, width, noise=0).astype(dtype) * (np.iinfo(dtype).max // 255)
    planes = {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 1]}[channels]
    array: np.ndarray = colours[..., planes] + dtype(1)
    return array


def in_bands(array: np.ndarray, heights: tuple[int, ...]) -> Iterator[np.ndarray]:
    top, turn = 0, 0
    while top < len(array):
        yield array[top : top + heights[turn % len(heights)]]
        top, turn = top + heights[turn % len(heights)], turn + 1


def layout(array: np.ndarray) -> Layout:
    return Layout(array.shape[1], array.shape[0], array.shape[2], array.dtype)


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_of_any_height_become_one_picture(tmp_path, suffix, channels, dtype):
    if stored_dtype(suffix, np.dtype(dtype)) != dtype or (channels % 2 == 0 and suffix.startswith(".j")):
        pytest.skip("no such file can be written")
    array = pixels(channels, dtype)
    path = tmp_path / f"a{suffix}"
    write_bands(path, in_bands(array, (5, 1, 16)), layout(array), Metadata())
    back = read_picture(path)
    assert back.rgb.dtype == dtype
    assert back.grey == (channels < 3 and suffix != ".webp")
    assert (back.alpha is None) == (channels % 2 == 1)
    colours = array[..., :3] if channels > 2 else array[..., :1].repeat(3, axis=2)
    error = np.abs(back.rgb.astype(int) - colours)
    assert error.max() == 0 if suffix in LOSSLESS else error.mean() < 4
    if back.alpha is not None:
        assert np.array_equal(back.alpha, array[..., -1])
    assert encode_bands(suffix, [array], layout(array), Metadata()) == path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(5, "no"), ImageError("no"), KeyboardInterrupt()])
def test_what_stops_the_bands_comes_out_and_leaves_no_file(tmp_path, suffix, error):
    def bands() -> Iterator[np.ndarray]:
        yield array[:10]
        raise error

    array = pixels(3)
    with pytest.raises(type(error)) as raised:
        write_bands(tmp_path / f"a{suffix}", bands(), layout(array), Metadata())
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_the_bands_are_made_in_the_thread_of_the_caller(tmp_path):
    def bands() -> Iterator[np.ndarray]:
        threads.add(threading.get_ident())
        yield array

    array, threads = pixels(3), set[int]()
    write_bands(tmp_path / "a.png", bands(), layout(array), Metadata())
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize(
    "wrong", [pixels(3)[1:], pixels(3)[:, 1:], pixels(4), pixels(3, np.uint16), pixels(3, height=38)]
)
def test_bands_of_another_layout_are_refused(tmp_path, suffix, wrong):
    with pytest.raises(ValueError, match="does not fit"):
        write_bands(tmp_path / f"a{suffix}", [wrong], layout(pixels(3)), Metadata())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_file_is_encoded_while_its_bands_are_made(tmp_path, suffix):
    """The last band is asked for when the file of the first ones has bytes."""

    def bands() -> Iterator[np.ndarray]:
        for seed in range(40):
            if seed == 39:
                (unfinished,) = tmp_path.iterdir()
                sizes.append(unfinished.stat().st_size)
            yield np.random.default_rng(seed).integers(0, 255, (50, 1000, 3), np.uint8)

    sizes: list[int] = []
    write_bands(tmp_path / f"a{suffix}", bands(), Layout(1000, 2000, 3, np.dtype(np.uint8)), Metadata(icc=SRGB))
    assert sizes[0] > (tmp_path / f"a{suffix}").stat().st_size / 2


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from tddsr.pictures.files import write_bands
from tddsr.pictures.metadata import Metadata
from tddsr.pictures.picture import Layout

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def write(height):
    band = np.random.default_rng(0).integers(0, 4, (100, 4000, 3), np.uint8)
    layout = Layout(4000, height, 3, band.dtype)
    write_bands(Path(sys.argv[1]), (band for _ in range(height // 100)), layout, Metadata())

write(100)
before = peak()
write(8000)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_large_picture_takes_the_memory_of_a_few_rows(tmp_path, suffix):
    command = [sys.executable, "-c", MEMORY, str(tmp_path / f"a{suffix}")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 48  # MiB; the picture has 92


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, suffix):
    """In a process that may write no more than a few KiB into a file, as a stand-in for the disk."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from tddsr.pictures.files import write_picture\n"
        "from tddsr.pictures.picture import Picture\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)\n"
        "try:\n"
        "    write_picture(Path(sys.argv[1]), Picture(pixels))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / f"a{suffix}"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{path}: cannot be written")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
def test_a_file_holds_as_many_bits_as_it_can(tmp_path, suffix):
    deep = pixels(3, np.uint16)
    for array in (deep, deep / np.float32(65535), pixels(3)):
        write_picture(tmp_path / f"a{suffix}", Picture(array))
        stored = read_picture(tmp_path / f"a{suffix}").rgb
        assert stored.dtype == stored_dtype(suffix, array.dtype)
        expected = convert(array, stored.dtype).astype(int)
        assert np.abs(stored - expected).max() == 0 if suffix in LOSSLESS else np.abs(stored - expected).mean() < 4
    assert stored_dtype(".png", np.dtype(np.float64)) == stored_dtype(".tif", np.dtype(np.uint16)) == np.uint16
    assert stored_dtype(".jpg", np.dtype(np.uint16)) == stored_dtype(".webp", np.dtype(np.float32)) == np.uint8


@pytest.mark.parametrize("most", [0, 2**32])
def test_small_and_big_tiffs_hold_the_same(tmp_path, monkeypatch, most):
    monkeypatch.setattr("tddsr.pictures.encoding._CLASSIC_TIFF", most)
    told = Metadata(icc=SRGB, exif=exif().tobytes(), xmp=XMP, iptc=IPTC, dpi=(300, 150))
    write_picture(tmp_path / "a.tif", Picture(pixels(3), metadata=told))
    assert ((tmp_path / "a.tif").read_bytes()[2] == 43) == (most == 0)
    back = read_picture(tmp_path / "a.tif")
    assert np.array_equal(back.rgb, pixels(3))
    assert back.metadata == told
    with tifffile.TiffFile(tmp_path / "a.tif") as file:  # by somebody else
        tags = file.pages.first.tags
        assert tags["ExifTag"].value["ExposureTime"] == 0.5
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"


def test_bytes_are_read_as_files_are(tmp_path):
    for name, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("BMP", ".png")):
        Image.fromarray(photo()).save(tmp_path / "a", name)
        content = (tmp_path / "a").read_bytes()
        assert kind_of(content) == suffix
        assert np.array_equal(read_picture(content).rgb, read_picture(tmp_path / "a").rgb)
    with pytest.raises(ImageError, match="not a picture"):
        read_picture(b"text")
    with pytest.raises(ImageError, match="not a picture"):
        kind_of(b"text")
