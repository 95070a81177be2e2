import math

import pytest
import torch

from tddsr.training import losses

REAL, FAKE = [torch.tensor([[-2.0, 0.5], [3.0, 1.0]]), torch.tensor([[0.2], [-0.7]])], [torch.tensor([[1.5], [-0.25]])]


def mean_of_heads(f, logits):
    return sum(sum(f(float(x)) for x in head.flatten()) / head.numel() for head in logits) / len(logits)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


FORMULAS = {
    "hinge": (lambda x: max(0, 1 - x), lambda x: max(0, 1 + x), lambda x: 1 - x),
    "bce": (lambda x: -math.log(sigmoid(x)), lambda x: -math.log(1 - sigmoid(x)), lambda x: -math.log(sigmoid(x))),
    "paper": (lambda x: math.log(1 - sigmoid(x)), lambda x: math.log(sigmoid(x)), lambda x: 1 - sigmoid(x)),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_adversarial_losses_are_their_formulas(kind):
    on_real, on_fake, for_generator = FORMULAS[kind]
    expected = mean_of_heads(on_real, REAL) + mean_of_heads(on_fake, FAKE)
    assert float(losses.discriminator(kind, REAL, FAKE)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.generator(kind, REAL)) == pytest.approx(mean_of_heads(for_generator, REAL), rel=1e-5)


@pytest.mark.parametrize("kind", FORMULAS)
def test_discriminators_raise_real_logits_and_generators_those_of_the_fake(kind):
    real, fake = torch.zeros(3, 1, requires_grad=True), torch.zeros(3, 1, requires_grad=True)
    losses.discriminator(kind, [real], [fake]).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    made = torch.zeros(3, 1, requires_grad=True)
    losses.generator(kind, [made]).backward()
    assert made.grad is not None
    assert (made.grad < 0).all()


def test_only_the_printed_form_is_unbounded_and_finite_where_sigmoid_saturates():
    sure = [torch.tensor([[200.0]])], [torch.tensor([[-200.0]])]
    assert float(losses.discriminator("hinge", *sure)) == 0
    assert float(losses.discriminator("bce", *sure)) == pytest.approx(0, abs=1e-6)
    assert float(losses.discriminator("paper", *sure)) == pytest.approx(-400)


def test_heads_count_alike_whatever_their_size():
    big, small = torch.full((4, 100), 3.0), torch.full((4, 1), 1.0)
    assert float(losses.generator("hinge", [big, small])) == pytest.approx(1 - 2.0)


def test_distill_is_the_mean_squared_error():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert float(losses.distill(a, b)) == pytest.approx(2.5)
