"""Damaged files: every kind that is read, mutated at random, read and written in a process with little memory.

    python benchmarks/mutate.py [--files 20000] [--seed 0] [--keep mutants]

Each file is a sample of ``tests/samples.py`` with flipped bits, a cut, blocks taken out, doubled or exchanged with
those of another sample, or numbers near its beginning set to extremes. What can be read is written as another kind.
Counted is what becomes of them; those that end in another way than as a picture or as one line that names the file are
kept, with what was seen.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tddsr.errors import ImageError
from tddsr.pictures.files import read_picture, write_picture

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.samples import samples

SECONDS = 10
MEMORY = 2**30
GOOD = ("read", "refused")

Chance = np.random.Generator
Mutation = Callable[[bytearray, bytes, Chance], None]


def _flip(content: bytearray, other: bytes, chance: Chance) -> None:
    for place in chance.integers(0, 8 * len(content), chance.integers(1, 20)):
        content[place // 8] ^= 1 << place % 8


def _cut(content: bytearray, other: bytes, chance: Chance) -> None:
    del content[chance.integers(0, len(content)) :]


def _splice(content: bytearray, other: bytes, chance: Chance) -> None:
    source = other if chance.random() < 0.5 else bytes(content)
    start, to = chance.integers(0, len(source)), chance.integers(0, len(content))
    block = source[start : start + int(2 ** (chance.random() * 10))]
    content[to : to + (len(block) if chance.random() < 0.5 else 0)] = block


def _take_out(content: bytearray, other: bytes, chance: Chance) -> None:
    start = chance.integers(0, len(content))
    del content[start : start + int(2 ** (chance.random() * 10))]


def _set_numbers(content: bytearray, other: bytes, chance: Chance) -> None:
    for _ in range(chance.integers(1, 4)):
        size = int(chance.choice([1, 2, 4, 8]))
        place = chance.integers(0, min(len(content), 400))
        extremes = [0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, chance.integers(0, 256)]
        content[place : place + size] = int(chance.choice(np.array(extremes, object))).to_bytes(size, "little")


MUTATIONS: tuple[Mutation, ...] = (_flip, _cut, _splice, _take_out, _set_numbers)


def _with_checksums(content: bytearray) -> bytes:
    """A PNG whose checksums are right again, so that its damage is not seen at once."""
    parts, at = [bytes(content[:8])], 8
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        parts += [bytes(content[at:end]), zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join(parts)


def mutant(number: int, seed: int) -> tuple[str, bytes]:
    """(the sample's name, content); the same for the same numbers."""
    chance = np.random.default_rng((seed, number))
    known = samples()
    names = sorted(known)
    name, other = (names[place] for place in chance.integers(0, len(names), 2))
    content = bytearray(known[name])
    for _ in range(chance.integers(1, 3)):
        if content:
            MUTATIONS[chance.integers(0, len(MUTATIONS))](content, known[other], chance)
    return name, _with_checksums(content) if chance.random() < 0.7 and name.startswith("png") else bytes(content)


def _try(path: Path, output: Path) -> str:
    """How a file ended, in a word and what more there is to say."""
    try:
        picture = read_picture(path)
        with contextlib.suppress(ImageError):  # such as transparency in a JPEG
            write_picture(output, picture)
            if read_picture(output).size != picture.size:
                return "wrong output"
        return "read"
    except ImageError as error:
        line = str(error)
        return "refused" if line.startswith(str(path)) and "\n" not in line else f"message: {line!r}"
    except Exception as error:
        return f"exception: {type(error).__name__}: {error}"


def work(first: int, last: int, seed: int) -> None:
    """In a process of its own: a line for each file before it is read, and one after."""
    said = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(said.fileno(), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            name, content = mutant(number, seed)
            path, output = (
                Path(folder, "mutant"),
                Path(folder, f"output{('.png', '.jpg', '.tif', '.webp')[number % 4]}"),
            )
            path.write_bytes(content)
            print(number, "started", name, flush=True)
            signal.alarm(SECONDS)  # nobody catches it
            ending = _try(path, output)
            signal.alarm(0)
            output.unlink(missing_ok=True)
            if len(list(Path(folder).iterdir())) != 1:
                ending = "partial output"
            elif said.seek(0, os.SEEK_END):
                said.seek(0)
                ending = f"noise: {said.read()!r}"
                said.truncate(0)
            print(number, "ended", " ".join(ending.split()), flush=True)


def run(files: int, seed: int) -> tuple[Counter[str], dict[int, str]]:
    """How many mutants ended how; and, by their numbers, how those ended that should not have."""
    counts, bad, number = Counter[str](), dict[int, str](), 0
    while number < files:
        command = [sys.executable, __file__, "--work", str(number), str(files), "--seed", str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            name = "before the first"
            for line in worker.stdout:
                _, event, rest = line.split(maxsplit=2)
                if event == "started":
                    name, ending = rest.strip(), None
                else:
                    number, ending = number + 1, rest.strip()
                    counts[ending.split(":")[0]] += 1
                    if ending not in GOOD:
                        bad[number - 1] = f"{name}: {ending}"
        if number < files:
            if name == "before the first" or worker.returncode >= 0:
                raise RuntimeError(f"the worker ended with {worker.returncode} at {number}")
            ending = "hang" if worker.returncode == -signal.SIGALRM else "crash"
            counts[ending] += 1
            bad[number] = f"{name}: {ending} ({signal.Signals(-worker.returncode).name})"
            number += 1
    return counts, bad


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("mutants"))
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        first, last = options.work
        work(first, last, options.seed)
        return
    counts, bad = run(options.files, options.seed)
    print("| ending | files |\n| --- | --- |")
    for ending, count in counts.most_common():
        print(f"| {ending} | {count} |")
    for number, ending in bad.items():
        options.keep.mkdir(exist_ok=True)
        (options.keep / str(number)).write_bytes(mutant(number, options.seed)[1])
        print(f"{options.keep / str(number)}: {ending}")


if __name__ == "__main__":
    main()
