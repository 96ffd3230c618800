"""OpenAI's Whisper files => our audio encoder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from latentsync.models.audio.whisper import WhisperAudioEncoder
from latentsync.weights.files import State, build, describe, kind_of, read, replace_all

logger = logging.getLogger(__name__)

WHISPER_KEYS = {
    "encoder.": "",
    "blocks.": "layers.",
    ".attn.query.": ".self_attn.q_proj.",
    ".attn.key.": ".self_attn.k_proj.",
    ".attn.value.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.out_proj.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    ".mlp_ln.": ".final_layer_norm.",
    "ln_post.": "layer_norm.",
    "positional_embedding": "embed_positions.weight",
}


def load_official_whisper(path: Path | str) -> WhisperAudioEncoder:
    """The encoder of an OpenAI Whisper file of any size, or of a transformers folder."""
    if Path(path).is_dir():
        return WhisperAudioEncoder.load(path)
    content = read(path)
    if not {"dims", "model_state_dict"} <= set(content):
        found = kind_of(content)
        raise ValueError(
            f"{path} is no OpenAI Whisper file (such as tiny.pt): it holds "
            + (describe(content) if found == "unknown" else f"a {found}")
        )
    dims = cast(dict[str, int], content["dims"])
    logger.info("%s: a Whisper with %s", path, dims)
    try:
        config = whisper_config(dims)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no Whisper: its dims lack {error}") from error
    state = {
        replace_all(key, WHISPER_KEYS): value.float()
        for key, value in cast(State, content["model_state_dict"]).items()
        if key.startswith("encoder.")
    }
    return WhisperAudioEncoder(build(lambda: WhisperEncoder(config), state, path))


def whisper_config(dims: Mapping[str, int]) -> WhisperConfig:
    """The encoder's config from the `dims` of an OpenAI file."""
    width = dims["n_audio_state"]
    return WhisperConfig(
        d_model=width,
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * width,
        num_mel_bins=dims["n_mels"],
        max_source_positions=dims["n_audio_ctx"],
    )
