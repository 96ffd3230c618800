"""Experiments with tiny networks, on two synthetic speakers."""

from pathlib import Path

from diffusers import AutoencoderKL
from hydra import compose, initialize_config_dir
from transformers import WhisperConfig, WhisperModel

from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.cli.train import train
from latentsync.faces import FixedDetector

POINTS = [[48.0, 48.0], [80.0, 48.0], [64.0, 64.0]]
TINY_UNET = [
    "task.model.unet.block_out_channels=[8,16]",
    "task.model.unet.attention_levels=[false,true]",
    "task.model.unet.cross_attention_dim=16",
    "task.model.model_format.resolution=64",
]

# +debug=tiny narrows networks; these fit them to faces of 64 pixels instead of 256: the last two
# levels of the visual tower do not downsample.
FACES_OF_64 = [
    "task.syncnet.resolution=64",
    "task.syncnet.visual_encoder.downsample_factors=[[1,2],2,2,2,2,2,1,1]",
]
SYNCNETS = {
    "syncnet": FACES_OF_64,
    "syncnet_plain": FACES_OF_64,
    "syncnet_25": FACES_OF_64,
    "syncnet_latent": [
        "task.syncnet.resolution=16",
        "task.syncnet.visual_encoder.downsample_factors=[2,2,2,1,2,1]",
    ],
}
READER_OF_64 = [f"{part}.resolution=64" for part in ("task.reader", "data.both")]
TINY_STAGE1 = [
    *TINY_UNET,
    "task.model.unet.num_attention_heads=2",
]
TINY_VAE = [
    "task.vae.block_out_channels=[8,8,8,8]",
    "task.vae.norm_num_groups=4",
    "task.vae.layers_per_block=1",
]


def fixed_face() -> FixedDetector:
    return FixedDetector(POINTS)


def tiny_vae(latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[4, 4, 4],
        norm_num_groups=2,
        latent_channels=latent_channels,
        mid_block_add_attention=False,
    )


def tiny_whisper(width: int = 16) -> WhisperModel:
    return WhisperModel(
        WhisperConfig(
            d_model=width, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=8,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    )  # fmt: skip


def run(work: Path, experiment: str, name: str, *words: str) -> Path:
    """Run a few steps of an experiment (two by default) in a folder of its own, which is
    returned."""
    register_resolvers()
    run_dir = work / "runs" / name
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=overrides(work, experiment, run_dir, *words))
    train(config)
    return run_dir


def overrides(work: Path, experiment: str, run_dir: Path, *words: str) -> list[str]:
    """Overrides that make an experiment small; later ones take precedence."""
    small = [
        f"experiment={experiment}",
        "+debug=tiny",
        f"paths.run_dir='{run_dir}'",
        f"data.train_manifest='{work / 'set'}'",
        f"data.val_manifest='{work / 'set'}'",
        "+trainer.enable_progress_bar=false",
        "~callbacks.progress",
    ]
    names = {word.split("=", 1)[0] for word in words}
    return [*(word for word in small if word.split("=", 1)[0] not in names), *words]
