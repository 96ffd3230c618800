"""Weights and inputs of the golden arrays, generated from names instead of stored."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"


def randn(name: str, *shape: int) -> Tensor:
    """The standard normal array of a name."""
    seed = zlib.crc32(name.encode())
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noise)


def recipe_value(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of a name: matrices preserve the scale of their input, gains are around 1."""
    noise = randn(name, *shape)
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * noise.abs()
    if len(shape) >= 2:
        return noise * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    return noise * np.float32(0.1) + (1 if name.endswith("weight") else 0)


def fill(
    net: nn.Module, names: list[str], translate: Callable[[str], str] = str, prefix: str = ""
) -> nn.Module:
    """Fill a network from official names, all of which must exist in it after translation.

    Tables of positions and counts keep the values computed by the network.
    """
    own = net.state_dict()
    state = {
        translate(name): own[translate(name)]
        if name.endswith((".pe", "positional_embedding", "num_batches_tracked"))
        else recipe_value(prefix + name, tuple(own[translate(name)].shape))
        for name in names
    }
    net.load_state_dict(state, strict=True)
    return net.eval()


def official_shapes(manifest: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official state dict: one `name 1 2 3` per line."""
    lines = (DATA / f"{manifest}.keys.txt").read_text().splitlines()
    return {name: tuple(map(int, sizes)) for name, *sizes in (line.split(" ") for line in lines)}
