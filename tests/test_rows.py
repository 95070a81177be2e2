import numpy as np
import pytest
from PIL import Image

from tddsr.pictures.rows import ROWS, Kernel, resized
from tests.conftest import photo


def bands(pixels: np.ndarray, *heights: int):
    """Cut into bands of these heights, the last of what is left."""
    return iter(np.split(pixels, np.cumsum(heights)))


def whole(pixels: np.ndarray, size: tuple[int, int], kernel: Kernel = Kernel.LANCZOS) -> np.ndarray:
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(plane.resize(size, kernel)) for plane in planes], axis=-1).clip(0, 1)


def scene(height: int = 401, width: int = 52) -> np.ndarray:
    return (photo(height, width) / 255).astype(np.float32)


@pytest.mark.parametrize("what", ["colours", "mask"])
@pytest.mark.parametrize("height", [1, 3, 100, 200, 251, 400, 402, 802])
@pytest.mark.parametrize("heights", [(), (1, 2, 3), (150, 150), (64, 64, 64)])
def test_bands_are_resized_like_the_whole(heights, height, what):
    pixels = 0.2 + 0.6 * scene()  # where nothing is clipped on the way
    parts = list(resized(bands(pixels, *heights), (52, 401), (39, height), what))
    assert {len(part) for part in parts[:-1]} <= ({1} if height < 5 else {ROWS})
    assert (
        np.abs(
            np.concatenate(parts) - whole(pixels, (39, height), Kernel.LANCZOS if what == "colours" else Kernel.BICUBIC)
        ).max()
        < 2e-5
    )


def test_the_same_size_only_cuts_anew():
    pixels = scene()
    parts = list(resized(bands(pixels, 7, 300), (52, 401), (52, 401)))
    assert len(parts) == -(-401 // ROWS)
    assert np.array_equal(np.concatenate(parts), pixels)


def test_bands_are_let_go_while_others_come():
    """However large the picture, one band and a few rows are held."""
    alive, most = set(), 0

    class Band(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def come():
        nonlocal most
        for _ in range(20):
            band = np.zeros((100, 8, 1), np.float32).view(Band)
            alive.add(id(band))
            most = max(most, len(alive))
            yield band
            del band

    for _ in resized(come(), (8, 2000), (4, 1000)):
        pass
    assert most <= 1 + 1


def test_hidden_colours_do_not_bleed_when_resized():
    rng = np.random.default_rng(0)
    mask = (rng.random((15, 10, 1)) < 0.5).astype(np.float32).repeat(6, axis=0).repeat(6, axis=1)
    red = np.broadcast_to(np.array([1, 0, 0], np.float32), (90, 60, 3))
    pixels = np.concatenate([np.where(mask > 0, red, 1 - red), mask], axis=2)
    for size in ((30, 45), (45, 67), (90, 135)):
        large = np.concatenate(list(resized(bands(pixels, 50), (60, 90), size, "both")))
        shown = large[..., 3] > 0.02
        assert shown.mean() > 0.5
        assert np.abs(large[shown][:, :3] - [1, 0, 0]).max() < 1e-3


def test_opaque_and_clear_stay_so_when_resized():
    pixels = np.concatenate([scene(80, 80), np.zeros((80, 80, 1), np.float32)], axis=2)
    pixels[20:60, 20:60, 3] = 1
    small = np.concatenate(list(resized([pixels], (80, 80), (40, 40), "both")))
    assert (small[12:28, 12:28, 3] == 1).all()
    assert (small[..., 3] == 0).sum() > 0.6 * 40**2
    opaque = pixels.copy()
    opaque[..., 3] = 1
    small = np.concatenate(list(resized([opaque], (80, 80), (40, 40), "both")))
    assert np.abs(small[..., :3] - whole(opaque[..., :3], (40, 40), Kernel.BICUBIC)).max() < 1e-5
