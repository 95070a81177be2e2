"""Enlarge a picture with ONNX Runtime, numpy and Pillow alone, as another program would.

    tddsr export compact -o compact.onnx
    python examples/onnx_numpy.py compact.onnx examples/coffee.jpg large.png

The whole picture goes through at once: what is larger than a megapixel wants tiles, or `tddsr upscale`.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

graph, small, large = sys.argv[1:]
session = onnxruntime.InferenceSession(graph)
told = json.loads(session.get_modelmeta().custom_metadata_map["tddsr"])
pixels = np.asarray(Image.open(small).convert("RGB"), np.float32) / 255
height, width, _ = pixels.shape
padding = (0, -height % told["multiple"]), (0, -width % told["multiple"]), (0, 0)
feed = {"lr": np.pad(pixels, padding, "edge").transpose(2, 0, 1)[None]}
if told["noise"]:
    shape = (1, told["noise"], *feed["lr"].shape[2:])
    feed["noise"] = np.random.default_rng(0).standard_normal(shape, np.float32)
hr = session.run(None, feed)[0][0].transpose(1, 2, 0)[: told["scale"] * height, : told["scale"] * width]
Image.fromarray((hr * 255).round().astype(np.uint8)).save(large)
