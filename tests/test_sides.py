"""Pictures with sides of one colour: as right at the border as inside; all others stay as they were."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tddsr import enlarge as module
from tddsr.engines.torch import TorchEngine
from tddsr.pictures import streamed
from tddsr.upscaler import Upscaler
from tests.conftest import photo
from tests.derived import small_paper_model
from tests.samples import saved

SIDES: dict[str, Any] = {"top": np.s_[:4], "left": np.s_[:, :4], "bottom": np.s_[-4:], "right": np.s_[:, -4:]}


def framed(*sides: str, colour: tuple[int, int, int] = (0, 255, 0)) -> np.ndarray:
    picture = photo(60, 50)
    for side in sides:
        picture[SIDES[side]] = colour
    return picture


def without(upscaler: Upscaler, picture: np.ndarray) -> np.ndarray:
    """What becomes of it where no side goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BEYOND", 0)
        return upscaler(picture)


@pytest.fixture
def upscaler(student) -> Upscaler:
    return Upscaler(TorchEngine(student))


@pytest.mark.parametrize("name", ["compact", "compact-small"])
@pytest.mark.parametrize("size", [(8, 8), (3, 50), (32, 32), (1, 1)])
def test_pure_colours_are_as_right_at_the_border_as_inside(name, size):
    upscaler = Upscaler.load(name, device="cpu")
    pure = [(0, 255, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (150, 60, 40)]
    for colour in (*pure, (0, 0, 0), (64, 64, 64), (255, 255, 255)):
        inside = np.abs(upscaler(np.full((80, 80, 3), colour, np.uint8))[159:161, 159:161].astype(int) - colour).max()
        error = np.abs(upscaler(np.full((*size, 3), colour, np.uint8)).astype(int) - colour)
        assert error.max() <= max(8, inside)


@pytest.mark.parametrize("sides", [["top"], ["left"], ["bottom"], ["right"], ["top", "right"], list(SIDES)])
def test_they_are_made_as_if_they_went_on_and_other_sides_as_before(upscaler, sides):
    picture = framed(*sides) / 255
    top, left, bottom, right = (8 * (side in sides) for side in SIDES)
    wider = without(upscaler, np.pad(picture, [(top, bottom), (left, right), (0, 0)], mode="edge"))
    expected = wider[4 * top : 4 * (top + 60), 4 * left : 4 * (left + 50)]
    assert np.array_equal(upscaler(picture), expected)
    assert not np.array_equal(expected, without(upscaler, picture))


@pytest.mark.parametrize("tile", [16, 24, "auto"])
@pytest.mark.parametrize("sides", [["top"], ["left"], ["bottom", "right"], list(SIDES)])
def test_tiles_give_the_pixels_of_the_whole(student, tile, sides):
    whole, tiled = (Upscaler(TorchEngine(student), tile=t)(framed(*sides) / 255) for t in (None, tile))
    assert whole.shape == (240, 200, 3)
    assert np.abs(whole - tiled).max() < 1e-5


def test_blended_tiles_have_the_size_of_the_picture():
    upscaler = Upscaler(TorchEngine(small_paper_model("student")), tile=64)
    picture = np.tile(framed(*SIDES), (1, 2, 1))
    large = upscaler(picture)
    assert large.shape == (240, 400, 3)
    assert not np.array_equal(large, without(upscaler, picture))


def test_photos_and_narrow_frames_of_grey_stay_bit_identical(upscaler):
    greys = [framed(*SIDES, colour=(level, level, level + 3)) for level in (0, 128, 252)]
    for picture in (photo(), photo()[..., 0], *greys):
        assert np.array_equal(upscaler(picture), without(upscaler, picture))


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("sides", [["bottom"], list(SIDES)])
def test_wide_sides_of_grey_go_on_too(upscaler, level, sides):
    within = framed(*sides, colour=(level, level, level))
    wide = np.pad(
        within, [(12 * ("top" in sides), 12), (12 * ("left" in sides), 12 * ("right" in sides)), (0, 0)], "edge"
    )
    inside = np.s_[-40:, :40]  # where the bottom's corner is
    made = upscaler(wide)[inside]
    assert not np.array_equal(made, without(upscaler, wide)[inside])
    beyond = [(8 * ("top" in sides), 8), (8 * ("left" in sides), 8 * ("right" in sides)), (0, 0)]
    assert np.array_equal(made, without(upscaler, np.pad(wide, beyond, "edge"))[:-32, 32 * ("left" in sides) :][inside])


def test_little_noise_such_as_jpeg_leaves_does_not_matter(upscaler):
    noise = np.random.default_rng(0).integers(0, 8, (60, 50, 3)).astype(np.uint8)
    for most, goes_on in ((8, True), (24, False)):
        picture = framed(*SIDES, colour=(20, 200, 20)) // 2 + noise * (most // 8)
        assert (not np.array_equal(upscaler(picture), without(upscaler, picture))) == goes_on


def test_depth_and_transparency_change_nothing(upscaler):
    picture = framed("top", "left")
    expected = upscaler(picture).astype(int)
    assert np.abs(upscaler(picture.astype(np.uint16) * 257) // 257 - expected).max() <= 1
    alpha = np.full((60, 50, 1), 255, np.uint8)
    assert np.array_equal(upscaler(np.dstack([picture, alpha]))[..., :3], expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 255, 255)])
@pytest.mark.parametrize("sides", [*([side] for side in SIDES), list(SIDES)])
def test_pictures_that_are_read_in_rows_are_made_alike(upscaler, monkeypatch, kind, sides, colour):
    picture = np.pad(np.tile(framed(*sides, colour=colour), (3, 1, 1)), [(12, 12), (12, 12), (0, 0)], "edge")
    content = saved(Image.fromarray(picture), kind)
    made = upscaler(content)
    monkeypatch.setattr(streamed, "_LARGE", 0)
    assert made == upscaler(content)
