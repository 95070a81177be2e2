import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import photo

METRICS = {
    "PSNR-Y": {"better": "higher", "range": [0, None], "needs": "reference", "missing": None},
    "LPIPS-Alex": {"better": "lower", "range": [0, 1], "needs": "reference", "missing": None},
    "FID": {"better": "lower", "range": [0, None], "needs": "set", "missing": None},
    "CLIPIQA": {
        "better": "higher",
        "range": [0, 1],
        "needs": "none",
        "missing": "needs clip.pt",
    },
}


def save_result(folder: Path, methods=("bicubic", "compact", "teacher"), count=12, size=256, **changes) -> Path:
    """A made-up result: each method is a little better than the one before it; three noise seeds but for bicubic."""
    rng = np.random.default_rng(0)
    scores, sets = [], []
    names = [f"{number:03}.webp" for number in range(count)]
    for place, method in enumerate(methods):
        for seed in range(1 if method == "bicubic" else 3):
            for name in names:
                values = {
                    "PSNR-Y": 24 + place + rng.normal(0, 1),
                    "LPIPS-Alex": 0.5 - 0.1 * place + rng.normal(0, 0.03),
                }
                scores.append({"method": method, "picture": name, "seed": seed, "values": values})
            sets.append({"method": method, "seed": seed, "values": {"FID": 80 - 9 * place + rng.normal(0, 0.5)}})
    result = {
        "format": "tddsr-eval-1",
        "name": folder.name,
        "dataset": {
            "name": "<made-up> pictures", "hr": "hr", "lr": None, "degradation": "resshift, seed 0", "pictures": count,
        },
        "protocol": {
            "scale": 4, "crop": None, "border": 0, "colour": "Y of BT.601", "tile": None, "dtype": "float32",
            "seeds": 3, "statement": f"{count} pairs, x4, whole pictures, mean over 3 noise seeds",
            "versions": {"tddsr": "0.1.0"},
        },
        "metrics": METRICS,
        "methods": {name: {"spec": name, "steps": 1, "quoted": False} for name in methods},
        "scores": scores,
        "sets": sets,
        "failures": [],
    } | changes  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    for number, name in enumerate(names[:5] if size else []):
        hr = Image.fromarray(photo(size, size + 64, number, noise=12))
        small = hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BOX)
        large = small.resize(hr.size, Image.Resampling.BICUBIC)
        made = {method: Image.blend(large, hr, place / len(methods)) for place, method in enumerate(methods)}
        for kind, picture in {"hr": hr, "lr": small, **made}.items():
            path = folder / "pictures" / kind / Path(name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return folder
