"""PyTorch: any model, in one step or many, on whatever PyTorch knows."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tddsr.device import bfloat16_instructions, pick_device
from tddsr.engines.accelerator import ONE_AT_A_TIME, Pipeline, Recorder
from tddsr.engines.engine import NO_MARGINS, EngineName, Noise, Precision, Sampler, Work, out_of_memory
from tddsr.model import Model
from tddsr.networks.layers import trim
from tddsr.pictures.rows import Floats
from tddsr.tiling import Margins
from tddsr.weights.names import load_model
from tddsr.weights.strength import Weights


class TorchEngine:
    """A model that has been placed; where half precision gives infinities, it goes on in float32."""

    name: EngineName = "torch"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scale, self.multiple, self.channels = model.scale, model.multiple, model.channels
        self.default_steps, self.bytes_per_lr_pixel = model.default_steps, model.bytes_per_lr_pixel
        self.noisy = not model.ignores_noise
        self.compiled = False
        self.once: Callable[[Tensor, Tensor], Tensor] = self._once
        self.pipeline: Pipeline | None = None
        if self.weight.is_cuda:
            self.once = Recorder(self._once)
            self.pipeline = Pipeline(self.weight.device, self.bytes_per_lr_pixel)

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
        engine = cls(loaded)
        if compiled:
            loaded.network.compile()
            engine.compiled = True
        return engine

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
        return None if self.pipeline is None else self.pipeline.free_memory()

    def run(
        self,
        lr: Floats,
        noise: Noise,
        margins: Margins = NO_MARGINS,
        steps: int = 1,
        sampler: Sampler = "deterministic",
    ) -> Floats:
        """See ``Engine``."""
        if self.pipeline is not None:
            return next(self.run_each([(lr, noise, margins)], steps, sampler))
        try:
            hr = self._run(lr, noise, margins, steps, sampler)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            failure = str(error)
        else:
            if self.precision == "float32" or hr.isfinite().all():
                return hr.numpy()
            self._go_on_in_float32()
            return self.run(lr, noise, margins, steps, sampler)
        raise MemoryError(failure)

    def run_each(self, tiles: Iterable[Work], steps: int = 1, sampler: Sampler = "deterministic") -> Iterator[Floats]:
        """See ``Engine``."""
        if self.pipeline is None:
            return itertools.starmap(partial(self.run, steps=steps, sampler=sampler), tiles)
        return self._run_ahead(self.pipeline, tiles, steps, sampler)

    def _run_ahead(self, pipeline: Pipeline, tiles: Iterable[Work], steps: int, sampler: Sampler) -> Iterator[Floats]:
        for tile, hr in pipeline.run(partial(self._enlarge, steps=steps, sampler=sampler), tiles):
            if hr is None:
                self._go_on_in_float32()
                yield self.run(*tile, steps, sampler)
            else:
                yield self._trim(hr, tile[2]).numpy()  # those of a batch differ in their margins

    def _go_on_in_float32(self) -> None:
        with ONE_AT_A_TIME:  # no thread queues anything while weights move
            if self.precision == "float32":  # another one was first
                return
            warnings.warn(f"{self.precision} gave infinities; going on in float32", RuntimeWarning, stacklevel=3)
            self.model.place(self.weight.device)
            if isinstance(self.once, Recorder):
                self.once.forget(self.weight.device)

    @torch.inference_mode()
    def _run(self, lr: Floats, noise: Noise, margins: Margins, steps: int, sampler: Sampler) -> Tensor:
        pixels = torch.from_numpy(lr)
        if self.compiled:  # or it would be compiled anew for all margins that there are
            hr = self._trim(self._enlarge(pixels, noise, steps, sampler), margins)
        else:
            hr = self._enlarge(pixels, noise, steps, sampler, margins)
        return hr.float().cpu()

    def _trim(self, hr: Tensor, margins: Margins) -> Tensor:
        top, left, bottom, right = (self.scale * margin for margin in margins)
        return trim(hr, (top, left, bottom, right), math.inf, 0)

    def _enlarge(
        self, lr: Tensor, noise: Noise, steps: int, sampler: Sampler, margins: Margins | None = None
    ) -> Tensor:
        """(B,3,h,w) in [0,1] -> (B,3,4h,4w), about [0,1], less the margins; on the device, where it is not awaited."""

        def field(t: int) -> Tensor:
            return torch.from_numpy(noise(t)).to(self.weight)

        pixels = (lr.to(self.weight) * 2 - 1).contiguous(memory_format=torch.channels_last)
        if steps == 1:
            eps = field(0) if self.noisy else pixels.new_zeros(1, 1, 1, 1)
            hr = self.once(pixels, eps) if margins is None else self._once(pixels, eps, margins)
        else:
            hr = self.model.sample(pixels, field(0), steps, field if sampler == "stochastic" else None, margins)
        return hr / 2 + 0.5

    def _once(self, pixels: Tensor, eps: Tensor, margins: Margins | None = None) -> Tensor:
        return self.model.sample(pixels, eps if self.noisy else None, 1, None, margins)
