"""Augmentation for the mouth reader: what must not change does not."""

import torch

from latentsync.training.augment import augment, blur, compress, shift


def faces() -> torch.Tensor:
    """Smooth images: low frequencies only, as in faces."""
    coarse = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")


def test_compression_is_orthonormal_a_tiny_step_is_the_identity():
    step = torch.full((4, 1, 1, 1), 1e-6)
    torch.testing.assert_close(compress(faces(), step), faces(), atol=1e-3, rtol=0)


def test_coarse_compression_loses_detail_but_not_the_mean_of_a_flat_block():
    flat = torch.full((1, 3, 16, 16), 0.5)
    coarse = compress(flat, torch.full((1, 1, 1, 1), 1.0))
    # The mean of a block is a coefficient of 8 * 0.5, rounded to a multiple of 0.1.
    torch.testing.assert_close(coarse, flat, atol=0.05 / 8 + 1e-6, rtol=0)
    error = (compress(faces(), torch.full((4, 1, 1, 1), 0.5)) - faces()).abs().mean()
    assert 1e-3 < error < 0.1


def test_blur_and_shift_of_a_flat_picture_change_nothing(generator):
    flat = torch.full((8, 3, 32, 32), 0.25)
    torch.testing.assert_close(blur(flat, generator), flat)
    torch.testing.assert_close(shift(flat, generator), flat)


def test_shift_moves_by_a_few_percent(generator):
    ramp = torch.linspace(-1, 1, 64).expand(64, 3, 64, 64)
    moved = shift(ramp, generator)[..., 32] - ramp[..., 32]
    # A ramp from -1 to 1 shifted by 4 % of the side changes by at most 0.08; scaling adds nothing
    # in the middle.
    assert moved.abs().max() < 0.085
    assert moved.std() > 0.02


def test_the_seed_decides():
    first, again, other = (
        augment(faces(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again)
    assert (first - other).abs().mean() > 0.01
