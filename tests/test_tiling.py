import numpy as np
import pytest

from tddsr.tiling import Box, feathered, fit, plan


@pytest.mark.parametrize("tile", [1, 16, 30, 64, 1000])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (64, 100), (132, 68)])
def test_tiles_cover_the_picture_once_and_read_their_halo(height, width, tile):
    halo, multiple = 10, 4
    count = np.zeros((height, width), int)
    for core, source in plan(height, width, tile, halo, multiple):
        count[core.top : core.bottom, core.left : core.right] += 1
        assert all(side % multiple == 0 for side in (*core, *source))
        assert max(core.height, core.width) <= max(tile + multiple - 1, multiple)
        assert source.top <= max(core.top - halo, 0)
        assert source.left <= max(core.left - halo, 0)
        assert min(core.bottom + halo, height) <= source.bottom <= height
        assert min(core.right + halo, width) <= source.right <= width
    assert (count == 1).all()


def test_tiles_are_of_nearly_equal_size():
    widths = {core.width for core, _ in plan(100, 260, 200, 8, 4)}
    assert widths == {132, 128}


def test_tiles_read_their_halo_and_nothing_beyond_the_picture():
    for core, source in plan(64, 100, (16, 40), 10, 4):
        assert (core.height, core.width) <= (16, 40)
        assert source.top == max(core.top - 12, 0)
        assert source.right == min(core.right + 12, 100)


def test_margins_are_what_is_read_beyond_the_core():
    first, *_, last = plan(64, 100, (32, 40), 10, 4)
    assert first.margins == (0, 0, 12, 12)
    assert last.margins == (12, 12, 0, 0)


def test_what_is_left_of_a_picture_is_covered_alone():
    rest = plan(64, 100, 16, 10, 4, top=24)
    assert min(tile.core.top for tile in rest) == 24
    assert sum(tile.core.height * tile.core.width for tile in rest) == 40 * 100
    assert min(tile.source.top for tile in rest) == 12  # the rows above can be read


@pytest.mark.parametrize("tile", [16, 30, (8, 64), 1000])
@pytest.mark.parametrize(("height", "width", "top"), [(4, 4, 0), (64, 100, 24), (132, 68, 0), (132, 68, 128)])
def test_uniform_tiles_deliver_the_same_and_read_boxes_of_one_size(height, width, top, tile):
    loose, even = (plan(height, width, tile, 10, 4, top=top, uniform=uniform) for uniform in (False, True))
    assert [core for core, _ in even] == [core for core, _ in loose]
    assert len({(box.height, box.width) for _, box in even}) == 1
    for (_, needed), (_, box) in zip(loose, even, strict=True):
        assert needed.within(box) == needed
        assert box.within(Box(0, 0, height, width)) == box
        assert all(side % 4 == 0 for side in box)


@pytest.mark.parametrize("pixels", [70**2, 100**2, 200**2])
@pytest.mark.parametrize(("height", "width"), [(100, 160), (400, 40), (300, 1000)])
def test_the_tile_that_fits_reads_hardly_more_than_any(height, width, pixels):
    halo, multiple = 16, 4

    def read(tile):
        return sum(s.height * s.width for _, s in plan(height, width, tile, halo, multiple))

    best = fit(height, width, halo, multiple, lambda _: pixels)
    assert best is not None
    assert max(s.height * s.width for _, s in plan(height, width, best, halo, multiple)) <= pixels
    others = [(tall, (pixels // (tall + 2 * halo) - 2 * halo) // 4 * 4) for tall in range(4, 80, 4)]
    assert all(read(best) < 1.1 * read(tile) for tile in others if tile[1] > 0)


def test_a_picture_that_fits_is_one_tile_and_one_that_cannot_has_none():
    assert fit(100, 160, 16, 4, lambda _: 100 * 160) == (100, 160)
    assert fit(100, 160, 16, 4, lambda _: 30**2) is None
    # Where each row of a tile costs room, tiles are lower.
    lower, free = fit(400, 160, 16, 4, lambda tall: 20000 - 100 * tall), fit(400, 160, 16, 4, lambda _: 20000)
    assert lower is not None
    assert free is not None
    assert lower[0] < free[0]


def test_sizes_must_be_multiples():
    with pytest.raises(ValueError, match="13x16"):
        plan(13, 16, 8, 2, 4)


@pytest.mark.parametrize("tile", [16, 20, 64])
@pytest.mark.parametrize(("height", "width"), [(5, 40), (16, 17), (100, 131)])
def test_feathered_tiles_sum_to_one_and_do_not_jump(height, width, tile):
    multiple, factor, overlap = 8, 4, 6
    total = np.zeros((factor * height, factor * width))
    for box, rows, columns in feathered(height, width, tile, overlap, multiple, factor):
        assert box.height % multiple == box.width % multiple == 0
        assert (len(rows), len(columns)) == (factor * box.height, factor * box.width)
        weights = np.outer(rows, columns)[: factor * (height - box.top), : factor * (width - box.left)]
        total[factor * box.top : factor * box.bottom, factor * box.left : factor * box.right] += weights
        assert np.abs(np.diff(columns)).max(initial=0) < 0.15
        if box.left > 0:
            assert columns[0] < 0.1  # a tile begins where another one counts
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_tiles_overlap_by_half_at_most():
    with pytest.raises(ValueError, match="overlap is 9"):
        feathered(100, 100, 16, 9, 8, 4)
