"""ONNX Runtime: a student as a graph, without PyTorch, on a CPU or whatever the installed build of it knows."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from tddsr.engines.engine import NO_MARGINS, EngineName, Noise, Precision, Sampler, Work, out_of_memory
from tddsr.errors import ModelError, UsageError
from tddsr.pictures.rows import Floats
from tddsr.tiling import Margins
from tddsr.weights.strength import Weights

KEY = "tddsr"
"""Of what a graph says of itself, among its metadata."""

_FORMAT = "tddsr-graph-2"

PixelType = Literal["float32", "uint8"]
"""What a graph takes and gives."""

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # by default it rounds to 11 bit
    "directml": ("DmlExecutionProvider", {}),
    "coreml": ("CoreMLExecutionProvider", {}),
    "openvino": ("OpenVINOExecutionProvider", {"precision": "ACCURACY"}),  # by default it may round to 8 bit
}
"""What each device is called there, and its settings: float32 everywhere."""

_AUTOMATIC = ("cuda", "directml", "cpu")
"""The first that there is. CoreML is in every build for Macs, and compiles anew for each size of a tile."""

_REMEDIES = {
    "cuda": "pip install onnxruntime-gpu in place of onnxruntime",
    "directml": "pip install onnxruntime-directml in place of onnxruntime",
    "openvino": "pip install onnxruntime-openvino in place of onnxruntime",
    "mps": "PyTorch has it: pip install 'tddsr[torch]'",
}
"""For devices that are not there."""


@dataclass(frozen=True)
class Graph:
    """What a graph says of itself.

    ``multiple``, ``halo`` and ``bytes_per_lr_pixel`` as ``Engine`` has them; ``noise``: channels of the input of that
    name, 0 where there is none; ``pixels``: float32 or uint8; ``weights``: sha256 of the model file that it is made of.
    """

    model: str
    scale: int
    multiple: int
    halo: int
    noise: int
    bytes_per_lr_pixel: int
    pixels: PixelType
    weights: str
    notice: str
    format: str = _FORMAT


def devices() -> list[str]:
    """What the installed ONNX Runtime runs on."""
    available = onnxruntime.get_available_providers()
    return [name for name, (provider, _) in PROVIDERS.items() if provider in available]


def _find_device(device: str) -> str:
    name, _, number = device.partition(":")
    here = devices()
    if name == "auto" and not number:
        return next(name for name in _AUTOMATIC if name in here)
    if name not in here or (number and (name == "cpu" or not number.isdecimal())):
        remedy = f"; {_REMEDIES[name]}" if name in _REMEDIES else ""
        raise UsageError(f"device '{device}' is not in this ONNX Runtime, which has {', '.join(here)}{remedy}")
    return device


def _threads() -> int:
    """As PyTorch has them: what OMP_NUM_THREADS says, else as many as the process may use; 0: all cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        return max(int(asked), 1)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if usable is None or usable == os.cpu_count() else usable


def load_session(
    path: Path, device: str, threads: int | None = None, weights: Weights | None = None
) -> tuple[onnxruntime.InferenceSession, str]:
    """A graph, whatever it is, on a device; and what that is called. ``weights``: see ``OnnxEngine``.

    Raises:
        ModelError: it cannot be used.
        UsageError: no such device.
    """
    chosen = _find_device(device)
    name, _, number = chosen.partition(":")
    provider, settings = PROVIDERS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception as well
    options.enable_mem_pattern = False  # half the memory; and tiles differ in size
    options.intra_op_num_threads = _threads() if threads is None else threads
    # Threads that wait sleep: where others compute too, spinning costs a quarter of the time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights is not None:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
    providers = [(provider, settings | ({"device_id": number} if number else {}))]
    if name != "cpu":
        providers.append(("CPUExecutionProvider", {}))
    if device == "auto":
        onnxruntime.set_default_logger_severity(4)  # of what is tried in vain
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's have no common class
        raise ModelError(f"{path} cannot be used as an ONNX graph: {_first_line(error)}") from error
    if session.get_providers()[0] == provider:
        return session, chosen
    if device != "auto":
        raise UsageError(f"device '{device}' cannot be used here; try auto or cpu")
    return session, "cpu"


class OnnxEngine:
    """A graph that ``tddsr export`` wrote.

    Args:
        path: of the graph; where its weights lie in another file, that is found beside it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``directml``, ``coreml``, ``openvino``.
        threads: of a CPU; None: what OMP_NUM_THREADS says, else as many as the process may use.
        weights: in place of those of these names in the other file.

    Raises:
        ModelError: not such a graph, or it has no such weights in another file.
        UsageError: no such device.
    """

    name: EngineName = "onnx"
    precision: Precision = "float32"
    default_steps = 1

    def __init__(
        self, path: Path, device: str = "auto", threads: int | None = None, weights: Weights | None = None
    ) -> None:
        self.session, self.device = load_session(path, device, threads, weights)
        self.graph = _read(self.session.get_modelmeta().custom_metadata_map, path)
        self.scale, self.multiple, self.channels = self.graph.scale, self.graph.multiple, self.graph.noise
        self.bytes_per_lr_pixel: int | None = self.graph.bytes_per_lr_pixel

    def halo(self, steps: int) -> int:
        """The same for any number of steps, of which there is but one."""
        return self.graph.halo

    def check_steps(self, steps: int) -> None:
        if steps != 1:
            raise UsageError(f"cannot take {steps} steps: a graph takes 1 step; many need a teacher, and PyTorch")

    def free_memory(self) -> None:
        """Not known of accelerators here."""

    def run(
        self,
        lr: Floats,
        noise: Noise,
        margins: Margins = NO_MARGINS,
        steps: int = 1,
        sampler: Sampler = "deterministic",
    ) -> Floats:
        """See ``Engine``."""
        self.check_steps(steps)
        feed = {"lr": lr, "margins": np.array(margins, np.int64)}
        if self.graph.noise:
            feed["noise"] = noise(0)
        try:
            hr: Floats = self.session.run(None, feed)[0]
        except Exception as error:
            if out_of_memory(error):
                raise MemoryError(_first_line(error)) from error
            raise
        return hr

    def run_each(self, tiles: Iterable[Work], steps: int = 1, sampler: Sampler = "deterministic") -> Iterator[Floats]:
        """See ``Engine``."""
        return itertools.starmap(partial(self.run, steps=steps, sampler=sampler), tiles)


def _read(metadata: dict[str, str], path: Path) -> Graph:
    try:
        values: dict[str, Any] = json.loads(metadata[KEY])
        graph = Graph(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} was not written by tddsr export: its metadata say nothing of use") from error
    if graph.format != _FORMAT:
        raise ModelError(f"{path} is of another version of tddsr ({graph.format}): export it again")
    if graph.pixels != "float32":
        raise ModelError(f"{path} takes pixels of 8 bit, for other programs: export it again without --uint8")
    return graph


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
