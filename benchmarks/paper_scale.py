"""Time and peak memory of the paper scale's networks, with random weights: encode, one evaluation, decode.

    python benchmarks/paper_scale.py [--threads 2] [--large] [--sizes 64 128] [--ways bands plain naive]

Prints a Markdown table. Each row is a process of its own, so that its peak memory is its own. "bands" is the package
as it is; "plain" is without bands; "naive" is the manner of the official code: planes instead of channels last, no
bands, and attention that holds the weights of all pairs. ``--large`` adds 512 -> 2048, in bands only. Attention over
its 262144 positions takes most of the time, so only the first band of queries is really computed, and counted for all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tddsr.networks.autoencoder import VQAutoencoder
from tddsr.networks.swin_unet import SwinUNet

PARTS = ("encode", "network", "decode")


def peak() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def all_pairs(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention as the official code has it, with the matrix of all pairs in memory."""
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if attn_mask is not None:
        logits = logits + attn_mask
    return torch.matmul(logits.softmax(dim=-1), v)


class FirstQueries:
    """In place of fused attention: of calls with over 100000 keys only the first is made, the others are its copies.

    ``skipped`` counts the seconds that they would have taken.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self._attend = F.scaled_dot_product_attention
        self._first: tuple[Tensor, float] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if k.shape[-2] < 100_000:
            return self._attend(q, k, v, attn_mask)
        if self._first is None:
            start = time.perf_counter()
            seen = self._attend(q, k, v, attn_mask)
            self._first = seen, time.perf_counter() - start
            return seen
        seen, seconds = self._first
        self.skipped += seconds * q.shape[-2] / seen.shape[-2]
        return seen[..., : q.shape[-2], :]


def measure(way: str, size: int) -> dict[str, float]:
    """Run one case in this process, where nothing ran before: a first run, as of a command on one picture."""
    idle = peak()
    torch.manual_seed(0)
    space, network = VQAutoencoder().eval(), SwinUNet().eval()
    attention = FirstQueries()
    setattr(F, "scaled_dot_product_attention", all_pairs if way == "naive" else attention)  # noqa: B010
    if way != "naive":
        for module in (space, network):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lr, image = torch.rand(1, 3, size, size) * 2 - 1, torch.rand(1, 3, 4 * size, 4 * size) * 2 - 1
    result = {"idle": idle, "loaded": peak()}
    banded = way == "bands"

    def encode() -> Tensor:
        return space.encode(image) if banded else space.quant_conv(space.encoder(image))

    def decode() -> Tensor:
        if banded:
            return space.decode(lr)
        return space.decoder(space.post_quant_conv(space.quantise(lr)))  # type: ignore[no-any-return]

    steps: tuple[Callable[[], Tensor], ...] = (encode, lambda: network(lr, torch.tensor([14]), lr), decode)
    with torch.inference_mode():
        for part, step in zip(PARTS, steps, strict=True):
            start, skipped = time.perf_counter(), attention.skipped
            step()
            result[part] = time.perf_counter() - start + attention.skipped - skipped
            result[f"{part} peak"] = peak()
    return result


def main() -> None:
    """Start a process for each case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128], help="sides of lr, multiples of 64")
    parser.add_argument("--ways", nargs="*", default=["bands", "plain", "naive"], choices=["bands", "plain", "naive"])
    parser.add_argument("--large", action="store_true", help="512 -> 2048 too, in bands only")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        way, size = options.case
        print(json.dumps(measure(way, int(size))))
        return
    print(
        f"| {options.threads} threads | | encode | network | decode | seconds | of naive | peak MiB so far | of naive |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    cases = [(size, way) for size in options.sizes for way in sorted(options.ways, key="naive plain bands".index)]
    naive = (float("nan"), float("nan"))
    for size, way in cases + [(512, "bands")] * options.large:
        command = [sys.executable, __file__, "--threads", str(options.threads), "--case", way, str(size)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        f = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
        seconds, most = sum(f[part] for part in PARTS), f["decode peak"]
        naive = (seconds, most) if way == "naive" else naive if size in options.sizes else (float("nan"),) * 2
        parts = " | ".join(f"{f[part]:.2f}" for part in PARTS)
        peaks = ", ".join(f"{f[key]:.0f}" for key in ("loaded", *(f"{part} peak" for part in PARTS)))
        print(
            f"| {size} -> {4 * size} | {way} | {parts} | {seconds:.1f} | {seconds / naive[0]:.2f} "
            f"| {peaks} | {most / naive[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
