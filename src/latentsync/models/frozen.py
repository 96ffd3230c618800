"""Networks that are used but never trained."""

import hashlib
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Frozen(Generic[Net]):
    """A network outside the module tree: never trained, averaged, wrapped or checkpointed.

    Gradients still flow through it to its input, which the perceptual and sync losses need.
    """

    def __init__(self, net: Net) -> None:
        self.net = net.eval().requires_grad_(False)

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.net(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move or cast the network, in place."""
        cast(self.net, device, dtype)
        return self


def cast(
    net: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None = None
) -> None:
    """Move and cast a whole network in place (diffusers' own `to` warns about casting)."""
    nn.Module.to(net, device, dtype)


def weights_digest(net: nn.Module, *also: object) -> str:
    """Eight hexadecimal digits of a hash of all tensors and of given plain values."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    if also:
        digest.update(repr(also).encode())
    return digest.hexdigest()[:8]
