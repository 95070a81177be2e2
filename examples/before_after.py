"""Make before_after.png: coffee.jpg enlarged four times, left bicubic, right tddsr.

./dev upscale examples/coffee.jpg --overwrite && .venv/bin/python examples/before_after.py
"""

from pathlib import Path

from PIL import Image

here = Path(__file__).parent
with Image.open(here / "coffee.jpg") as lr, Image.open(here / "coffee_x4.jpg") as ours:
    bicubic = lr.resize(ours.size, Image.Resampling.BICUBIC)
    both = Image.new("RGB", (2 * ours.width + 8, ours.height), "white")
    both.paste(bicubic, (0, 0))
    both.paste(ours, (ours.width + 8, 0))
both.save(here / "before_after.png")
