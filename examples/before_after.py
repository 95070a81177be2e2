"""Make before_after.jpg: coffee.jpg and cat.jpg enlarged four times, left bicubic, right tddsr.

./dev upscale examples/coffee.jpg examples/cat.jpg --overwrite && .venv/bin/python examples/before_after.py
"""

from pathlib import Path

from PIL import Image

GAP = 8
here = Path(__file__).parent
rows = []
for name in ("coffee", "cat"):
    with Image.open(here / f"{name}.jpg") as lr, Image.open(here / f"{name}_x4.jpg") as ours:
        rows.append((lr.resize(ours.size, Image.Resampling.BICUBIC), ours.copy()))
width, height = rows[0][0].size
both = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), "white")
for row, pictures in enumerate(rows):
    for column, picture in enumerate(pictures):
        both.paste(picture, (column * (width + GAP), row * (height + GAP)))
both.save(here / "before_after.jpg", quality=92, subsampling=0)
