"""SyncNet v2 (Chung and Zisserman 2016), the network behind published LSE figures.

Input: five frames of a 224 px face, levels 0..255, and 20 steps of 13 cepstral coefficients.
"""

from jaxtyping import Float
from torch import Tensor, nn

NUM_FEATURES = 512
NUM_DIMENSIONS = 1024

Size2d = int | tuple[int, int]
Size3d = int | tuple[int, int, int]


class SyncNetV2(nn.Module):
    """Two convolutional towers and their projections; modules are in the order of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *conv2d(1, 64, 3, padding=1),
            nn.MaxPool2d(1),
            *conv2d(64, 192, 3, padding=1),
            nn.MaxPool2d(3, stride=(1, 2)),
            *conv2d(192, 384, 3, padding=1),
            *conv2d(384, 256, 3, padding=1),
            *conv2d(256, 256, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            *conv2d(256, NUM_FEATURES, (5, 4)),
        )
        self.netfcaud = projection()
        self.netfclip = projection()
        self.netcnnlip = nn.Sequential(
            *conv3d(3, 96, (5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *conv3d(256, NUM_FEATURES, (1, 6, 6)),
        )

    def forward(
        self, frames: Float[Tensor, "b 3 5 224 224"], cepstra: Float[Tensor, "b 1 13 20"]
    ) -> tuple[Float[Tensor, "b 1024"], Float[Tensor, "b 1024"]]:
        """Unnormalised embeddings of picture and sound; their distance measures how far out of
        sync."""
        return self.forward_lip(frames), self.forward_aud(cepstra)

    def forward_lip(self, frames: Float[Tensor, "b 3 5 224 224"]) -> Float[Tensor, "b 1024"]:
        """The embedding of five frames: BGR levels 0..255 in the official evaluation."""
        return self.netfclip(self.forward_lipfeat(frames))

    def forward_aud(self, cepstra: Float[Tensor, "b 1 13 20"]) -> Float[Tensor, "b 1024"]:
        """The embedding of 0.2 s of sound: (coefficients, time), 100 steps per second."""
        return self.netfcaud(self.netcnnaud(cepstra).flatten(1))

    def forward_lipfeat(self, frames: Float[Tensor, "b 3 5 224 224"]) -> Float[Tensor, "b 512"]:
        """The visual features before the projection."""
        return self.netcnnlip(frames).flatten(1)


def conv2d(
    width_in: int, width_out: int, kernel: Size2d, *, padding: Size2d = 0
) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, kernel, padding=padding)
    return [convolution, nn.BatchNorm2d(width_out), nn.ReLU()]


def conv3d(
    width_in: int, width_out: int, kernel: Size3d, *, stride: Size3d = 1, padding: Size3d = 0
) -> list[nn.Module]:
    convolution = nn.Conv3d(width_in, width_out, kernel, stride=stride, padding=padding)
    return [convolution, nn.BatchNorm3d(width_out), nn.ReLU()]


def projection() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, NUM_FEATURES),
        nn.BatchNorm1d(NUM_FEATURES),
        nn.ReLU(),
        nn.Linear(NUM_FEATURES, NUM_DIMENSIONS),
    )
