"""A whole tiny model with random weights."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from latentsync.diffusion import DDPM, NoiseProcess
from latentsync.models import AudioEncoder, LatentCodec, LipSyncModel, ModelFormat, UNet

SIDE, NUM_FRAMES = 32, 4


def build_model(audio_encoder: AudioEncoder, process: NoiseProcess | None = None) -> LipSyncModel:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[4, 4, 8],
        norm_num_groups=2,
        latent_channels=4,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.0, 2.0, 1.5],
        mid_block_add_attention=False,
    )
    unet = UNet(
        block_out_channels=[8, 16],
        attention_levels=[False, True],
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=80,
        num_attention_heads=2,
    )
    return LipSyncModel(
        unet=unet.eval(),
        codec=LatentCodec(vae),
        audio_encoder=audio_encoder,
        process=process or DDPM(DDIMScheduler(prediction_type="sample", clip_sample=False)),
        model_format=ModelFormat(
            resolution=SIDE, num_frames=NUM_FRAMES, audio_before=2, audio_after=2
        ),
    )
