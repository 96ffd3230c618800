"""Files in the layouts of the published ones, from the smallest possible networks."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.models import StableSyncNet, UNet, save_network
from latentsync.weights import export_official_syncnet, export_official_unet

AUDIO_WIDTH = 384  # of whisper-tiny
DIMS = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": AUDIO_WIDTH,
    "n_audio_head": 6,
    "n_audio_layer": 1,
}
# transformers' names => OpenAI's, from the documentation of both layouts.
OPENAI_NAMES = {
    "layers.": "blocks.",
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "embed_positions.weight": "positional_embedding",
}


def tiny_unet(motion: str = "decoder", cross_attention_dim: int = AUDIO_WIDTH) -> UNet:
    torch.manual_seed(0)
    return UNet(
        block_out_channels=(32, 32),
        attention_levels=(False, True),
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        motion=motion,
    ).eval()


def tiny_vae(**config: object) -> AutoencoderKL:
    """Downsamples by eight, like the published one: its attention and the UNet's run on 1/64 of the
    pixels."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=[32] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        **config,
    ).eval()


def tiny_syncnet() -> StableSyncNet:
    torch.manual_seed(2)
    towers = {
        name: {
            "in_channels": channels,
            "block_out_channels": [8] * len(factors),
            "downsample_factors": factors,
            "attn_blocks": [0] * (len(factors) - 1) + [1],
            "dropout": 0.0,
        }
        for name, channels, factors in (
            ("audio_encoder", 1, [[2, 1], 2, 2, 1, 2, 2, [2, 3]]),
            ("visual_encoder", 48, [[1, 2], 2, 2, 2, 2, 2, 2, 2]),
        )
    }
    return StableSyncNet(**towers).eval()


def write_whisper(path: Path) -> Path:
    """An OpenAI file of a one-layer encoder."""
    torch.manual_seed(3)
    encoder = WhisperEncoder(
        WhisperConfig(
            d_model=AUDIO_WIDTH,
            encoder_layers=1,
            encoder_attention_heads=6,
            encoder_ffn_dim=4 * AUDIO_WIDTH,
        )
    )
    state = {}
    for key, value in encoder.state_dict().items():
        name = "ln_post" + key.removeprefix("layer_norm") if key.startswith("layer_norm") else key
        for ours, official in OPENAI_NAMES.items():
            name = name.replace(ours, official)
        state[f"encoder.{name}"] = value.half()
    torch.save({"dims": DIMS, "model_state_dict": state}, path)
    return path


def write_published(folder: Path) -> Path:
    """The files of a published version in the users' layout; returns the UNet's."""
    (folder / "whisper").mkdir(parents=True)
    write_whisper(folder / "whisper" / "tiny.pt")
    save_network(tiny_vae(), folder / "vae")
    export_official_syncnet(tiny_syncnet(), folder / "stable_syncnet.pt")
    export_official_unet(tiny_unet(), folder / "latentsync_unet.pt")
    return folder / "latentsync_unet.pt"


def as_version_1_0(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An official UNet's state with the names of version 1.0."""
    return {
        key
        if ".motion_modules." in key
        else key.replace(".norm2.", ".audio_cross_attn.norm.").replace(
            ".attn2.", ".audio_cross_attn.attn."
        )
        if ".transformer_blocks." in key
        else key: value
        for key, value in state.items()
    }
