"""S3FD (Zhang et al. 2017): the face detector on whose tracks published LSE figures are based.

RGB frames => boxes without landmarks, which cannot be used for alignment.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.faces.detectors.base import Face, FaceDetector, overlap, suppressed

RGB_MEAN = (123.0, 117.0, 104.0)
# Spacing and side of the anchors of the six levels, in pixels.
STRIDES = (4, 8, 16, 32, 64, 128)
SIDES = (16, 32, 64, 128, 256, 512)
SMALLEST_SIDE = 32
# Scale of the network's offsets relative to an anchor's side: of the centre, of log size.
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
# Detections dropped by the network itself, before any threshold of the caller.
MIN_SCORE, MAX_OVERLAP, MAX_BOXES = 0.05, 0.3, 750

Frame = UInt8[np.ndarray, "h w 3"]


class S3FD(nn.Module):
    """VGG-16 with two more levels; six levels predict a box and a score at every position.

    Modules are in the order of the official file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.Sequential(
            *convolutions(3, 64, 64),
            nn.MaxPool2d(2),
            *convolutions(64, 128, 128),
            nn.MaxPool2d(2),
            *convolutions(128, 256, 256, 256),
            nn.MaxPool2d(2, ceil_mode=True),
            *convolutions(256, 512, 512, 512),
            nn.MaxPool2d(2),
            *convolutions(512, 512, 512, 512),
            nn.MaxPool2d(2),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(),
        )
        self.L2Norm3_3 = ChannelNorm(256, 10.0)
        self.L2Norm4_3 = ChannelNorm(512, 8.0)
        self.L2Norm5_3 = ChannelNorm(512, 5.0)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, stride=2, padding=1),
            ]
        )
        widths = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        # The finest level has three scores for "no face"; the highest is used.
        self.conf = nn.ModuleList(
            nn.Conv2d(width, 2 if level else 4, 3, padding=1) for level, width in enumerate(widths)
        )

    def forward(
        self, picture: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n"]]:
        """Boxes x0, y0, x1, y1 as fractions of the image, and scores in [0, 1], of all anchors."""
        offsets, logits = self.heads(picture)
        finest = logits[0]
        logits[0] = torch.cat([finest[:, :3].amax(dim=1, keepdim=True), finest[:, 3:]], dim=1)
        height, width = picture.shape[-2:]
        sizes = [(level.shape[-2], level.shape[-1]) for level in offsets]
        boxes = decode(in_order(offsets), anchors((height, width), sizes).to(picture))
        return boxes, in_order(logits).softmax(dim=-1)[..., 1]

    def heads(
        self, picture: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b 4 _ _"]], list[Float[Tensor, "b _ _ _"]]]:
        """Raw offsets and logits of each level.

        The image is in RGB levels 0..255 minus `RGB_MEAN`.
        """
        conv3_3 = self.vgg[:16](picture)
        conv4_3 = self.vgg[16:23](conv3_3)
        conv5_3 = self.vgg[23:30](conv4_3)
        fc7 = self.vgg[30:](conv5_3)
        conv6_2 = F.relu(self.extras[1](F.relu(self.extras[0](fc7))))
        conv7_2 = F.relu(self.extras[3](F.relu(self.extras[2](conv6_2))))
        levels = [self.L2Norm3_3(conv3_3), self.L2Norm4_3(conv4_3), self.L2Norm5_3(conv5_3)]
        levels += [fc7, conv6_2, conv7_2]
        offsets = [head(level) for head, level in zip(self.loc, levels, strict=True)]
        logits = [head(level) for head, level in zip(self.conf, levels, strict=True)]
        return offsets, logits


class ChannelNorm(nn.Module):
    """L2-normalises every position, then applies a learned gain per channel."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), gain))

    def forward(self, hidden: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        length = hidden.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return hidden / length * self.weight[:, None, None]


class S3FDDetector(FaceDetector):
    """S3FD as a face detector: faces of scheme "box", whose points are the box corners.

    Frames are shrunk by `scale` first, as the official evaluation does.
    """

    def __init__(self, net: S3FD, *, min_score: float = 0.9, scale: float = 0.25) -> None:
        self.net = net
        self.min_score = min_score
        self.scale = scale

    def __call__(self, frame: Frame) -> list[Face]:
        found = detect_boxes(self.net, frame, min_score=self.min_score, scale=self.scale)
        return [Face(row[:4], row[:4].reshape(2, 2), float(row[4]), "box") for row in found]

    def refine(self, frame: Frame, face: Face) -> Face | None:
        """The face that overlaps the given one most, if by more than half; else None."""
        faces = self(frame)
        shares = overlap(face.box, np.array([other.box for other in faces]).reshape(-1, 4))
        best = int(shares.argmax()) if faces else 0
        return faces[best] if faces and shares[best] > 0.5 else None


def detect_boxes(
    net: S3FD,
    frame: Frame,
    *,
    min_score: float = 0.9,
    scale: float = 0.25,
    max_overlap: float = 0.1,
) -> Float[np.ndarray, "n 5"]:
    """x0, y0, x1, y1 in frame pixels and score of every face of an RGB frame, best first."""
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    if min(small.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"S3FD sees nothing in a frame of {frame.shape[1]}x{frame.shape[0]} px at scale "
            f"{scale}: both sides must be {SMALLEST_SIDE} px or more then; raise the scale"
        )
    weight = next(net.parameters())
    levels = torch.from_numpy(small).to(weight) - weight.new_tensor(RGB_MEAN)
    with torch.inference_mode():
        boxes, scores = net(levels.permute(2, 0, 1)[None])
    found = best_boxes(boxes[0], scores[0]).cpu().double().numpy()
    height, width = frame.shape[:2]
    found = found[found[:, 4] > min_score] * [width, height, width, height, 1]
    return found[suppress(found, max_overlap)]


def best_boxes(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> Float[Tensor, "m 5"]:
    """The boxes and scores after non-maximum suppression, best first: the official `Detect`."""
    rows = torch.cat([boxes, scores[:, None]], dim=1)[scores > MIN_SCORE]
    kept = suppress(rows.detach().cpu().numpy(), MAX_OVERLAP)[:MAX_BOXES]
    return rows[torch.from_numpy(kept).to(rows.device)]


def suppress(rows: Float[np.ndarray, "n 5"], max_overlap: float) -> Int[np.ndarray, " m"]:
    """Which of x0, y0, x1, y1, score overlap no better one by more than a share; best first."""
    order = rows[:, 4].argsort()[::-1]
    kept = [order[places[0]] for places in suppressed(rows[order, :4], max_overlap)]
    return np.array(kept, dtype=np.int64)


def anchors(size: tuple[int, int], level_sizes: Sequence[tuple[int, int]]) -> Float[Tensor, "n 4"]:
    """Centre and size of every anchor as fractions of an image of (height, width) `size`."""
    shape = torch.tensor([size[1], size[0]], dtype=torch.float64)
    levels = []
    for (height, width), stride, side in zip(level_sizes, STRIDES, SIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centers = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride / shape
        levels.append(torch.cat([centers, (side / shape).expand_as(centers)], dim=1))
    return torch.cat(levels).float()


def decode(offsets: Float[Tensor, "b n 4"], places: Float[Tensor, "n 4"]) -> Float[Tensor, "b n 4"]:
    """Boxes x0, y0, x1, y1 from offsets to anchors (the SSD parametrisation)."""
    centers = places[:, :2] + offsets[..., :2] * CENTER_VARIANCE * places[:, 2:]
    sizes = places[:, 2:] * torch.exp(offsets[..., 2:] * SIZE_VARIANCE)
    return torch.cat([centers - sizes / 2, centers + sizes / 2], dim=-1)


def in_order(levels: Sequence[Float[Tensor, "b c ..."]]) -> Float[Tensor, "b n c"]:
    """Flatten all positions of all levels in the order of the anchors."""
    return torch.cat([level.flatten(2).mT for level in levels], dim=1)


def convolutions(*widths: int) -> list[nn.Module]:
    return [
        part for a, b in pairwise(widths) for part in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
    ]
