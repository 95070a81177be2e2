"""Where networks run, and what a report of a fault should say about it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tddsr.downloads.cache import cache_folder
from tddsr.errors import UsageError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """'auto' is the accelerator if there is one, else the CPU.

    Raises:
        UsageError: no such device on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device '{name}' cannot be used here; try auto or cpu") from error
    return device


def bfloat16_instructions() -> list[str]:
    """Those of the processor, where PyTorch is new enough to tell: without them it is much slower in bfloat16."""
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]


def describe() -> dict[str, str]:
    """Versions, processor, devices, folders and environment, by name: what a report of a fault should contain."""
    import onnxruntime

    onnx = [provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers()]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "numpy", "pillow", "pyvips")},
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} threads",
        "onnx devices": ", ".join(onnx).lower(),
        **_describe_torch(),
        "package": str(Path(__file__).parent),
        "cache": str(cache_folder()),
        **{name: value for name, value in sorted(os.environ.items()) if name.startswith("TDDSR_")},
    }


def _describe_torch() -> dict[str, str]:
    try:
        import torch
    except ModuleNotFoundError:
        return {"torch": "not installed; pip install 'tddsr[torch]'"}
    processor = [
        torch.backends.cpu.get_cpu_capability(),
        f"bfloat16 by {' and '.join(bfloat16_instructions()) or 'no instructions known'}",
        f"{torch.get_num_threads()} threads",
    ]
    cuda = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return {
        "torch": torch.__version__,
        "torch on the processor": ", ".join(processor),
        "torch devices": ", ".join(["cpu", *cuda, *mps]),
    }
