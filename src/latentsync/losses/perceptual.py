"""LPIPS on the lower half of the predicted frames."""

import warnings
from pathlib import Path

import lpips
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latentsync.batch import Batch
from latentsync.losses.base import Part
from latentsync.models import Denoised, Frozen

VGG_NAME = "vgg16-397923af.pth"


class PerceptualLoss:
    """LPIPS (VGG) between predicted and true frames, lower half only, as the official stage 2.

    The VGG-16 backbone is not part of the `lpips` package: `backbone_path` names torchvision's
    file. Without a path the network is random, which is useful in tests only and must be asked
    for. It computes in float32 at any training precision, as the official code does.
    """

    reads: frozenset[Part] = frozenset({"pixels", "truth"})

    def __init__(self, backbone_path: Path | str | None, *, random_backbone: bool = False) -> None:
        if backbone_path is None and not random_backbone:
            raise ValueError(
                f"the perceptual loss needs VGG-16: download {VGG_NAME} from "
                f"https://download.pytorch.org/models/{VGG_NAME} and give its path as vgg=, or "
                "leave the loss out with '~task.losses.perceptual'"
            )
        with warnings.catch_warnings():
            # lpips creates the empty VGG with an argument name that torchvision dropped in 2022.
            warnings.filterwarnings("ignore", module="torchvision", category=UserWarning)
            net = lpips.LPIPS(
                net="vgg", pnet_rand=True, verbose=False, pretrained=not random_backbone
            )
        if backbone_path is not None:
            load_backbone(net, Path(backbone_path))
        self.net = Frozen(net)

    def __call__(self, denoised: Denoised, batch: Batch) -> Float[Tensor, ""]:
        half = denoised.pixels.shape[-2] // 2
        predicted, truth = (
            rearrange(pixels[..., half:, :].float(), "b f c h w -> (b f) c h w")
            for pixels in (denoised.pixels, batch["pixels"])
        )
        self.net.to(predicted.device)
        with torch.autocast(predicted.device.type, enabled=False):
            return self.net(predicted, truth).mean()


def load_backbone(net: lpips.LPIPS, path: Path) -> None:
    """Load torchvision's VGG-16 features into the five slices of an LPIPS network."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no VGG-16 weights at {path}: download {VGG_NAME} from "
            f"https://download.pytorch.org/models/{VGG_NAME}"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    features = {key.removeprefix("features."): value for key, value in state.items()}
    wanted = net.net.state_dict()
    # The slices keep torchvision's layer numbers: slice3.10.weight is features.10.weight.
    net.net.load_state_dict({key: features[key.split(".", 1)[1]] for key in wanted}, strict=True)
