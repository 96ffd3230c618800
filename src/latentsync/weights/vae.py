"""Published VAEs => diffusers' AutoencoderKL, with the official scaling factor."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL
from torch import Tensor

from latentsync.config_files import read_json
from latentsync.weights.files import build, infer, read_state, replace_all, require

# The official code sets both, regardless of the VAE's config.
SCALING_FACTOR, SHIFT_FACTOR = 0.18215, 0.0
NUM_NORM_GROUPS = 32

# Names of the mid-block attention of encoder and decoder in older files.
OLD_ATTENTION_KEYS = {
    "mid_block.attentions.0.query.": "mid_block.attentions.0.to_q.",
    "mid_block.attentions.0.key.": "mid_block.attentions.0.to_k.",
    "mid_block.attentions.0.value.": "mid_block.attentions.0.to_v.",
    "mid_block.attentions.0.proj_attn.": "mid_block.attentions.0.to_out.0.",
}

VAE_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_official_vae(path: Path | str) -> AutoencoderKL:
    """The VAE of a diffusers folder or of a weight file alone, scaled as the UNets expect.

    Its shape is inferred from the tensors, with 32 norm groups. ValueError if a config.json next to
    them has another number of groups or another scaling factor.
    """
    weights_path = vae_path(Path(path))
    state = {
        replace_all(key, OLD_ATTENTION_KEYS): value
        for key, value in read_state(weights_path).items()
    }
    require(state, weights_path, "VAE", "encoder.conv_in.weight", "decoder.conv_in.weight")
    require(state, weights_path, "VAE", "quant_conv.weight", "post_quant_conv.weight")
    check_against(weights_path.with_name("config.json"))
    config = infer(vae_config, state, weights_path)
    return build(lambda: AutoencoderKL(**config), state, weights_path)


def vae_path(path: Path) -> Path:
    """The weight file of a VAE folder, or the given file."""
    if not path.is_dir():
        return path
    found = next((path / name for name in VAE_NAMES if (path / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no VAE in {path}: it has no {VAE_NAMES[0]}; put config.json and that file of "
            "stabilityai/sd-vae-ft-mse on the Hugging Face Hub there"
        )
    return found


def check_against(config_path: Path) -> None:
    """Raise ValueError if the VAE's config differs from the VAE the UNets were trained with."""
    if not config_path.is_file():
        return
    config = read_json(config_path)
    for name, wanted in (("scaling_factor", SCALING_FACTOR), ("norm_num_groups", NUM_NORM_GROUPS)):
        if config.get(name, wanted) != wanted:
            raise ValueError(
                f"{config_path} says {name} {config[name]}, the published UNets were trained with "
                f"{wanted}: give stabilityai/sd-vae-ft-mse"
            )


def vae_config(state: Mapping[str, Tensor]) -> dict[str, object]:
    """The config of a VAE as far as its tensors show it, with the official scaling factor."""
    levels = range(len({key.split(".")[2] for key in state if "encoder.down_blocks." in key}))
    convs = [key for key in state if key.startswith("encoder.down_blocks.0.resnets.")]
    return {
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "block_out_channels": [
            state[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"].shape[0]
            for level in levels
        ],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": sum(key.endswith(".conv1.weight") for key in convs),
        "norm_num_groups": NUM_NORM_GROUPS,
        "scaling_factor": SCALING_FACTOR,
        "shift_factor": SHIFT_FACTOR,
    }
