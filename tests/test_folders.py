import pytest
from pydantic import ValidationError

from tddsr.errors import ImageError
from tddsr.pictures.folders import find_photos
from tddsr.training.recipe import DataConfig


def test_parts_of_a_folder_share_no_photo_and_are_the_same_everywhere(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, order in ((here, range(40)), (there, reversed(range(40)))):
        folder.mkdir()
        for i in order:
            (folder / f"{i:05d}.png").touch()
    bounds = ((0.0, 0.8), (0.8, 0.95), (0.95, 1.0))
    parts = [[photo.name for photo in find_photos(here, part)] for part in bounds]
    assert [len(part) for part in parts] == [32, 6, 2]
    assert len({name for part in parts for name in part}) == 40
    assert parts == [[photo.name for photo in find_photos(there, part)] for part in bounds]
    assert parts[0] != [photo.name for photo in find_photos(here)][:32]
    with pytest.raises(ImageError, match="none of them"):
        find_photos(here, (0.0, 0.01))
    with pytest.raises(ValidationError, match="is not a part"):
        DataConfig(part=(0.5, 0.5))
