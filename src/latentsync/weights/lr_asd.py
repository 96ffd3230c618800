"""LR-ASD from its published files (`finetuning_TalkSet.model`, `pretrain_AVA.model`)."""

import logging
import re
from pathlib import Path

from latentsync.models.lr_asd import LRASD
from latentsync.weights.files import build, read_state, replace_all, require

logger = logging.getLogger(__name__)

# Part of an official name => ours; blocks are handled by `translated`.
PARTS = {
    "model.visualEncoder.": "visual_encoder.",
    "model.audioEncoder.": "audio_encoder.",
    "model.fusion.": "fusion.",
    "model.detector.attention.": "gate.",
    "lossAV.FC.": "head.",
    "attention.weight": "mix.weight",
    ".bn.": ".norm.",
}
# The pools between blocks count in our encoders' indices.
BLOCK = re.compile(r"block(\d)\.([smt])_(norm_)?(\d)\.")
GRU = re.compile(r"model\.detector\.gru_(forward|backward)\.(\w+)")
ONLY_FOR_TRAINING = "lossV."


def load_official_lr_asd(path: Path | str) -> LRASD:
    """LR-ASD from a published file, in eval mode.

    Raises FileNotFoundError, or ValueError naming the tensors that do not fit.
    """
    state = read_state(path)
    require(
        state,
        path,
        "LR-ASD",
        "model.visualEncoder.block1.s_1.weight",
        "model.detector.gru_forward.weight_ih_l0",
    )
    own = {
        translated(key): value
        for key, value in state.items()
        if not key.startswith(ONLY_FOR_TRAINING)
    }
    logger.info("%s: LR-ASD, which says who speaks", path)
    return build(LRASD, own, path)


def translated(key: str) -> str:
    """The official name of a tensor => ours."""
    gru = GRU.fullmatch(key)
    if gru:
        return f"gru.{gru[2]}" + ("_reverse" if gru[1] == "backward" else "")
    return BLOCK.sub(_place, replace_all(key, PARTS))


def _place(found: re.Match) -> str:
    """Index of the block in the encoder, of the convolution in it, and 1 for a norm, else 0."""
    block, kind, norm, number = found.groups()
    return f"{2 * int(block) - 2}.{2 * (kind == 't') + int(number) - 1}.{int(bool(norm))}."
