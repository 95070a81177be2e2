"""The student's losses, Eq. 6-10; every function returns a scalar."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distill(student_x_0: Tensor, teacher_x_0: Tensor) -> Tensor:
    """Eq. 6: mean squared error, in latent space, between f_phi(x_T, y, T) and the teacher's x_0 from the same x_T."""
    return F.mse_loss(student_x_0, teacher_x_0)
