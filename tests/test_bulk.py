import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tddsr import bulk
from tddsr.files import leftovers, whole_or_nothing
from tests.conftest import photo

WORKER = """
import io, sys, time
from pathlib import Path
from PIL import Image
from tddsr import bulk
from tddsr.files import clean_up_when_ended, whole_or_nothing

def enlarge(source, target):
    file = io.BytesIO()
    with Image.open(source) as image:
        image.resize((image.width * 4, image.height * 4)).save(file, "PNG")
    target.parent.mkdir(exist_ok=True)
    with whole_or_nothing(target) as temporary, temporary.open("wb") as out:
        for part in (file.getvalue()[:100], file.getvalue()[100:]):
            out.write(part)
            out.flush()
            time.sleep(0.01)

clean_up_when_ended()
jobs = bulk.plan([Path(sys.argv[1])], sys.argv[2], lambda path: path)
print("ready", flush=True)
for result in bulk.run(jobs, enlarge):
    print(result.status, result.input, flush=True)
"""
"""Does a folder as `tddsr upscale` does, with a network that takes no time, and writing that does."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TDDSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(folder: Path, count: int, side: int = 8) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(photo(side, side, i)).save(folder / f"{i:03}.png")
    return folder


def started(command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it is at work
    return process


def worker(folder: Path) -> list[str]:
    return [sys.executable, "-c", WORKER, str(folder), str(folder.with_name("out"))]


def visible(folder: Path) -> dict[str, tuple[int, int]]:
    """The finished files: which, and whether they are still the same."""
    with contextlib.suppress(FileNotFoundError):
        found = {entry.name: entry.stat() for entry in os.scandir(folder) if not entry.name.startswith(".")}
        return {name: (state.st_ino, state.st_mtime_ns) for name, state in found.items()}
    return {}


def hidden(folder: Path) -> set[Path]:
    return set(folder.glob(".*"))


def killed_again_and_again(command: list[str], folder: Path, kills: int, longest: float, seed: int) -> dict[str, int]:
    """Run and kill at random moments; what was finished is touched by no later run, and SIGTERM leaves nothing."""
    chance, out = random.Random(seed), folder.with_name("out")
    finished: dict[str, tuple[int, int]] = {}
    counts = {"SIGKILL": 0, "SIGTERM": 0, "left by SIGKILL": 0}
    for _ in range(kills):
        name = chance.choice(["SIGKILL", "SIGTERM"])
        process, before = started(command), hidden(out)
        time.sleep(chance.uniform(0, longest))
        process.send_signal(getattr(signal, name))
        process.communicate()
        counts[name] += 1
        new = hidden(out) - before
        assert name == "SIGKILL" or not new
        counts["left by SIGKILL"] += len(new)
        now = visible(out)
        assert finished.items() <= now.items()
        finished = now
    return counts | {"finished": len(finished)}


def check_the_last_run(command: list[str], folder: Path) -> None:
    out = folder.with_name("out")
    before = visible(out)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert before.items() <= visible(out).items()
    assert sorted(visible(out)) == sorted(path.name for path in folder.iterdir())
    for path in folder.iterdir():
        with Image.open(path) as small, Image.open(out / path.name) as large:
            large.load()
            assert large.size == (4 * small.width, 4 * small.height)
    assert not hidden(out)


def test_two_processes_share_a_folder(tmp_path, cache):
    folder = pictures(tmp_path / "in", 30)
    both = [started(worker(folder)) for _ in range(2)]
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    done = [line for lines in said for line in lines if line.startswith("done")]
    assert sorted(done) == [f"done {path}" for path in sorted(folder.iterdir())]
    check_the_last_run(worker(folder), folder)
    assert not list((cache / "locks").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_killed_at_any_moment_a_folder_becomes_whole(tmp_path, cache):
    folder = pictures(tmp_path / "in", 20)
    counts = killed_again_and_again(worker(folder), folder, 8, 0.08, seed=1)
    assert 0 < counts["finished"] < 20
    check_the_last_run(worker(folder), folder)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_hundred_kills_of_the_command_leave_every_picture_whole(tmp_path, cache):
    folder = pictures(tmp_path / "in", 400, 64)
    command = [sys.executable, "-m", "tddsr", "upscale", str(folder), "-o", str(tmp_path / "out")]
    command += ["--model", "compact-small", "--device", "cpu"]
    counts = killed_again_and_again(command, folder, 100, 0.4, seed=0)
    print(counts)  # noqa: T201 - shown by -s
    check_the_last_run(command, folder)


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
    assert hidden(out) == {left[1], *theirs}
