"""Keeping an accelerator busy: tiles in batches, copies beside computing, and what recurs in a single launch."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tddsr.engines.engine import PASS_PIXELS, Noise, Work, out_of_memory

Enlarge = Callable[[Tensor, Noise], Tensor]
"""(B,3,h,w) in [0,1] on a device, and the noise of all of them -> (B,3,4h,4w), about [0,1]."""

_GRAPH_PIXELS = 1 << 18
"""Of lr: a pass of more computes for longer than its launches take, so nothing is gained by recording it."""

_RECURRING, _MOST_GRAPHS = 3, 8
"""Passes of one shape before it is recorded, and how many shapes are kept so."""

ONE_AT_A_TIME = threading.Lock()
"""Threads may share a model: what is queued for one of them, and settings that are PyTorch's own, are not mixed."""


class Pipeline:
    """Sends tiles to a device, and queues more of them before results are awaited.

    Args:
        device: CUDA, or any other, where nothing overlaps.
        bytes_per_lr_pixel: memory that a pass takes, at most; None: not known.
    """

    def __init__(self, device: torch.device, bytes_per_lr_pixel: int | None) -> None:
        self.device, self.needed = device, bytes_per_lr_pixel
        self.most = PASS_PIXELS
        """Of a batch, in lr pixels; less after memory ran out."""
        self.ahead = 1
        """Batches that are queued before the results of one are awaited."""
        self.downloads: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def free_memory(self) -> int:
        """Bytes, with those that PyTorch keeps for later."""
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + kept

    def run(self, enlarge: Enlarge, tiles: Iterable[Work]) -> Iterator[tuple[Work, Tensor | None]]:
        """Each tile with what becomes of it, (1,3,4h,4w) in main memory; None: infinities, in half precision.

        Raises:
            MemoryError: there is not enough for one of the tiles.
        """
        waiting: deque[_Pass] = deque()
        for batch in self._batches(tiles):
            waiting.extend(self._start(enlarge, batch))
            while len(waiting) > self.ahead:
                yield from waiting.popleft().results()
        while waiting:
            yield from waiting.popleft().results()

    def _batches(self, tiles: Iterable[Work]) -> Iterator[list[Work]]:
        """Neighbours of one size, as many as there is room for."""
        batch: list[Work] = []
        for tile in tiles:
            size = tile[0].shape
            if batch and batch[0][0].shape != size:
                yield batch
                batch = []
            batch.append(tile)
            if (len(batch) + 1) * size[2] * size[3] > self._room():
                yield batch
                batch = []
        if batch:
            yield batch

    def _room(self) -> int:
        """How many lr pixels a batch may have."""
        if self.needed is None or self.downloads is None:
            return self.most
        return min(self.most, int(0.8 * self.free_memory()) // self.needed)

    def _start(self, enlarge: Enlarge, batch: list[Work]) -> list[_Pass]:
        """Queue a batch: in two halves, and so on, where memory is short."""
        try:
            with ONE_AT_A_TIME, exact():
                return [self._queue(enlarge, batch)]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            failure = str(error)
        if self.downloads is not None:
            torch.cuda.empty_cache()
        half = len(batch) // 2
        if half == 0:
            raise MemoryError(failure)
        self.most = half * batch[0][0][0, 0].size
        return [*self._start(enlarge, batch[:half]), *self._start(enlarge, batch[half:])]

    @torch.inference_mode()
    def _queue(self, enlarge: Enlarge, batch: list[Work]) -> _Pass:
        def noise(t: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.concatenate([own(t) for _, own, _ in batch])

        lr = torch.from_numpy(np.concatenate([pixels for pixels, _, _ in batch]))
        if self.downloads is None:
            hr = enlarge(lr.to(self.device), noise)
            return _Pass(batch, hr.float().cpu(), _usable(hr).cpu(), None)
        with torch.cuda.device(self.device):
            hr = enlarge(lr.pin_memory().to(self.device, non_blocking=True), noise)
            # Pixel by pixel, as pictures lie in main memory: there, turning them round would take longer.
            made = hr.permute(0, 2, 3, 1).float().contiguous(), _usable(hr)
            self.downloads.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.downloads):
                pixels, usable = (torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in made)
                for mine, theirs in zip((pixels, usable), made, strict=True):
                    mine.copy_(theirs, non_blocking=True)
                    theirs.record_stream(self.downloads)
                return _Pass(batch, pixels.permute(0, 3, 1, 2), usable, self.downloads.record_event())


def _usable(hr: Tensor) -> Tensor:
    """Whether there are no infinities; in float32 others look for them."""
    return hr.new_ones((), dtype=torch.bool) if hr.dtype == torch.float32 else hr.isfinite().all()


@dataclass
class _Pass:
    """Tiles, and their results in main memory, which are there once ``done`` is."""

    tiles: list[Work]
    hr: Tensor
    usable: Tensor
    done: torch.cuda.Event | None

    def results(self) -> Iterator[tuple[Work, Tensor | None]]:
        if self.done is not None:
            self.done.synchronize()
        usable = bool(self.usable)
        for tile, hr in zip(self.tiles, torch.split(self.hr, 1), strict=True):
            yield tile, hr if usable else None


@contextmanager
def exact() -> Iterator[None]:
    """Float32 is float32: by default cuDNN rounds what it convolves to 11 bit (TF32)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Recorder:
    """A computation that is recorded as a CUDA graph, hundreds of launches in one, for shapes of inputs that recur.

    What it gives is overwritten by the next call.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.compute = compute
        self.graphs: dict[object, _Graph] = {}
        self._seen: Counter[object] = Counter()

    def __call__(self, lr: Tensor, eps: Tensor) -> Tensor:
        if lr.shape[0] * lr.shape[2] * lr.shape[3] > _GRAPH_PIXELS:
            return self.compute(lr, eps)
        key = lr.shape, eps.shape, lr.dtype
        graph = self.graphs.pop(key, None)
        if graph is None:
            self._seen[key] += 1
            if self._seen[key] < _RECURRING:
                return self.compute(lr, eps)
            if len(self.graphs) == _MOST_GRAPHS:
                torch.cuda.synchronize(lr.device)
                del self.graphs[next(iter(self.graphs))]
            graph = _Graph(self.compute, lr, eps)
        self.graphs[key] = graph  # as the last to be forgotten
        return graph(lr, eps)

    def forget(self, device: torch.device) -> None:
        """All recordings, as weights on ``device`` have moved."""
        if self.graphs:
            torch.cuda.synchronize(device)
            self.graphs.clear()


class _Graph:
    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor) -> None:
        self.inputs = [each.clone() for each in inputs]
        # Libraries choose their ways and take memory at a first call, which cannot be recorded.
        compute(*self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = compute(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output
