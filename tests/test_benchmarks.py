"""The commands that measure and write pages."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SPEED = Path(__file__).parents[1] / "benchmarks" / "speed.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_the_quick_form_writes_its_page_and_plot(tmp_path):
    subprocess.run([sys.executable, SPEED, "--quick", "--output", tmp_path / "page.md"], check=True)
    page = (tmp_path / "page.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    (ours,) = [row for row in rows if row[0] == "compact-small, ONNX Runtime, float32"]
    least, _ = ours[2].split(" / ")
    assert 0 < float(least) < float(ours[3])  # the first picture takes the longest
    assert 0 < int(ours[6].removesuffix("%")) < 200
    sizes = {float(row[0]): row for row in rows if len(row) > 2 and row[2] == "compact-small"}
    assert sizes.keys() == {0.01, 0.1}
    with Image.open(tmp_path / "page.png") as plot:
        assert plot.width > plot.height > 100


def test_theirs_is_what_ratios_compare_with(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SPEED.parent)
    from speed_page import Case, Page, Times

    times = {}
    for method, seconds in (("x4plus/torch", 2.0), ("compact/onnx", 0.5)):
        times[Case(method, 64, 64, 1)] = Times(f"{method}, float32", [9.0], [seconds, 3.0], [seconds], 10, 20)
    peaks = {1: {"float32": 100.0, "bfloat16": 200.0}}
    # 0.5 CPU seconds of 100 GFLOP have room for 6103515 multiply-adds a pixel of 64x64.
    page = Page(peaks, {"compact": 6103515 / 2}, {"tddsr": [1.0]}, times, 0, 60)
    page.write(tmp_path / "a.md")
    row = next(line for line in (tmp_path / "a.md").read_text().splitlines() if line.startswith("| compact/onnx"))
    assert row == "| compact/onnx, float32 | 4 | 0.5 / 1.75 | 9 | 0.5 | 20 | 50% |"
    assert not list(tmp_path.glob("*.png"))


def test_the_benchmark_of_accelerators_goes_on_where_a_case_fails(tmp_path):
    options = [
        "--device",
        "cpu",
        "--models",
        "compact-small",
        "--sizes",
        "0x0",
        "32x32",
        "--output",
        tmp_path / "page.md",
    ]
    subprocess.run([sys.executable, SPEED.with_name("accelerator.py"), *options], check=True, capture_output=True)
    page = (tmp_path / "page.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| c")]
    measured = [row for row in rows if row[1] == "32x32"]
    assert {row[0] for row in measured} == {"compact-small, bfloat16", "compact-small, float32"}
    assert all(float(row[4]) > 0 and float(row[6]) > 0 for row in measured)
    assert "Failed: compact-small, bfloat16, 0x0" in page
