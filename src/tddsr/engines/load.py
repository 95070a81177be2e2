"""Which engine runs a model."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from tddsr.engines.engine import Engine, EngineName, Precision
from tddsr.engines.onnx import PROVIDERS, OnnxEngine, devices
from tddsr.errors import ModelError, UsageError
from tddsr.weights.names import find_graph, find_model, find_weights
from tddsr.weights.registry import MODELS

if TYPE_CHECKING:
    from tddsr.engines.torch import TorchEngine

_DRIVERS = {"linux": ("libcuda.so.1", "libamdhip64.so"), "win32": ("nvcuda.dll",)}
"""Libraries that are there where PyTorch may find an accelerator, by system."""


def load_engine(
    model: str | Path,
    *,
    strength: float = 1,
    faithful: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str | None = None,
    fast: bool = False,
    compiled: bool = False,
    threads: int | None = None,
) -> Engine:
    """A model by name or from a file, ready to run; arguments and errors are those of ``Upscaler.load``."""
    precision = dtype or "float32"
    for name, value, known in (
        ("engine", engine, ("auto", *get_args(EngineName))),
        ("dtype", precision, get_args(Precision)),
    ):
        if value not in known:
            raise UsageError(f"{name} is '{value}'; it must be one of {', '.join(known)}")
    if fast and dtype is not None:
        raise UsageError(f"fast chooses a type by itself: leave it or dtype '{dtype}' away")
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it must be 1 or more, or None for all")
    graph = find_graph(model)
    only_torch = compiled or precision != "float32"
    if engine == "onnx" and only_torch:
        raise UsageError("half precision and compiling are for the engine torch")
    if engine == "onnx" and graph is None:
        raise ModelError(f"'{model}' is no graph; make one: tddsr export {model} -o model.onnx")
    either = engine == "auto" and graph != Path(model)
    if graph is None or only_torch or engine == "torch" or (either and _torch_is_better(device, fast)):
        torch_engine = _torch_engine(model)
        precision = torch_engine.fast_precision(device) if fast else precision
        return torch_engine.load(
            model, device, cast("Precision", precision), compiled=compiled, threads=threads,
            weights=find_weights(model, strength, faithful),
        )  # fmt: skip
    return OnnxEngine(graph, device, threads, find_weights(model, strength, faithful))


def _torch_engine(model: str | Path) -> type[TorchEngine]:
    try:
        from tddsr.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        if str(model) not in MODELS:
            find_model(model)  # a wrong name is told first
        raise ModelError(f"'{model}' as it is asked for needs PyTorch: pip install 'tddsr[torch]'") from error
    return TorchEngine


def _torch_is_better(device: str, fast: bool) -> bool:
    """Whether PyTorch is installed and alone reaches the accelerator ``device``, or computes there in bfloat16."""
    if importlib.util.find_spec("torch") is None:
        return False
    if _beyond_onnx(device):
        return True
    if not fast or device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        return False
    from tddsr.engines.torch import TorchEngine

    return TorchEngine.fast_precision(device) != "float32"


def _beyond_onnx(device: str) -> bool:
    """Whether ``device`` is an accelerator that PyTorch alone reaches; without importing it where there is none."""
    if device != "auto":
        name = device.partition(":")[0]
        return name not in devices() and (name == "cuda" or name not in PROVIDERS)
    if set(devices()) & {"cuda", "directml"} or not _accelerator_likely():
        return False
    from tddsr.device import pick_device

    return pick_device().type != "cpu"


def _accelerator_likely() -> bool:
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    for library in _DRIVERS.get(sys.platform, ()):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False
