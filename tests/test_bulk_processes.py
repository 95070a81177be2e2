"""Several processes over one folder, and processes that are killed."""

import contextlib
import io
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tddsr import bulk
from tddsr.cli import main
from tddsr.files import clean_up_when_ended, whole_or_nothing
from tests.conftest import photo

if os.name == "nt":
    pytest.skip("Windows has no such processes and signals", allow_module_level=True)

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tddsr.upscaler", "tests.test_bulk_processes"])  # so that they are at work at once

Work = Callable[[Path], None]


def enlarge(source: Path, target: Path) -> None:
    """Takes no time, but for the writing."""
    file = io.BytesIO()
    with Image.open(source) as image:
        image.resize((image.width * 4, image.height * 4)).save(file, "PNG")
    target.parent.mkdir(exist_ok=True)
    with whole_or_nothing(target) as temporary, temporary.open("wb") as out:
        for part in (file.getvalue()[:100], file.getvalue()[100:]):
            out.write(part)
            out.flush()
            time.sleep(0.01)


def quick(folder: Path) -> None:
    """What the command does, with ``enlarge``."""
    os.environ["TDDSR_CACHE"] = str(folder.with_name("cache"))
    clean_up_when_ended()
    jobs = bulk.plan([folder], folder.with_name("out"), lambda path: path)
    with folder.with_name(f"log{os.getpid()}").open("w") as log:
        for result in bulk.run(jobs, enlarge):
            log.write(f"{result.status} {result.input}\n")


def real(folder: Path) -> None:
    """The command itself."""
    os.environ["TDDSR_CACHE"] = str(folder.with_name("cache"))
    sys.stdout = sys.stderr = folder.with_name("log").open("a")
    sys.argv = ["tddsr", "upscale", str(folder), "-o", str(folder.with_name("out"))]
    sys.argv += ["--model", "compact-small", "--device", "cpu"]
    main()


def pictures(folder: Path, count: int, side: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(photo(side, side, i)).save(folder / f"{i:03}.png")
    return folder


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """The outputs: which, and whether they are still the same."""
    with contextlib.suppress(FileNotFoundError):
        found = {entry.name: entry.stat() for entry in os.scandir(out) if not entry.name.startswith(".")}
        return {name: (state.st_ino, state.st_mtime_ns) for name, state in found.items()}
    return {}


def kill_again_and_again(work: Work, folder: Path, kills: int, most: int, seed: int) -> Counter[str]:
    """Kill it at one of the next ``most`` pictures, ``kills`` times.

    No run touches what an earlier one has finished, and SIGTERM leaves nothing.
    """
    chance, out = random.Random(seed), folder.with_name("out")
    counts, before = Counter[str](), finished(out)
    for _ in range(kills):
        hidden = set(out.glob(".*"))
        wanted = len(before) + chance.randrange(most)
        process = PROCESSES.Process(target=work, args=(folder,))
        process.start()
        while process.is_alive() and len(finished(out)) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        if chance.random() < 0.5:
            process.kill()
            process.join()
            counts.update(killed=1, left=len(set(out.glob(".*")) - hidden))
        else:
            process.terminate()
            process.join()
            assert set(out.glob(".*")) <= hidden
            counts.update(terminated=1)
        counts["in time"] += process.exitcode != 0
        assert before.items() <= finished(out).items()
        before = finished(out)
    counts["finished"] = len(before)
    return counts


def check_the_last_run(work: Work, folder: Path) -> None:
    out = folder.with_name("out")
    before = finished(out)
    process = PROCESSES.Process(target=work, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert before.items() <= finished(out).items()
    assert sorted(finished(out)) == sorted(path.name for path in folder.iterdir())
    for path in folder.iterdir():
        with Image.open(path) as small, Image.open(out / path.name) as large:
            large.load()
            assert large.size == (4 * small.width, 4 * small.height)
    assert not list(out.glob(".*"))


def test_two_processes_share_a_folder(tmp_path):
    folder = pictures(tmp_path / "in", 30, 8)
    both = [PROCESSES.Process(target=quick, args=(folder,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    said = [line for log in tmp_path.glob("log*") for line in log.read_text().splitlines()]
    done = sorted(line for line in said if line.startswith("done"))
    assert done == [f"done {path}" for path in sorted(folder.iterdir())]
    assert len(said) == 60
    check_the_last_run(quick, folder)
    assert not list((tmp_path / "cache" / "locks").iterdir())


def test_killed_at_any_moment_a_folder_becomes_whole(tmp_path):
    folder = pictures(tmp_path / "in", 40, 8)
    counts = kill_again_and_again(quick, folder, kills=8, most=6, seed=0)
    assert counts["in time"] == 8
    assert counts["killed"] > 0 < counts["terminated"]
    check_the_last_run(quick, folder)


@pytest.mark.slow
def test_a_hundred_kills_of_the_command_leave_every_picture_whole(tmp_path, capsys):
    folder = pictures(tmp_path / "in", 250, 64)
    counts = kill_again_and_again(real, folder, kills=100, most=4, seed=0)
    with capsys.disabled():
        sys.stdout.write(f"{dict(counts)}\n")
    assert counts["in time"] == 100
    check_the_last_run(real, folder)
