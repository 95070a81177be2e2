"""Tables 5 and 6 at compact scale: train each row from the same student, score them, write tables and pictures.

    python benchmarks/ablation.py --data DATA --features FEATURES [--steps 600] [--rows 0 2]

Trains by ``tddsr train`` (runs that are there already are gone on with or left as they are) and scores by the
functions of ``tddsr eval``. Writes runs/ablation/, the part of docs/ablation.md between its two marks, and
docs/ablation.png. ``DATA`` has the folders train, val and test/RealSet65. With ``--rows`` only those rows are trained
and nothing is scored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tddsr.evaluation.methods import Enlarge
    from tddsr.evaluation.pictures import Pair

ROOT = Path(__file__).parents[1]
ALEXNET = ["adversary.hr.features=alexnet", "adversary.lr.features=alexnet"]
CYCLIC = ["adversary.update=cyclic", "adversary.adaptive=false", "loss.hr=0.012", "loss.lr=0.006"]
"""with the weights that the adaptive ones of v1 come to, on average"""
ROWS: dict[str, tuple[str, str, list[str]]] = {
    "Distill": ("distill", "compact-distill", []),
    "Distill + HR": ("hr", "compact-distill-hr", []),
    "Distill + LR": ("lr", "compact-distill-lr", []),
    "Distill + HR + LR: TDDSR (v1)": ("tddsr", "compact-tddsr", []),
    "TDDSR, discriminators pre-trained (v2)": ("pretrained", "compact-tddsr-pretrained", []),
    "TDDSR, adversarial weights x 3": ("strong", "compact-tddsr", ["loss.hr=0.45", "loss.lr=0.15"]),
    "TDDSR, discriminators on AlexNet": ("alexnet", "compact-tddsr", ALEXNET),
    "TDDSR, cyclic updates": ("cyclic", "compact-tddsr", CYCLIC),
}
"""row: its folder, recipe and overrides"""
SHOWN = (1, 5, 9, 14, 20, 27)
"""pictures of data/val in the side-by-side"""
CROP, SEEDS = 256, 3
MARKS = ("<!-- tables: begin -->\n", "<!-- tables: end -->\n")


def folder_of(row: str) -> Path:
    """Where a row's run lies."""
    return ROOT / "runs" / "ablation" / ROWS[row][0]


def train(row: str, common: Sequence[str]) -> None:
    """One row, by the package's own command."""
    _, recipe, overrides = ROWS[row]
    command = [sys.executable, "-m", "tddsr", "train", recipe, *common, *overrides, f"out={folder_of(row)}"]
    subprocess.run(command, check=True)


def score(data: Path, features: Path, start: str) -> list[str]:
    """Score all rows on both sets; returns Markdown."""
    from tddsr.evaluation.methods import find_method
    from tddsr.evaluation.pictures import find_pictures
    from tddsr.evaluation.results import Protocol
    from tddsr.evaluation.run import evaluate
    from tddsr.metrics.table import Setting, choose, load_scores

    models = {"bicubic": "bicubic", "the student they all start from": start}
    models |= {row: str(folder_of(row) / "last.safetensors") for row in ROWS}
    methods = {name: find_method(model, "cpu")[1] for name, model in models.items()}
    scores = load_scores(choose([], truth=True), Setting(features=features))
    niqe = load_scores(choose([], truth=False))
    val = find_pictures(data / "val", crop=CROP)
    real = find_pictures(None, data / "test" / "RealSet65", crop=2 * CROP)
    on_val = evaluate(methods, val, scores, Protocol(crop=CROP, seeds=SEEDS))
    on_real = evaluate(methods, real, niqe, Protocol(crop=2 * CROP, seeds=SEEDS))
    table, alone = on_val.means(), on_real.means()
    if lacking := [*scores.missing.values(), *(failure.reason for failure in on_val.failures + on_real.failures)]:
        raise SystemExit("\n".join(lacking))
    (ROOT / "runs" / "ablation" / "scores.json").write_text(json.dumps({"val": table, "RealSet65": alone}, indent=1))

    columns = ["LPIPS-VGG", "LPIPS-Alex", "PSNR", "SSIM", "NIQE"]
    lines = [
        "| | " + " | ".join(columns) + " | NIQE, RealSet65 |",
        "| --- " * (len(columns) + 2) + "|",
        *(
            f"| {name} | " + " | ".join(f"{values[key]:.4f}" for key in columns) + f" | {alone[name]['NIQE']:.3f} |"
            for name, values in table.items()
        ),
        "",
        on_val.protocol.statement + ".",
        "",
        "Last column: " + on_real.protocol.statement + ".",
        "",
    ]
    pictured = list(methods)[: 2 + 4]  # up to the last row of Table 5
    show({name: methods[name].enlarge for name in pictured}, list(val), ROOT / "docs" / "ablation.png")
    return lines


def show(methods: Mapping[str, Enlarge], pairs: Sequence[Pair], file: Path) -> None:
    """A row for each picture, a column for each method, the truth last."""
    import numpy as np
    from PIL import Image

    rows = []
    for index in SHOWN:
        pair = pairs[index]
        assert pair.hr is not None
        pictures = [enlarge(pair, 0) for enlarge in methods.values()]
        rows.append(np.concatenate([*pictures, pair.hr], axis=1)[64:192])
    Image.fromarray(np.concatenate(rows)).save(file, optimize=True)


def main() -> None:
    """Train what is not trained yet, then score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default=str(ROOT / "models" / "compact-distill.safetensors"))
    parser.add_argument("--teacher", default=str(ROOT / "models" / "compact-teacher.safetensors"))
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--features", type=Path, default=ROOT / "features")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, nargs="+", choices=range(len(ROWS)))
    options = parser.parse_args()
    common = [
        f"start={options.start}", f"teacher={options.teacher}", f"features={options.features}",
        f"data.train={options.data / 'train'}", f"validation.folder={options.data / 'val'}",
        f"steps={options.steps}", f"targets={ROOT / 'runs' / 'ablation' / 'targets'}",
        "optim.rate=2e-4", "optim.schedule=cosine", "optim.warmup=0", "optim.ema=0.995",
        f"validation.every={max(1, options.steps // 2)}", "validation.count=16",
    ]  # fmt: skip
    for index, row in enumerate(ROWS):
        if options.rows is None or index in options.rows:
            train(row, common)
    if options.rows is not None:
        return
    page = ROOT / "docs" / "ablation.md"
    before, rest = page.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    tables = "\n".join(score(options.data, options.features, options.start))
    page.write_text(before + MARKS[0] + tables + MARKS[1] + after)


if __name__ == "__main__":
    main()
