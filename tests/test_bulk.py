import contextlib
import os
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from tddsr import bulk
from tddsr.errors import ImageError, ImageWarning
from tddsr.files import leftovers, whole_or_nothing
from tddsr.pictures.files import read_picture
from tests.conftest import photo


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(photo(8, 8, i)).save(folder / f"{i:03}.png")
    return folder


def save(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with whole_or_nothing(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def jobs_of(folder: Path) -> list[bulk.Job]:
    return bulk.plan([folder], folder.with_name("out"), lambda path: path)


def test_what_another_process_is_at_is_looked_at_again_at_the_end(tmp_path, cache):
    jobs = jobs_of(pictures(tmp_path / "in", 3))
    assert jobs[0].output is not None
    with bulk.claimed(jobs[0].output) as free:
        assert free
        results = list(bulk.run(jobs, save))
    assert [(Path(result.input).name, result.status) for result in results] == [
        ("001.png", "done"), ("002.png", "done"), ("000.png", "skipped"),
    ]  # fmt: skip
    assert "another process" in results[-1].message
    with contextlib.ExitStack() as other:
        assert other.enter_context(bulk.claimed(jobs[0].output))
        statuses = []
        for result in bulk.run(jobs, save, overwrite=True):
            statuses.append(result.status)
            other.close()  # it gives up
    assert statuses == ["done"] * 3


def test_without_locks_the_pictures_are_done(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "file" / "cache"))
    assert [result.status for result in bulk.run(jobs_of(pictures(tmp_path / "in", 2)), save)] == ["done"] * 2


def test_what_a_killed_process_left_goes_unless_somebody_is_at_it(tmp_path, cache):
    jobs = jobs_of(pictures(tmp_path / "in", 2))
    left, out = [], tmp_path / "out"
    out.mkdir()
    for job in jobs:
        assert job.output is not None
        with whole_or_nothing(job.output) as temporary:
            left.append(out / f"{temporary.stem}{temporary.suffix}")
        left[-1].write_bytes(b"half")
    theirs = [out / ".000.png", out / ".000.abcdefgh.png", out / ".other.0123456789ab.abcdefgh.png"]
    for path in theirs:
        path.write_bytes(b"not ours")
    assert {temporary for _, temporary in leftovers(job.output for job in jobs if job.output)} == set(left)
    with bulk.claimed(out / "001.png"):
        assert [result.status for result in bulk.run(jobs, save)] == ["skipped", "skipped"]
    assert set(out.glob(".*")) == {left[1], *theirs}


def test_what_is_said_of_several_pictures_of_a_file_is_said_once(tmp_path, cache):
    def enlarge(source: Path, target: Path) -> int:
        for _ in range(3):
            warnings.warn("reduced", ImageWarning, stacklevel=1)
        return 3

    (result,) = bulk.run(jobs_of(pictures(tmp_path / "in", 1)), enlarge)
    assert result.frames == 3
    assert result.message.endswith("(3 pictures; reduced)")


def test_links_in_circles_and_names_of_one_file_stop_nobody(tmp_path, cache):
    folder = pictures(tmp_path / "in", 1)
    (folder / "circle.png").symlink_to("circle.png")
    named = [folder / "circle.png", folder / "000.png", folder / ".." / "in" / "000.png"]
    jobs = bulk.plan(named, str(tmp_path / "out") + "/", lambda path: path)
    results = list(bulk.run(jobs, save))
    assert [result.status for result in results] == ["failed", "done", "skipped"]
    assert "circle.png" in results[0].message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_among_pictures_is_a_line_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="pipe"):
        read_picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    with pytest.raises(ImageError, match="symbolic links"):
        read_picture(tmp_path / "b.jpg")


@pytest.mark.parametrize("names", [
    ["A.png", "a.png", "B.bmp", "b.png", "C.bmp", "c.bmp"], ["Sub/a.png", "sub/a.png"],
    ["caf\u00e9.png", "cafe\u0301.png"], ["A.png", "a.png", "a.PNG"],
])  # fmt: skip
def test_names_that_differ_in_case_have_each_their_own_result_on_every_file_system(tmp_path, names):
    inputs = [tmp_path / name for name in names]

    def alike(paths: Iterable[Path | None]) -> set[str]:
        return {unicodedata.normalize("NFC", str(path)).casefold() for path in paths}

    def planned(inputs: list[Path]) -> dict[Path, Path | None]:
        jobs = bulk.plan(inputs, f"{tmp_path}/out/", lambda path: path.with_suffix(".png"))
        assert not [job.problem for job in jobs if job.problem]
        return {job.input: job.output for job in jobs}

    if "/" not in names[0]:
        outputs = planned(inputs)
        assert outputs == planned(inputs[::-1])  # they do not hang on the order
        assert len(alike(outputs.values())) == len(names)
    for path in inputs:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    if len(list(tmp_path.rglob("*.*"))) < len(names):
        pytest.skip("this file system ignores case")
    outputs = {job.input: job.output for job in bulk.plan([tmp_path], tmp_path / "out", lambda path: path)}
    assert len(alike(outputs.values())) == len(outputs) == len(names)
    assert all(path and path.suffix == source.suffix for source, path in outputs.items())
