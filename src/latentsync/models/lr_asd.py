"""LR-ASD (Liao et al. 2025), an active-speaker network: is this face speaking the given sound?

Input: grey levels 0..255 of a face at 25 fps, and four rows of 13 cepstral coefficients per frame
(`media.mfcc`). Convolutions are factored into space (or coefficients) and time.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 112
ROWS_PER_FRAME = 4
NUM_FEATURES = 128
SPEAKING = 1  # of the two logits
REACH = 10  # frames of context on either side for the encoders, one more than they need
WIDTHS = (32, 64, 128)
# Mean and standard deviation of grey levels in the training set, in [0, 1].
MEAN_LEVEL, LEVEL_SPREAD = 0.4161, 0.1688
NORM_EPSILON = 0.001


class LRASD(nn.Module):
    """Two encoders, a gated fusion, and a recurrent network over the frames."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.visual_encoder = nn.Sequential(
            visual_block(1, first, stride=2),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            visual_block(first, second),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            visual_block(second, third),
        )
        self.audio_encoder = nn.Sequential(
            audio_block(1, first),
            nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1)),
            audio_block(first, second),
            nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1)),
            audio_block(second, third),
        )
        self.fusion = Gate(2 * NUM_FEATURES)
        self.gru = nn.GRU(2 * NUM_FEATURES, NUM_FEATURES // 2, batch_first=True, bidirectional=True)
        self.gate = Gate(NUM_FEATURES)
        self.head = nn.Linear(NUM_FEATURES, 2)

    def forward(
        self, pictures: Float[Tensor, "b t 112 112"], cepstra: Float[Tensor, "b four_t 13"]
    ) -> Float[Tensor, "b t 2"]:
        """Logits of every frame: (not speaking, speaking)."""
        return self.classify(self.encode_audio(cepstra), self.encode_pictures(pictures))

    def encode_pictures(self, pictures: Float[Tensor, "b t 112 112"]) -> Float[Tensor, "b t 128"]:
        levels = (pictures / 255 - MEAN_LEVEL) / LEVEL_SPREAD
        features = self.visual_encoder(rearrange(levels, "b t h w -> b 1 t h w"))
        return rearrange(features.amax(dim=(-2, -1)), "b c t -> b t c")

    def encode_audio(self, cepstra: Float[Tensor, "b four_t 13"]) -> Float[Tensor, "b t 128"]:
        features = self.audio_encoder(rearrange(cepstra, "b n c -> b 1 c n"))
        return rearrange(features.mean(dim=2), "b c t -> b t c")

    def classify(
        self,
        heard: Float[Tensor, "b t 128"],
        seen: Float[Tensor, "b t 128"],
    ) -> Float[Tensor, "b t 2"]:
        fused = self.fusion(torch.cat([heard, seen], dim=-1))
        over_time, _ = self.gru(fused)
        return self.head(self.gate(over_time))


class Gate(nn.Module):
    """Multiplies every channel by a factor in [0, 1] computed from all channels of the frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm1d(width, eps=NORM_EPSILON)

    def forward(self, features: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        mixed = self.norm(self.mix(rearrange(features, "b t c -> b c t")))
        return features * rearrange(mixed, "b c t -> b t c").sigmoid()


def visual_block(width_in: int, width_out: int, *, stride: int = 1) -> nn.Sequential:
    """Kernels are (time, rows, columns)."""
    half = width_out // 2
    return nn.Sequential(
        conv3d(width_in, half, (1, 5, 5), stride=(1, stride, stride)),
        conv3d(half, width_out, (1, 3, 3)),
        conv3d(width_out, width_out, (5, 1, 1)),
        conv3d(width_out, width_out, (3, 1, 1)),
    )


def audio_block(width_in: int, width_out: int) -> nn.Sequential:
    """Kernels are (coefficients, time)."""
    half = width_out // 2
    return nn.Sequential(
        conv2d(width_in, half, (5, 1)),
        conv2d(half, width_out, (3, 1)),
        conv2d(width_out, width_out, (1, 5)),
        conv2d(width_out, width_out, (1, 3)),
    )


def conv3d(
    width_in: int,
    width_out: int,
    kernel: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
) -> nn.Sequential:
    """Convolution, norm, ReLU; same size as the input except for the stride."""
    time, height, width = kernel
    padding = (time // 2, height // 2, width // 2)
    return nn.Sequential(
        nn.Conv3d(width_in, width_out, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(width_out, eps=NORM_EPSILON),
        nn.ReLU(),
    )


def conv2d(width_in: int, width_out: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Convolution, norm, ReLU; same size as the input."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, padding=padding, bias=False),
        nn.BatchNorm2d(width_out, eps=NORM_EPSILON),
        nn.ReLU(),
    )
