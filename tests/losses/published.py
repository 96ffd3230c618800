"""A tiny file in the layout of VideoMAE-v2-g, and its forward pass written out by hand."""

import math

import torch
from torch.nn import functional

WIDTH, DEPTH, HEADS, PATCH, HIDDEN = 32, 2, 16, 112, 48


def published_state(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Names and axis order as saved by the published code, with a head of 174 classes."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / 4

    state = {
        "patch_embed.proj.weight": draw(WIDTH, 3, 2, PATCH, PATCH) / PATCH,
        "patch_embed.proj.bias": draw(WIDTH),
    }
    for index in range(DEPTH):
        state |= {
            f"blocks.{index}.{name}": draw(*shape)
            for name, shape in {
                "norm1.weight": (WIDTH,),
                "norm1.bias": (WIDTH,),
                "attn.q_bias": (WIDTH,),
                "attn.v_bias": (WIDTH,),
                "attn.qkv.weight": (3 * WIDTH, WIDTH),
                "attn.proj.weight": (WIDTH, WIDTH),
                "attn.proj.bias": (WIDTH,),
                "norm2.weight": (WIDTH,),
                "norm2.bias": (WIDTH,),
                "mlp.fc1.weight": (HIDDEN, WIDTH),
                "mlp.fc1.bias": (HIDDEN,),
                "mlp.fc2.weight": (WIDTH, HIDDEN),
                "mlp.fc2.bias": (WIDTH,),
            }.items()
        }
    state |= {"fc_norm.weight": draw(WIDTH), "fc_norm.bias": draw(WIDTH)}
    return state | {"head.weight": draw(174, WIDTH), "head.bias": draw(174)}


def embed_by_hand(state: dict[str, torch.Tensor], clips: torch.Tensor) -> torch.Tensor:
    """Clips "b f 3 224 224" in [0, 1] => embeddings, computed from the published names."""
    tokens = functional.conv3d(
        clips.transpose(1, 2),
        state["patch_embed.proj.weight"],
        state["patch_embed.proj.bias"],
        stride=(2, PATCH, PATCH),
    )
    tokens = tokens.flatten(2).transpose(1, 2)
    tokens = tokens + positions(tokens.shape[1])
    for index in range(DEPTH):
        block = {
            name.removeprefix(f"blocks.{index}."): value
            for name, value in state.items()
            if name.startswith(f"blocks.{index}.")
        }
        tokens = tokens + attend(block, norm(block, "norm1", tokens))
        hidden = norm(block, "norm2", tokens)
        hidden = functional.gelu(hidden @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"])
        tokens = tokens + hidden @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return norm(state, "fc_norm", tokens.mean(dim=1))


def attend(block: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    bias = torch.cat([block["attn.q_bias"], torch.zeros(WIDTH), block["attn.v_bias"]])
    query, key, value = (
        part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
        for part in (tokens @ block["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
    )
    weights = (query @ key.mT / math.sqrt(WIDTH // HEADS)).softmax(dim=-1)
    attended = (weights @ value).transpose(1, 2).flatten(2)
    return attended @ block["attn.proj.weight"].T + block["attn.proj.bias"]


def norm(state: dict[str, torch.Tensor], name: str, tokens: torch.Tensor) -> torch.Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def positions(num_tokens: int) -> torch.Tensor:
    rows = [
        [
            (math.cos if channel % 2 else math.sin)(row / 10000 ** (channel // 2 * 2 / WIDTH))
            for channel in range(WIDTH)
        ]
        for row in range(num_tokens)
    ]
    return torch.tensor(rows)
