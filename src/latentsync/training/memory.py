"""Peak memory of a training step, measured without allocating it.

Under `FakeTensorMode` tensors have shapes but no contents, so a step of any size runs through all
operations, backward pass and optimizer in a minute on a laptop; `PeakMemory` adds up live storages.
"""

import weakref
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30
# The autocast dtype of a trainer's precision; "-true" casts the weights instead.
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CAST = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
PRECISIONS = ("32-true", *AUTOCAST, *CAST)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all live storages created by operations within it.

    `live` and `peak` are in bytes. It counts storages rather than tensors, so views are free; both
    fake and real tensors are counted. Workspace that a kernel allocates internally is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[storage] = size
        weakref.finalize(storage, self._free, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _free(self, size: int) -> None:
        self.live -= size


def cast_to(module: nn.Module, precision: str) -> None:
    """Cast a module's weights as a trainer's `precision` does, in place."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision in CAST:
        recast(module, CAST[precision])


def recast(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace parameters and buffers by ones of another dtype, before the optimizer is created;
    `.to` does not work for fake tensors."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            new = nn.Parameter(value.detach().to(dtype), requires_grad=value.requires_grad)
            setattr(part, name, new)
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(part, name, buffer.to(dtype))


def begin(optimizer: Optimizer) -> None:
    """Allocate gradients and optimizer state, as they are after a first step."""
    for group in optimizer.param_groups:
        for value in group["params"]:
            value.grad = torch.zeros_like(value)
    optimizer.step()


def step(
    loss_of: Callable[[], Tensor],
    optimizer: Optimizer,
    *,
    precision: str,
    device: str = "cpu",
    clip: float = 1.0,
) -> None:
    """One step in Lightning's order: the previous gradients live until the loss has been
    computed."""
    dtype = AUTOCAST.get(precision, torch.bfloat16)
    with torch.autocast(device, dtype, enabled=precision in AUTOCAST):
        loss = loss_of()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
    optimizer.step()
