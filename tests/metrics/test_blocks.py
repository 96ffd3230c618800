"""Clips are compared in blocks of frames; the figures are those of the whole clip."""

import numpy as np
import pytest
import torch

from latentsync.metrics.artefacts import color_step, seam
from latentsync.metrics.blocks import blocks, to_planes
from latentsync.metrics.masked import masked_psnr
from latentsync.metrics.temporal import border_contrast, flicker
from latentsync.pipeline import to_pixels


@pytest.mark.parametrize("num_frames", [3, 4, 5, 13])
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_every_run_of_frames_is_in_one_block(num_frames: int, overlap: int) -> None:
    clip = torch.arange(num_frames).float()[None, :, None, None, None]
    runs = [
        tuple(some[0, first : first + overlap + 1, 0, 0, 0].tolist())
        for (some,) in blocks(clip, overlap=overlap)
        for first in range(some.shape[1] - overlap)
    ]
    assert runs == [
        tuple(float(number) for number in range(first, first + overlap + 1))
        for first in range(num_frames - overlap)
    ]


@pytest.mark.parametrize("moves", [False, True])
def test_figures_of_blocks_are_those_of_the_whole_clip(*, moves: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, truth = (torch.rand(2, 11, 3, 24, 20, generator=generator) * 2 - 1 for _ in range(2))
    region = torch.zeros(2, 11, 1, 24, 20)
    for frame in range(11):
        shift = frame % 3 if moves else 0
        region[:, frame, :, 6 + shift : 18 + shift, 5:14] = 1
    chosen = region.expand_as(pixels)
    mean_error = ((pixels - truth).square() * chosen).sum((1, 2, 3, 4)) / chosen.sum((1, 2, 3, 4))
    torch.testing.assert_close(masked_psnr(pixels, truth, region), 10 * torch.log10(4 / mean_error))

    def unrest(clip: torch.Tensor) -> torch.Tensor:
        between = chosen[:, 1:-1]
        return (clip.diff(n=2, dim=1).abs() * between).sum((1, 2, 3, 4)) / between.sum((1, 2, 3, 4))

    torch.testing.assert_close(flicker(pixels, truth, region), unrest(pixels) / unrest(truth))

    def step(clip: torch.Tensor) -> torch.Tensor:
        steps = []
        for axis in (-1, -2):
            crosses = (region.diff(dim=axis) != 0).expand(-1, -1, 3, -1, -1)
            steps.append(
                [each[where] for each, where in zip(clip.diff(dim=axis), crosses, strict=True)]
            )
        return torch.stack([torch.cat(both).abs().mean() for both in zip(*steps, strict=True)])

    torch.testing.assert_close(border_contrast(pixels, truth, region), step(pixels) / step(truth))

    def chunk_seam(clip: torch.Tensor) -> torch.Tensor:
        inside = chosen[:, 1:]
        steps = (clip.diff(dim=1).abs() * inside).sum((2, 3, 4)) / inside.sum((2, 3, 4))
        at_seam = torch.arange(10) % 4 == 3
        return steps[:, at_seam].mean(1) / steps[:, ~at_seam].mean(1)

    torch.testing.assert_close(
        seam(pixels, truth, region, period=4), chunk_seam(pixels) / chunk_seam(truth)
    )
    # Two grey levels brighter inside the mask, three channels alike.
    lifted = truth + 2 / 127.5 * region
    torch.testing.assert_close(color_step(lifted, truth, region), torch.full((2,), 2.0))


def test_planes_are_the_pixels_in_another_order_in_memory() -> None:
    faces = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    planes = to_planes(faces)
    assert planes.is_contiguous()
    torch.testing.assert_close(planes, to_pixels(faces), rtol=0, atol=0)
