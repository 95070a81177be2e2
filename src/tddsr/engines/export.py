"""A student as an ONNX graph of any height and width, checked against the model that it is made of."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch.export import Dim

from tddsr import rng
from tddsr.engines.onnx import KEY, Graph, PixelType, load_session
from tddsr.errors import ModelError
from tddsr.files import file_hash, whole_or_nothing
from tddsr.model import Model
from tddsr.tiling import Margins, round_up
from tddsr.weights.file import source_of
from tddsr.weights.names import find_model, load_model, read_notes

_OPSET = 18

_LEVEL = 1 / 255
"""How far a graph's pixels may be from PyTorch's."""

_SIZES = ((37, 53), (64, 21), (5, 90))
"""Heights and widths that a graph is checked at, rounded up to what the network takes."""

_UNMEASURED = 20_000
"""Bytes a pixel where memory is not measured: on other systems than Linux. More than any measured yet."""

_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from tddsr.engines.onnx import load_session
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
session, feed = load_session(Path(sys.argv[1]), "cpu")[0], {}
side = int(sys.argv[2])
for given in session.get_inputs():
    shape = (side, side, 3) if given.type == "tensor(uint8)" else (1, given.shape[1], side, side)
    feed[given.name] = np.zeros(shape, np.uint8 if given.type == "tensor(uint8)" else np.float32)
before = peak()
for _ in range(3):
    session.run(None, feed)
print(peak() - before)
"""


@dataclass(frozen=True)
class Exported:
    """What was written; ``difference``: the largest from PyTorch's pixels, in [0,1]."""

    graph: Graph
    difference: float


class _Pass(nn.Module):
    """What a graph computes: pixels to pixels, in one step."""

    def __init__(self, model: Model, pixels: PixelType) -> None:
        super().__init__()
        self.model, self.pixels, self.blind = model, pixels, model.ignores_noise

    def forward(self, lr: Tensor, margins: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        if self.pixels == "uint8":
            lr = lr.permute(2, 0, 1)[None].float() / 255
        eps = lr.new_zeros(1, 1, 1, 1) if noise is None and not self.blind else noise
        sides = None if margins is None else _sides(margins, lr)
        hr = (self.model.sample(lr * 2 - 1, eps, margins=sides) / 2 + 0.5).clamp(0, 1)
        return (hr[0].permute(1, 2, 0) * 255).round().to(torch.uint8) if self.pixels == "uint8" else hr


def _sides(margins: Tensor, lr: Tensor) -> Margins:
    """The numbers, which are not known until the graph runs, but that they leave something of ``lr``."""
    top, left, bottom, right = margins.tolist()
    possible = [
        *(side >= 0 for side in (top, left, bottom, right)),
        top + bottom < lr.shape[2],
        left + right < lr.shape[3],
    ]
    for condition in possible:
        torch._check(condition)  # type: ignore[no-untyped-call]
    return top, left, bottom, right


def export(source: str | Path, output: Path, *, pixels: PixelType = "float32", linked: bool = False) -> Exported:
    """Write a model as a graph of one input, ``lr``, and one output, ``hr``; and ``noise`` where pixels hang on it.

    Another input may be left out: ``margins``, int64 (4), lr pixels above, left, below and right that ``hr`` lacks.
    The weights stay as they are in the model file, mostly in 16 bit, and become float32 when the graph is loaded.

    Args:
        source: a model by name or file, as ``load_model`` takes it, of one step.
        output: the graph; what it is told of itself (``Graph``) is JSON among its metadata, under ``tddsr``.
        pixels: ``float32`` takes and gives (1,3,h,w) in [0,1]; ``uint8`` (h,w,3), for other programs.
        linked: leave the weights in the model file, which must lie beside ``output`` wherever it goes.

    Raises:
        ModelError: as ``load_model``; the model takes many steps or sees the whole picture; or the graph's pixels are
            further than 1/255 from PyTorch's.
    """
    model, file = load_model(source), find_model(source)
    halo = model.halo(1)
    if model.default_steps != 1 or halo is None:
        reason = f"takes {model.default_steps} steps" if halo is not None else "sees the whole picture"
        raise ModelError(f"'{source}' {reason}; a graph is of a student of one step, for tiles of any size")
    if linked and output.resolve().parent != file.resolve().parent:
        raise ModelError(f"{output}: a linked graph lies beside its weights, in {file.parent}")
    noisy = not _ignores_noise(model)
    proto = _trace(model, pixels, noisy)
    _take_weights(proto, file, linked)
    graph = Graph(
        model=Path(source).stem, scale=model.scale, multiple=model.multiple, halo=halo,
        noise=model.channels if noisy else 0, bytes_per_lr_pixel=_UNMEASURED, pixels=pixels,
        weights=file_hash(file), notice=source_of(read_notes(source)),
    )  # fmt: skip
    with whole_or_nothing(output) as temporary:
        onnx.save(proto, temporary)
        graph = replace(graph, bytes_per_lr_pixel=_bytes_per_lr_pixel(temporary, model.multiple))
        helper.set_model_props(proto, {KEY: json.dumps(asdict(graph))})
        onnx.save(proto, temporary)
        difference = _difference(model, temporary, graph)
        if difference > _LEVEL:
            raise ModelError(f"'{source}': its graph is {255 * difference:.1f} of 255 from PyTorch's pixels")
    return Exported(graph, difference)


def _trace(model: Model, pixels: PixelType, noisy: bool) -> onnx.ModelProto:
    height, width = (model.multiple * Dim(name, min=1, max=1 << 14) for name in ("height", "width"))
    side = round_up(48, model.multiple)
    if pixels == "uint8":
        example, shapes = [torch.zeros(side, side + 16, 3, dtype=torch.uint8)], [{0: height, 1: width}]
    else:
        example, shapes = [torch.zeros(1, 3, side, side + 16)], [{2: height, 3: width}]
    example.append(torch.zeros(4, dtype=torch.int64))
    shapes.append({})
    if noisy:
        example.append(torch.zeros(1, model.channels, side, side + 16))
        shapes.append({2: height, 3: width})
    for chatty in ("onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Without gradients networks work in bands, whose number would be that of the example.
    with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            _Pass(model, pixels), tuple(example), dynamo=True, opset_version=_OPSET, dynamic_shapes=tuple(shapes),
            input_names=["lr", "margins", "noise"][: len(example)], output_names=["hr"], optimize=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise ModelError("PyTorch made no graph")
    weights = {f"model.network.{name}" for name in model.network.state_dict()}
    optimize_ir(
        program.model, input_size_limit=1 << 20, output_size_limit=1 << 20,
        # What is made of weights is left to ONNX Runtime, which may be given others (`Upscaler.load`'s strength).
        should_fold=lambda node: False if any(value and value.name in weights for value in node.inputs) else None,
    )  # fmt: skip
    proto = program.model_proto
    # A default, so that other programs may leave it out.
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.int64), "margins"))
    _clean(proto)
    return proto


