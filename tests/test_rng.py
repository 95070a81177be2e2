import numpy as np

from tddsr import rng


def test_noise_belongs_to_a_place():
    whole = rng.noise_at((7,), 5, 0, 0, 150, 140)
    part = rng.noise_at((7,), 5, 61, 33, 70, 90)
    assert np.array_equal(part, whole[:, 61:131, 33:123])


def test_noise_is_unit_and_white():
    field = rng.noise_at((1, 2), 3, 0, 0, 256, 256)
    assert abs(field.mean()) < 0.01
    assert abs(field.std() - 1) < 0.01
    shifted = (field[:, 1:] * field[:, :-1]).mean()
    assert abs(shifted) < 0.01


def test_other_keys_give_other_noise():
    fields = [rng.noise_at(keys, 1, 0, 0, 64, 128) for keys in [(0,), (1,), (0, 0), (0, 1)]]
    fields.append(fields[0][:, :, 64:])  # the neighbouring block
    for i, a in enumerate(fields):
        for b in fields[:i]:
            assert abs((a[..., :64] * b[..., :64]).mean()) < 0.1
