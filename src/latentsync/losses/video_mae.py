"""Backbones of TREPA: the paper's VideoMAE-v2-g, and lighter ones.

Both use transformers' VideoMAE; the published VideoMAE-v2 file is converted on loading.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import VideoMAEConfig, VideoMAEModel

V2_NAME = "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
V2_REMEDY = (
    f"download {V2_NAME} (in auxiliary/ of huggingface.co/ByteDance/LatentSync-1.5) and give "
    "its path as videomae=, or leave the loss out with '~task.losses.trepa'"
)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
IMAGE_SIZE = 224

# Official name of a block's tensor => transformers' name; qkv and its biases are also split.
BLOCK_KEYS = {
    "norm1.weight": "layernorm_before.weight",
    "norm1.bias": "layernorm_before.bias",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.proj.weight": "attention.output.dense.weight",
    "attn.proj.bias": "attention.output.dense.bias",
    "norm2.weight": "layernorm_after.weight",
    "norm2.bias": "layernorm_after.bias",
    "mlp.fc1.weight": "intermediate.dense.weight",
    "mlp.fc1.bias": "intermediate.dense.bias",
    "mlp.fc2.weight": "output.dense.weight",
    "mlp.fc2.bias": "output.dense.bias",
}
KEYS = {
    "patch_embed.proj.weight": "net.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "net.embeddings.patch_embeddings.projection.bias",
    "fc_norm.weight": "norm.weight",
    "fc_norm.bias": "norm.bias",
}


class VideoBackbone(nn.Module):
    """Clips in [0, 1] => one embedding each: the mean of VideoMAE's tokens, normalised if `norm`.

    `mean` and `std` normalise the input, by default not at all. With `gradient_checkpointing` the
    backward pass recomputes every layer instead of storing its activations.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: VideoMAEModel,
        *,
        norm: nn.LayerNorm | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        gradient_checkpointing: bool = True,
    ) -> None:
        super().__init__()
        self.net = net
        self.norm = norm
        self.gradient_checkpointing = gradient_checkpointing
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        return self.net.config.image_size

    @property
    def dtype(self) -> torch.dtype:
        return self.net.dtype

    def forward(self, clips: Float[Tensor, "b f 3 h w"]) -> Float[Tensor, "b d"]:
        if clips.shape[1] != self.net.config.num_frames:
            raise ValueError(
                f"the video network of TREPA sees {self.net.config.num_frames} frames at once, "
                f"the clips have {clips.shape[1]}: set data.both.num_frames"
            )
        tokens = self.net.embeddings((clips - self.mean) / self.std, None)
        for layer in self.net.encoder.layer:
            if self.gradient_checkpointing and tokens.requires_grad:
                tokens = checkpoint(layer, tokens, use_reentrant=False)
            else:
                tokens = layer(tokens)
        if self.net.layernorm is not None:
            tokens = self.net.layernorm(tokens)
        pooled = tokens.mean(dim=1)
        return pooled if self.norm is None else self.norm(pooled)


def load_video_mae(folder: Path | str, *, dtype: str = "float32") -> VideoBackbone:
    """A lighter backbone from a folder such as MCG-NJU/videomae-base (87 M parameters)."""
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(
            f"no VideoMAE in {folder}: download MCG-NJU/videomae-base from huggingface.co and give "
            "its folder as videomae="
        )
    net = VideoMAEModel.from_pretrained(folder, local_files_only=True, dtype=DTYPES[dtype])
    # It was trained on frames normalised with ImageNet's mean and standard deviation.
    return VideoBackbone(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).to(
        DTYPES[dtype]
    )


def load_video_mae_v2(
    path: Path | str | None,
    *,
    dtype: str = "float16",
    num_heads: int = 16,
    num_frames: int = 16,
    gradient_checkpointing: bool = True,
) -> VideoBackbone:
    """VideoMAE-v2 (ViT-g/14, 1 B parameters) from its published file, mean-pooled and normalised.

    Width, depth and patch sizes come from the tensors. Its input is in [0, 1] without further
    normalisation, as in the published recipe.
    """
    if path is None:
        raise ValueError(f"TREPA needs VideoMAE-v2-g: {V2_REMEDY}")
    state = read_official(Path(path))
    config = official_config(state, num_heads=num_heads, num_frames=num_frames)
    with torch.device("meta"):
        backbone = VideoBackbone(
            VideoMAEModel(config),
            norm=nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            gradient_checkpointing=gradient_checkpointing,
        )
    # Not part of the file: the position table and the buffers, recreated off the meta device.
    backbone.net.embeddings.position_embeddings = positions(config)
    backbone.mean, backbone.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    try:
        backbone.load_state_dict(translate(state), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no fine-tuned, mean-pooled VideoMAE-v2: {reason}") from error
    return backbone.to(DTYPES[dtype])


def read_official(path: Path) -> Mapping[str, Tensor]:
    """The state dict of a published file: under `module`, under `model`, or at the top level."""
    if not path.is_file():
        raise FileNotFoundError(f"no VideoMAE-v2-g at {path}: {V2_REMEDY}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged or no weights file: {V2_REMEDY}") from error
    for name in ("module", "model"):
        state = state.get(name, state)
    if "patch_embed.proj.weight" not in state:
        raise ValueError(f"{path} holds no VideoMAE-v2: {V2_REMEDY}")
    return state


def official_config(
    state: Mapping[str, Tensor], *, num_heads: int, num_frames: int
) -> VideoMAEConfig:
    """The config implied by the tensors of a published file."""
    width, _, tubelet, patch, _ = state["patch_embed.proj.weight"].shape
    return VideoMAEConfig(
        image_size=IMAGE_SIZE,
        patch_size=patch,
        tubelet_size=tubelet,
        num_frames=num_frames,
        hidden_size=width,
        num_hidden_layers=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        num_attention_heads=num_heads,
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        layer_norm_eps=1e-6,
        use_mean_pooling=True,
        attn_implementation="sdpa",
    )


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names => names of `VideoBackbone`; the head of 174 classes is dropped."""
    translated = {}
    for key, value in state.items():
        if key in KEYS:
            translated[KEYS[key]] = value
        elif key.startswith("blocks."):
            _, index, name = key.split(".", 2)
            stem = f"net.encoder.layer.{index}."
            if name == "attn.qkv.weight":
                for part, weight in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    translated[f"{stem}attention.attention.{part}.weight"] = weight
            else:
                translated[stem + BLOCK_KEYS.get(name, name)] = value
        elif not key.startswith("head."):
            translated[key] = value
    return translated


def positions(config: VideoMAEConfig) -> Float[Tensor, "1 n d"]:
    """Sinusoidal position table, one row per token, wavelengths from 2 pi to 20000 pi ("Attention
    is all you need"): VideoMAE has no learned positions.
    """
    num_tokens = (config.num_frames // config.tubelet_size) * (
        config.image_size // config.patch_size
    ) ** 2
    channel = torch.arange(config.hidden_size)
    rate = 10_000 ** (-2 * (channel // 2).double() / config.hidden_size)
    angle = torch.arange(num_tokens).double()[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]
