import numpy as np
import pytest

from tddsr.pictures.picture import Layout
from tddsr.pictures.stored import Store


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("given", "channels"), [(1, 1), (1, 3), (2, 2), (2, 4), (3, 3), (4, 4)])
def test_values_are_rounded_once_whatever_their_order_in_memory(dtype, planar, given, channels):
    values = np.random.default_rng(0).random((120, 301, given), np.float32)  # several blocks
    if planar:
        values = np.moveaxis(np.moveaxis(values, -1, 0).copy(), 0, -1)
    full = 1.0 if dtype is np.float32 else float(np.iinfo(dtype).max)
    low, high = 0.25 * full, 0.5 * full
    made = Store(Layout(301, 120, channels, np.dtype(dtype)), (low, high), full)(values)
    masked = given % 2 == 0
    expected = low + values.astype(np.float64) * (high - low)
    if masked:
        expected[..., -1] = values[..., -1].astype(np.float64) * full
    if channels > given:
        expected = expected[..., [0, 0, 0, *[1] * masked]]
    assert made.dtype == dtype
    assert np.array_equal(made, (expected if dtype is np.float32 else expected.round()).astype(dtype))


def test_one_transparency_for_all_is_brought_to_the_depth_of_the_file():
    made = Store(Layout(3, 2, 4, np.dtype(np.uint8)), (0, 65535), 65535, alpha=257 * 77)(np.ones((2, 3, 3), np.float32))
    assert (made == [255, 255, 255, 77]).all()
