"""The student's losses, Eq. 6-10; every function returns a scalar.

Discriminators give logits, one tensor for each of their heads; the heads count alike, whatever their number of places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Adversarial = Literal["hinge", "bce", "paper"]
"""How logits become losses.

``hinge`` (default) and ``bce`` are bounded below for the discriminator. ``paper`` is Eq. 7-10 as printed, with
D = sigmoid(logit): Eq. 7 and 9 reward a discriminator without bound for being sure, log(1 - D(x_0)) -> -inf, so that
nearly all of its gradient comes from the samples it is already sure of; and once it is sure, 1 - D of Eq. 8 and 10 has
next to no gradient for the student. With raw logits for D, 1 - D is hinge's generator loss, which is what StyleGAN-T
and ADD train with.
"""


def distill(student_x_0: Tensor, teacher_x_0: Tensor) -> Tensor:
    """Eq. 6: mean squared error, in latent space, between f_phi(x_T, y, T) and the teacher's x_0.

    The teacher starts from the same x_T. One of a single step that sees lr alone needs none: its pictures may be kept.
    """
    return F.mse_loss(student_x_0, teacher_x_0)


def _mean(f: Callable[[Tensor], Tensor], logits: Sequence[Tensor]) -> Tensor:
    return torch.stack([f(head).mean() for head in logits]).mean()


def discriminator(kind: Adversarial, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Eq. 7 and 9: what D_H (real: hr, fake: the student's picture) or D_L (real: lr, fake: G's picture) minimises.

    Args:
        kind: ``hinge``: relu(1 - real) + relu(1 + fake); ``bce``: -log D(real) - log(1 - D(fake));
            ``paper``: log(1 - D(real)) + log D(fake); D = sigmoid.
        real: logits of each head, of any shape; large means "real".
        fake: the same.
    """
    if kind == "hinge":
        return _mean(lambda x: F.relu(1 - x), real) + _mean(lambda x: F.relu(1 + x), fake)
    if kind == "bce":
        return _mean(lambda x: F.softplus(-x), real) + _mean(F.softplus, fake)
    return _mean(lambda x: F.logsigmoid(-x), real) + _mean(F.logsigmoid, fake)


def generator(kind: Adversarial, fake: Sequence[Tensor]) -> Tensor:
    """Eq. 8 and 10: what the student, and for D_L the downsampler too, minimises.

    ``hinge``: 1 - logit; ``bce``: -log D (the non-saturating form); ``paper``: 1 - D; D = sigmoid.
    """
    if kind == "hinge":
        return _mean(lambda x: 1 - x, fake)
    if kind == "bce":
        return _mean(lambda x: F.softplus(-x), fake)
    return _mean(lambda x: 1 - x.sigmoid(), fake)