def _clean(proto: onnx.ModelProto) -> None:
    """Leave out where the code stood, and sizes that were worked out."""
    del proto.graph.value_info[:]
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    proto.ClearField("metadata_props")
    for values, names in (
        (proto.graph.input, ("height", "width")),
        (proto.graph.output, ("large_height", "large_width")),
    ):
        for value in values:
            free = [dim for dim in value.type.tensor_type.shape.dim if not dim.HasField("dim_value")]
            for dim, name in zip(free, names, strict=bool(free)):
                dim.dim_param = name


def _take_weights(proto: onnx.ModelProto, file: Path, linked: bool) -> None:
    """Put the weights as they are in ``file`` in place of those in float32, or only where they lie in it."""
    content = file.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:size])
    types = {"F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "F32": TensorProto.FLOAT}
    kept, casts = [], []
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix("model.network.")
        stored = header.get(name)
        if stored is None or stored["dtype"] not in types or stored["shape"] != list(tensor.dims):
            kept.append(tensor)
            continue
        begin, end = (size + place for place in stored["data_offsets"])
        weight = TensorProto(name=name, data_type=types[stored["dtype"]], dims=stored["shape"])
        if linked:
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", file.name), ("offset", begin), ("length", end - begin)):
                weight.external_data.add(key=key, value=str(value))
        else:
            weight.raw_data = content[begin:end]
        kept.append(weight)
        casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept)
    proto.graph.node.extend(nodes)


def _bytes_per_lr_pixel(path: Path, multiple: int) -> int:
    """Peak memory of a tile, measured in a process of its own, since one's own peak only rises."""
    if sys.platform != "linux":
        return _UNMEASURED
    side = round_up(192, multiple)
    command = [sys.executable, "-c", _MEASURE, str(path), str(side)]
    used = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return round_up(int(used) // side**2, 100)


# -- checks -----------------------------------------------------------------------------------------------------------


def _pictures(multiple: int) -> Iterator[Tensor]:
    """(1,3,h,w) in [0,1] with soft shapes, edges and some noise."""
    for number, (height, width) in enumerate((round_up(h, multiple), round_up(w, multiple)) for h, w in _SIZES):
        chance = rng.generator(number)
        soft = F.interpolate(torch.rand(1, 3, 5, 5, generator=chance), (height, width), mode="bicubic")
        edges = 0.4 * (torch.arange(height)[:, None] + torch.arange(width) > (height + width) // 2)
        yield (0.7 * soft + edges + 0.02 * torch.randn(soft.shape, generator=chance)).clamp(0, 1)


def _noise(model: Model, picture: Tensor, seed: int) -> Tensor:
    return torch.randn(1, model.channels, *picture.shape[2:], generator=rng.generator(seed, 1))


@torch.inference_mode()
def _ignores_noise(model: Model) -> bool:
    """Whether a pass without any gives the pixels of one with it, within ``_LEVEL``."""
    run = _Pass(model, "float32")
    return all(
        (run(picture) - run(picture, None, _noise(model, picture, seed))).abs().max() < _LEVEL
        for picture in _pictures(model.multiple)
        for seed in range(2)
    )


@torch.inference_mode()
def _difference(model: Model, path: Path, graph: Graph) -> float:
    """The largest from what PyTorch makes with noise, in [0,1], of whole pictures and of what is not in margins."""
    session, _ = load_session(path, "cpu")
    largest = 0.0
    for picture in _pictures(model.multiple):
        noise = _noise(model, picture, 2)
        lr: Any = picture
        if graph.pixels == "uint8":
            lr = (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
        feed = {"lr": lr.numpy(), **({"noise": noise.numpy()} if graph.noise else {})}
        below, left = (side // 2 // model.multiple * model.multiple for side in picture.shape[2:])
        for margins in (None, torch.tensor([0, left, below, 0])):
            more = {} if margins is None else {"margins": margins.numpy()}
            hr: Any = session.run(None, feed | more)[0]
            expected = _Pass(model, graph.pixels)(lr, margins, noise).numpy()
            white = 255 if graph.pixels == "uint8" else 1
            largest = max(largest, float(np.abs(hr.astype(np.float64) - expected).max()) / white)
    return largest
