import torch
from torch.nn import functional

from latentsync.models.color_matching import colour_cells, match_cells, match_surroundings


def half_mask() -> torch.Tensor:
    mask = torch.ones(32, 32)
    mask[16:] = 0
    return mask


def test_a_constant_shift_is_taken_off_everywhere(generator):
    pixels = torch.rand(1, 2, 3, 32, 32, generator=generator) - 0.5
    shift = torch.tensor([0.1, -0.2, 0.05]).view(3, 1, 1)
    torch.testing.assert_close(match_surroundings(pixels + shift, pixels, half_mask()), pixels)


def test_what_the_mask_hides_does_not_matter(generator):
    pixels, decoded = torch.rand(2, 1, 1, 3, 32, 32, generator=generator)
    other = pixels.clone()
    other[..., 16:, :] = 9.0
    torch.testing.assert_close(
        match_surroundings(decoded, pixels, half_mask()),
        match_surroundings(decoded, other, half_mask()),
    )


def test_the_shift_of_a_side_stays_on_its_side():
    pixels = torch.zeros(1, 1, 3, 32, 32)
    decoded = pixels.clone()
    decoded[..., :16] += 0.05
    matched = match_surroundings(decoded, pixels, half_mask())
    assert matched[..., 17, 2].abs().max() < 0.005
    assert matched[..., 17, 29].abs().max() < 0.005


def test_a_badly_decoded_garment_does_not_stain_the_skin_beside_it():
    pixels = torch.zeros(1, 1, 3, 32, 32)
    decoded = pixels.clone()
    decoded[..., :16, :4] = 1.0
    matched = match_surroundings(decoded, pixels, half_mask())
    assert matched[..., 17:, 5:].abs().max() < 0.05


def test_in_large_faces_cells_know_all_that_is_asked_of_them(generator):
    """Texture is the same in both images, so cell means cancel it."""
    mask = torch.ones(128, 128)
    mask[64:] = 0
    pixels = torch.rand(1, 2, 3, 128, 128, generator=generator) - 0.5
    across = torch.linspace(-0.05, 0.05, 128).expand(1, 2, 3, 128, 128)
    cells = colour_cells(pixels, mask)
    assert cells.shape == (1, 2, 3, 32, 32)
    torch.testing.assert_close(
        cells[..., :16, :], functional.avg_pool2d(pixels[0], 4)[None, ..., :16, :]
    )
    assert not cells[..., 16:, :].any()
    matched = match_cells(pixels + across, cells, mask)
    # Within reach of the Gaussian from the kept part, but not near its outer edges.
    error = (matched - pixels)[..., 16:72, 24:-24].abs().max()
    assert error < 0.004 < 0.03 < across[..., 24].abs().max()
