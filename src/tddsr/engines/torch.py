"""PyTorch: any model, in one step or many, on whatever PyTorch knows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tddsr.device import bfloat16_instructions, pick_device
from tddsr.engines.engine import EngineName, Noise, Precision, Sampler, out_of_memory
from tddsr.model import Model
from tddsr.pictures.rows import Floats
from tddsr.weights.names import load_model
from tddsr.weights.strength import Weights


class TorchEngine:
    """A model that has been placed; where half precision gives infinities, it goes on in float32."""

    name: EngineName = "torch"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scale, self.multiple, self.channels = model.scale, model.multiple, model.channels
        self.default_steps, self.bytes_per_lr_pixel = model.default_steps, model.bytes_per_lr_pixel

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str = "auto",
        precision: Precision = "float32",
        *,
        compiled: bool = False,
        threads: int | None = None,
        weights: Weights | None = None,
    ) -> TorchEngine:
        """By name or from a file.

        Args:
            model: as ``load_model`` takes it, like its errors.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: half is for accelerators and for some processors (``fast_precision``).
            compiled: by ``torch.compile``: the first tile of each size takes a minute more.
            threads: of a CPU, for all that PyTorch does in this process.
            weights: in place of the model's own of these names.

        Raises:
            UsageError: no such device.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_model(model, pick_device(device), getattr(torch, precision), weights)
        if compiled:
            loaded.network.compile()
        return cls(loaded)

    @staticmethod
    def fast_precision(device: str) -> Precision:
        """The quickest that gives nearly the same pixels: bfloat16 where ``device`` computes in it, else float32.

        A CPU without instructions for it is much slower in it.
        """
        where = pick_device(device)
        if where.type == "cuda":
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        elif where.type == "cpu":
            able = bool(bfloat16_instructions())
        else:
            able = False
        return "bfloat16" if able else "float32"

    @property
    def weight(self) -> Tensor:
        """One of many, all of one type and on one device."""
        return next(self.model.parameters())

    @property
    def device(self) -> str:
        return str(self.weight.device)

    @property
    def precision(self) -> Precision:
        return cast("Precision", str(self.weight.dtype).removeprefix("torch."))

    def halo(self, steps: int) -> int | None:
        return self.model.halo(steps)

    def check_steps(self, steps: int) -> None:
        self.model.check_steps(steps)

    def free_memory(self) -> int | None:
        device = self.weight.device
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None

    def run(self, lr: Floats, noise: Noise, steps: int = 1, sampler: Sampler = "deterministic") -> Floats:
        """See ``Engine``."""
        try:
            hr = self._run(lr, noise, steps, sampler)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            failure = str(error)
        else:
            if self.precision == "float32" or hr.isfinite().all():
                return hr.numpy()
            warnings.warn(f"{self.precision} gave infinities; going on in float32", RuntimeWarning, stacklevel=2)
            self.model.place(self.weight.device)
            return self.run(lr, noise, steps, sampler)
        if self.weight.device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(failure)

    @torch.inference_mode()
    def _run(self, lr: Floats, noise: Noise, steps: int, sampler: Sampler) -> Tensor:
        def field(t: int) -> Tensor:
            return torch.from_numpy(noise(t)).to(self.weight)

        pixels = (torch.from_numpy(lr).to(self.weight) * 2 - 1).contiguous(memory_format=torch.channels_last)
        hr = self.model.sample(pixels, field(0), steps, field if sampler == "stochastic" else None)
        return (hr / 2 + 0.5).float().cpu()
