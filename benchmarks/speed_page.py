"""The page of ``speed.py``: ratios first, then seconds, memory, cost against size, start-up."""

from __future__ import annotations

import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("tddsr", "onnxruntime", "torch", "numpy", "pillow", "pyvips", "ncnn")
COUNTED = {1: "one thread", 2: "two threads"}


def pair(values: list[float]) -> str:
    """Least / median."""
    least, median = (f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in (min(values), statistics.median(values)))
    return f"{least} / {median}" if len(values) > 1 else least


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """In Markdown."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Case:
    """What one process measures; ``megapixels``: from file to file, to a result of this size."""

    method: str
    width: int
    height: int
    threads: int
    megapixels: float | None = None


@dataclass
class Times:
    """Of one case, over all rounds: seconds to the first picture from the start of the process, and of those after."""

    label: str = ""
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rest: float = 0
    peak: float = 0

    def add(self, found: dict[str, Any]) -> None:
        self.label = found["label"]
        self.cold.append(found["cold"])
        self.warm += found["warm"]
        self.cpu += found["cpu"]
        self.rest, self.peak = max(self.rest, found["rest"]), max(self.peak, found["peak"])


@dataclass(frozen=True)
class Page:
    """All that was found; ``peaks`` in GFLOP a CPU second by threads and type, ``costs`` in multiply-adds a pixel."""

    peaks: dict[int, dict[str, float]]
    costs: dict[str, float]
    start_up: dict[str, list[float]]
    times: dict[Case, Times]
    load_before: float
    seconds: float

    def write(self, output: Path) -> None:
        """The page, and the plot beside it."""
        plot = output.with_suffix(".png")
        parts = [self._head(), *self._pictures(), self._sizes(plot.name), self._start_up()]
        output.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
        if any(case.megapixels for case in self.times):
            self._plot(plot)

    def _head(self) -> str:
        command = shlex.join(
            ["python", "benchmarks/speed.py", *(Path(a).name if "/" in a else a for a in sys.argv[1:])]
        )
        noisy = self.load_before > 0.5
        quiet = "**the machine was busy: these figures are noisy**" if noisy else "nothing else ran"
        peaks = "; ".join(
            f"{COUNTED.get(n, f'{n} threads')} {p['float32']:.0f} in float32, {p['bfloat16']:.0f} in bfloat16"
            for n, p in self.peaks.items()
        )
        return f"""# Benchmarks

Written by `{command}` on {time.strftime("%Y-%m-%d")}, in {self.seconds / 60:.0f} minutes.

{_machine()}. Load before the run {self.load_before:.1f}: {quiet}. {_versions()}.
Measured peak, GFLOP of matrix products a CPU second: {peaks}.

Every case is a process of its own, and all cases of a round follow each other before the next round. *Warm* are calls
after the first one, with the picture and its result in memory, least / median in seconds. *Cold* is from the start of
Python to the first picture, the package and the model loaded. *CPU* is user + system of a warm call, the least. *MiB*
is the largest resident memory of the process; *of peak*: the multiply-adds that the picture needs, those of margins not
counted, over what as many CPU seconds of matrix products do in that type; more than all of it where convolutions are
done by Winograd's way, which needs fewer. *x4plus* is Real-ESRGAN x4plus with its own weights; *paper* is the paper's
one-step model (Swin U-Net and VQ autoencoder) with random weights, in this package's code. Large pictures, of which the
first call counts as warm, and *paper* ran in one round."""

    def _pictures(self) -> Iterator[str]:
        """For each picture and number of threads a table."""
        groups: dict[tuple[int, int, int], list[Case]] = {}
        for case in self.times:
            if case.megapixels is None:
                groups.setdefault((case.width, case.height, case.threads), []).append(case)
        for (width, height, threads), cases in sorted(groups.items()):
            base = next((self.times[case] for case in cases if case.method == "x4plus/torch"), None)
            title = f"## {width}x{height} to {4 * width}x{4 * height}, {COUNTED.get(threads, f'{threads} threads')}"
            head = ["", "times as fast as x4plus", "warm", "cold", "CPU", "MiB", "of peak"]
            yield f"{title}\n\n{table(head, (self._row(case, base) for case in cases))}"

    def _row(self, case: Case, base: Times | None) -> list[object]:
        found = self.times[case]
        ratio = "" if base is None else f"{min(base.warm) / min(found.warm):.3g}"
        cost, precision = self.costs.get(case.method.partition("/")[0]), found.label.rpartition(", ")[2]
        share = ""
        if cost is not None:
            peak = self.peaks[case.threads][precision] * 1e9
            share = f"{2 * cost * case.width * case.height / min(found.cpu) / peak:.0%}"
        cold = pair(found.cold)
        return [found.label, ratio, pair(found.warm), cold, f"{min(found.cpu):.3g}", f"{found.peak:.0f}", share]

    def _sizes(self, plot: str) -> str:
        cases = [case for case in self.times if case.megapixels]
        if not cases:
            return ""
        threads = COUNTED.get(cases[0].threads, f"{cases[0].threads} threads")
        head = ["megapixels out", "from", "", "seconds", "seconds a megapixel", "CPU", "MiB before", "MiB above"]
        rows = []
        for case in sorted(cases, key=lambda case: case.method):
            found, out = self.times[case], case.megapixels or 1
            label, seconds, above = found.label.partition(",")[0], found.warm[0], found.peak - found.rest
            row = [f"{out:g}", f"{case.width}x{case.height}", label, f"{seconds:.3g}", f"{seconds / out:.3g}"]
            rows.append([*row, f"{found.cpu[0]:.3g}", f"{found.rest:.0f}", f"{above:.0f}"])
        return f"""## Cost against size

From a PNG file to a PNG file, {threads}, the model loaded before, one run each. *MiB above*: the largest resident
memory less that before.

{table(head, rows)}

![Seconds and memory against size]({plot})"""

    def _start_up(self) -> str:
        rows = [(name, pair(used)) for name, used in self.start_up.items()]
        count = len(next(iter(self.start_up.values())))
        return f"""## Start-up

Whole commands on a PNG of 64x64, one thread, {count} times in turn, CPU seconds (user + system), least / median.

{table(["", "CPU seconds"], rows)}"""

    def _plot(self, path: Path) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        lines: dict[str, list[tuple[float, Times]]] = {}
        for case, found in self.times.items():
            if case.megapixels:
                lines.setdefault(found.label.partition(",")[0], []).append((case.megapixels, found))
        for name, points in sorted(lines.items()):
            sizes = [size for size, _ in points]
            left.plot(sizes, [found.warm[0] for _, found in points], "o-", label=name)
            right.plot(sizes, [found.peak - found.rest for _, found in points], "o-", label=name)
        left.set(xscale="log", yscale="log", xlabel="megapixels out", ylabel="seconds")
        right.set(xscale="log", xlabel="megapixels out", ylabel="MiB above rest")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=110)


def _machine() -> str:
    info: Any = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", info)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1] if model else platform.machine()
    return f"{name} ({', '.join(flags)}), {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
