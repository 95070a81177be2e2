"""What compares an estimate of x_0 with a picture: mean errors and perceptual distances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tddsr.metrics.lpips import LPIPS, FeatureDistance
from tddsr.model import Model
from tddsr.networks.features import load_features
from tddsr.training.recipe import Recipe


def augmented(pictures: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """``pictures`` (B,3,H,W) mirrored, turned, their colours in another order, inverted: at random, all alike.

    What a network is blind to, a student learns to leave in its pictures. In other views of them it is not blind to the
    same (E-LPIPS, Kettunen et al. 2019).
    """
    across, down, diagonal, inverted = (torch.rand(4, generator=generator) < 0.5).tolist()
    colours = torch.randperm(3, generator=generator).tolist()
    sides = [side for side, mirrored in ((-1, across), (-2, down)) if mirrored]
    seen = [picture[:, colours].flip(sides) * (-1 if inverted else 1) for picture in pictures]
    # Convolutions would be half as fast on the order that a transposition of channels-last pictures leaves.
    return [(p.mT if diagonal else p).contiguous(memory_format=torch.channels_last) for p in seen]


class PictureLoss:
    """The terms that compare an estimate of x_0 with its guide: mean errors, and its picture's perceptual distances."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.config = config = recipe.loss
        self.perceptual: dict[str, nn.Module] = {}
        if config.lpips:
            self.perceptual["lpips"] = LPIPS("alexnet", recipe.features).to(device)
        if config.features:
            network = load_features("efficientnet_lite0", recipe.features)
            self.perceptual["features"] = FeatureDistance(network).to(device)

    def __call__(
        self, model: Model, x_0: Tensor, guide: Tensor, generator: torch.Generator, picture: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms of the latent estimate ``x_0``, decoded in ``picture`` if it is, against ``guide`` in [-1,1].

        The guide is the true picture, or a teacher's.
        """
        terms = {}
        if self.config.truth:
            with torch.no_grad():
                latent = model.space.encode(guide)
            error = F.l1_loss if self.config.truth_norm == "l1" else F.mse_loss
            terms["truth"] = self.config.truth * error(x_0.float(), latent)
        if self.perceptual:
            # AlexNet looks at every fourth pixel, and a latent pixel is four wide: always at the same place, it would
            # not see a pattern of that period. So both pictures lose a random few of their first rows and columns.
            top, left = torch.randint(model.space.factor, (2,), generator=generator).tolist()
            picture = model.space.decode(x_0.float()) if picture is None else picture
            pictures = [each[..., top:, left:] for each in (picture, guide)]
            if self.config.augment:
                pictures = augmented(pictures, generator)
            for name, distance in self.perceptual.items():
                terms[name] = getattr(self.config, name) * distance(*pictures).mean()
        return terms
