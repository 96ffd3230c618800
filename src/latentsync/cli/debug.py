"""+debug=tiny: the networks of a config, so narrow that they train in a moment."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf, open_dict

# Maximum channels per level, by target.
MAX_CHANNELS = {
    "latentsync.models.UNet": 16,
    "latentsync.models.StableSyncNet": 8,
    "latentsync.models.MouthReader": 8,
    "diffusers.AutoencoderKL": 8,
}
# Group norm over a single position needs more than one channel per group, or outputs zero.
EMBEDDING_CHANNELS = 48
MAX_VALUES = {
    "norm_num_groups": 4,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "layers_per_block": 1,
}


def shrink_networks(config: DictConfig) -> None:
    """Narrow every network under `task` in place; adapt callbacks and losses accordingly."""
    with open_dict(config):
        for node in _built(config.task):
            target = node["_target_"]
            if target in MAX_CHANNELS:
                _narrow(node, MAX_CHANNELS[target], is_syncnet=target.endswith("SyncNet"))
            if target.endswith(".PerceptualLoss") and node.backbone_path is None:
                node.random_backbone = True
        _bring_forward(config.callbacks, config.trainer.max_steps)


def _bring_forward(callbacks: DictConfig, max_steps: int) -> None:
    """Let what happens only occasionally in long runs happen in a short one too."""
    if "_target_" in callbacks.get("samples", {}):
        samples = callbacks.samples
        samples.every_n_steps = min(samples.every_n_steps, max_steps)
        samples.sampler.num_steps = min(samples.sampler.num_steps, 2)
    if callbacks.get("ema", {}).get("update_starting_at_step", 0) >= max_steps:
        callbacks.ema.update_starting_at_step = 0


def _built(node: DictConfig) -> Iterator[DictConfig]:
    """This node and all below it that have a `_target_`."""
    if "_target_" in node:
        yield node
    for name in node:
        if OmegaConf.is_missing(node, name):
            continue
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _built(child)


def _narrow(node: DictConfig, most: int, *, is_syncnet: bool) -> None:
    towers = (node.audio_encoder, node.visual_encoder) if is_syncnet else (node,)
    for tower in towers:
        widths = tower.get("block_out_channels", [most] * 2)
        tower.block_out_channels = [min(width, most) for width in widths]
        if is_syncnet:
            tower.block_out_channels[-1] = min(widths[-1], EMBEDDING_CHANNELS)
    for name, value in MAX_VALUES.items():
        if name in node:
            node[name] = min(node[name], value)
