"""One distillation step at paper scale with all three losses: time and peak memory, with and without recomputation.

    python benchmarks/paper_training.py --data PHOTOS

Recipe ``realsr`` with a batch of one, in float32, its networks (DINO too) with random weights. Each row is a process of
its own, so that its peak memory is its own. Needs transformers, and about 2 GiB of disk for the weights.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file

from tddsr.model import Model, ModelConfig, ScheduleConfig
from tddsr.networks.autoencoder import VQConfig
from tddsr.networks.swin_unet import SwinUNetConfig
from tddsr.training.load import load_recipe
from tddsr.training.start import prepare
from tddsr.weights.file import save_model


def make_weights(folder: Path) -> None:
    """A teacher and the feature networks."""
    from transformers import ViTConfig, ViTModel

    from tddsr.networks.features import ConvFeatures

    torch.manual_seed(0)
    config = ModelConfig(
        role="teacher", network=SwinUNetConfig(), space=VQConfig(), schedule=ScheduleConfig(steps=15, min_noise=0.04)
    )
    save_model(Model(config), folder / "teacher.safetensors")
    vit = ViTModel(ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536), add_pooling_layer=False)
    save_file(vit.state_dict(), folder / "dino_vits16.safetensors")
    save_file(ConvFeatures("alexnet").state_dict(), folder / "alexnet_lpips.safetensors")


def step(folder: Path, data: str, recompute: bool) -> None:
    """Take one step in this process and print its row."""
    overrides = [
        f"teacher={folder / 'teacher.safetensors'}", f"features={folder}", f"out={folder / 'out'}",
        f"data.train={data}", "data.batch=1", "data.accumulate=1", "data.workers=0", "precision=float32",
        f"validation.folder={data}", "validation.count=1", "validation.lpips=[alexnet]", f"recompute={recompute}",
    ]  # fmt: skip
    run = prepare(load_recipe("realsr", overrides), torch.device("cpu"), Console(quiet=True))
    patches = run.patches[0]
    ready, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    values = run._train_step(iter([patches]))
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert {"distill", "adversarial_hr", "adversarial_lr"} <= values.keys()
    name = "made again" if recompute else "kept"
    print(f"| {name} | {seconds:.0f} s | {ready / 2**20:.2f} GiB | {peak / 2**20:.2f} GiB |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="photos of 256x256 and more")
    parser.add_argument("--only", choices=("kept", "again"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        step(options.folder, options.data, options.only == "again")
        return
    with tempfile.TemporaryDirectory() as folder:
        make_weights(Path(folder))
        print(
            f"{torch.get_num_threads()} threads\n\n| activations | step | peak before it | peak |\n"
            + "| --- " * 4
            + "|"
        )
        for only in ("kept", "again"):
            command = [sys.executable, __file__, "--data", options.data, "--folder", folder, "--only", only]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
