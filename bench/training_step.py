"""Peak memory of a training step, measured without allocating it.

Under `FakeTensorMode` tensors have shapes but no contents, so a step of any size runs through all
operations, backward pass and optimizer in a minute on a laptop; `MemTracker` adds up live storages.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.optim import Optimizer

GIB = 2**30
# The autocast dtype of a trainer's precision; "-true" casts the weights instead.
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CAST = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
PRECISIONS = ("32-true", *AUTOCAST, *CAST)


def total_bytes(tracker: MemTracker, kind: Literal["peak", "current"] = "peak") -> int:
    """Bytes of all live storages that were created inside the tracker.

    Views are free, fake and real tensors are both counted; workspace that a kernel allocates
    internally is not seen.
    """
    snapshot = tracker.get_tracker_snapshot(kind)
    return sum(sizes["Total"] for sizes in snapshot.values())


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
