"""Where networks run."""

from __future__ import annotations

import torch

from tddsr.errors import UsageError


def pick_device(name: str = "auto") -> torch.device:
    """'auto' is the accelerator if there is one, else the CPU.

    Raises:
        UsageError: no such device on this machine.
    """
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
