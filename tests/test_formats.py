"""Every kind of file, whole and damaged."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tddsr.errors import ImageError, ImageWarning
from tddsr.pictures.files import read_picture
from tddsr.pictures.picture import to_8_bit
from tddsr.pictures.vips import pyvips
from tests.formats import PAGE, page
from tests.samples import pixels, samples

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


def test_the_page_of_formats_tells_what_becomes_of_files():
    pytest.importorskip("pillow_heif")
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.formats writes it anew"


@pytest.mark.parametrize("name", sorted(name for name in samples() if "bits" not in name))
def test_every_kind_of_file_shows_the_same_picture(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        picture = read_picture(samples()[name])
    expected = pixels(1 if picture.grey else 3)
    if picture.alpha is not None and "palette" not in name:
        assert np.abs(to_8_bit(picture.alpha).astype(int) - pixels(4)[..., 3]).mean() < 2
        seen = picture.alpha > 0  # some kinds hold no colour where nothing shows
    else:
        seen = np.ones(picture.rgb.shape[:2], bool)
    coarse = any(word in name for word in ("palette", "gif", "cmyk", "heif"))
    error = np.abs(picture.rgb_8_bit.astype(int) - expected)[seen]
    assert error.mean() < (16 if coarse else 4)


def test_damaged_files_are_pictures_or_one_line():
    """The small form of ``python benchmarks/mutate.py``."""
    pytest.importorskip("resource", reason="limits of memory are those of Unix")
    from mutate import GOOD, run

    counts, bad = run(400, seed=7)
    assert not bad
    assert set(counts) == set(GOOD)


def test_heic_names_the_extra_that_reads_it(monkeypatch):
    monkeypatch.setattr("tddsr.pictures.opening.HEIF", False)
    with pytest.raises(ImageError, match=r"tddsr\[heif\]"):
        read_picture(b"\0\0\0\x1cftypheic" + bytes(100))


def test_loaders_that_libvips_does_not_trust_are_blocked():
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    with pytest.raises(pyvips.Error, match=r"blocked|not in a known format"):
        pyvips.Image.new_from_buffer(drawing, "")
    with pytest.raises(ImageError, match="not a picture"):
        read_picture(drawing)
