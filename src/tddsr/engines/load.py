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
from tddsr.weights.names import find_graph, find_model
from tddsr.weights.registry import MODELS

if TYPE_CHECKING:
    from tddsr.engines.torch import TorchEngine

_DRIVERS = {"linux": ("libcuda.so.1", "libamdhip64.so"), "win32": ("nvcuda.dll",)}
"""Libraries that are there where PyTorch may find an accelerator, by system."""


def load_engine(
    model: str | Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str | None = None,
    fast: bool = False,
    compiled: bool = False,
) -> Engine:
    """A model by name or from a file, ready to run.

    Args:
        model: as ``find_model`` takes it, or a graph that ``tddsr export`` wrote (.onnx).
        engine: ``onnx``, for shipped models and graphs; ``torch``, for all but graphs; ``auto``: ``onnx`` where it can
            do what is asked for, unless PyTorch is installed and reaches an accelerator that it does not.
        device: of either engine; ``auto`` is an accelerator if there is one, else the CPU.
        dtype: ``float32``, ``bfloat16`` or ``float16``; less than float32 is for ``torch``.
        fast: bfloat16 where PyTorch is installed and ``device`` computes in it, else as without.
        compiled: for ``torch``: see ``TorchEngine.load``.

    Raises:
        ModelError: no such model, it cannot be used, or it needs PyTorch, which is not installed.
        UsageError: no such engine, device or type; or options that do not go together.
    """
    for name, value, known in (
        ("engine", engine, ("auto", *get_args(EngineName))),
        ("dtype", dtype or "float32", get_args(Precision)),
    ):
        if value not in known:
            raise UsageError(f"{name} is '{value}'; it must be one of {', '.join(known)}")
    if fast and dtype is not None:
        raise UsageError(f"fast chooses a type by itself: leave it or dtype '{dtype}' away")
    graph = find_graph(model)
    only_torch = compiled or (dtype or "float32") != "float32"
    if engine == "onnx" and only_torch:
        raise UsageError("half precision and compiling are for the engine torch")
    if engine == "onnx" and graph is None:
        raise ModelError(f"'{model}' is no graph; make one: tddsr export {model} -o model.onnx")
    if engine == "torch" or only_torch or graph is None:
        torch_engine = _torch_engine(model)
        precision = torch_engine.fast_precision(device) if fast else cast("Precision", dtype or "float32")
        return torch_engine.load(model, device, precision, compiled=compiled)
    if engine == "auto" and graph != Path(model) and importlib.util.find_spec("torch") is not None:
        if _beyond_onnx(device):
            return load_engine(model, engine="torch", device=device, fast=fast)
        both = device.partition(":")[0] in ("auto", "cpu", "cuda")
        if fast and both and _torch_engine(model).fast_precision(device) != "float32":
            return load_engine(model, engine="torch", device=device, fast=True)
    return OnnxEngine(graph, device)


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
