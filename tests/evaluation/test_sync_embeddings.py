"""Windows of frames are embedded as each would be by itself."""

import pytest
import torch

from latentsync.evaluation.sync_embeddings import embed_windows
from latentsync.models import StableSyncNet, sync_input


@pytest.mark.parametrize("side", [32, 48])
def test_overlapping_windows_are_embedded_as_each_by_itself(side: int) -> None:
    torch.manual_seed(0)
    audio = {
        "in_channels": 1,
        "block_out_channels": [8, 8, 16, 16, 16, 24],
        "downsample_factors": [[2, 1], 2, 2, 2, 2, [2, 3]],
        "attn_blocks": [0, 0, 0, 0, 1, 0],
        "dropout": 0.0,
    }
    visual = {
        "in_channels": 48,
        "block_out_channels": [8, 8, 16, 16, 24],
        "downsample_factors": [[1, 2], 2, 2, 2, 2],
        "attn_blocks": [0, 0, 1, 0, 0],
        "dropout": 0.0,
    }
    syncnet = StableSyncNet(audio, visual, resolution=32).eval()
    pixels = torch.rand(1, 25, 3, side, side) * 2 - 1
    together = embed_windows(syncnet, pixels, stride=4)
    assert len(together) == 3
    with torch.no_grad():
        for number, embedding in enumerate(together):
            window = pixels[:, 4 * number : 4 * number + 16]
            alone = syncnet.embed_frames(sync_input(window, 32))[0]
            torch.testing.assert_close(embedding, alone)
