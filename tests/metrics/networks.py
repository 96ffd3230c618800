"""Networks of random weights in the files that metrics read."""

import warnings
from pathlib import Path

import torch
from torch import nn

from latentsync.metrics.perceptual import LAYERS, WIDTHS


class MeanColors(nn.Module):
    """Eight features of a picture or a clip: its mean colours, bent."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 8)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.mix(pixels.flatten(2).mean(2)))


class MouthLevel(nn.Module):
    """The mean level of every picture, and one."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        level = pictures.flatten(2).mean(2)
        return torch.stack([level, torch.ones_like(level)], dim=2)


class MouthAndSound(nn.Module):
    """The mean level of every picture, and that of its sound."""

    def forward(self, pictures: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        levels = sound.unflatten(1, (-1, 640)).mean(2)
        return torch.stack([pictures.flatten(2).mean(2), levels], dim=2)


def vgg_state() -> dict[str, torch.Tensor]:
    """VGG-16 with torchvision's names, gains that keep the size of features."""
    generator = torch.Generator().manual_seed(0)
    state, width = {}, 3
    for widths, layers in zip(WIDTHS, LAYERS, strict=True):
        for wide, layer in zip(widths, layers, strict=True):
            scale = (2 / (9 * width)) ** 0.5
            weight = torch.randn(wide, width, 3, 3, generator=generator) * scale
            state[f"features.{layer}.weight"] = weight
            state[f"features.{layer}.bias"] = 0.1 * torch.randn(wide, generator=generator)
            width = wide
    return state


def save_script(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        torch.jit.script(net).save(str(path))


def files_in(folder: Path) -> dict[str, str]:
    """Paths of a VGG-16, an extractor and two lip readers in TorchScript."""
    torch.manual_seed(0)
    files = {"vgg": str(folder / "vgg.pth"), "extractor": str(folder / "extractor.pt")}
    torch.save(vgg_state(), files["vgg"])
    save_script(MeanColors(), Path(files["extractor"]))
    for name, net in (("lip_score", MouthLevel()), ("av_sync", MouthAndSound())):
        files[name] = str(folder / f"{name}.pt")
        save_script(net, Path(files[name]))
    return files
