"""Options and configs that have been renamed, with their current names."""

import re

# Former option => current option.
OPTIONS = {
    r"losses@task\.losses": "losses=",
    r"task\.loss_weights\.(\w+)": r"task.losses.\1.weight=",
    r"task\.losses\.(\w+)\.(?!weight|loss\b)(.+)": r"task.losses.\1.loss.\2=",
    r"audio_encoder@task\.model\.audio_encoder": "audio_encoder=",
    r"task\.model\.audio_encoder\.(.+)": r"audio_encoder.\1=",
    r"task\.official_pairs": "task.pairs.official=",
    r"task\.(min_offset_frames|same_clip_weight)": r"task.pairs.\1=",
    r"process@task\.model\.process": "process=",
    r"task\.model\.process\.(.+)": r"process.\1=",
    r"metrics\.(reader|syncnet|mesh|sync_stride)": r"evaluator.\1=",
    r"sampler\.parity": "preset=official",
    r"data\.(reader|seed)": r"data.both.\1=",
    r"data\.cache_dir": "data.cache.folder=",
    r"data\.cache_gigabytes": "data.cache.gigabytes=",
    r"data\.num_train_items": "data.train.max_items=",
    r"data\.(?:train|val)\.(num_frames|with_\w+|in_memory)": r"data.both.\1=",
}
# Former config of a group => what has its values now.
CONFIGS = {
    "sampler/balanced": "preset=balanced, or its sampler alone, sampler=dpmpp_8",
    "sampler/best": "preset=best, or its sampler alone, sampler=dpmpp_20",
    "sampler/fast": "preset=fast, or its sampler alone, sampler=dpmpp_6",
    "sampler/draft": "preset=draft, or its sampler alone, sampler=dpmpp_4",
    "sampler/official": "preset=official, or its sampler alone, sampler=ddim_official",
    "losses/recon_sync": "losses=[recon,sync]",
    "losses/recon_sync_perceptual": "losses=[recon,sync,perceptual]",
    "losses/official": "losses=[recon,sync_official,perceptual,trepa]",
    "losses/official_light": "losses=[recon,sync_official,perceptual,trepa_light]",
}


def option_of_today(option: str) -> str | None:
    """The current name of an option, with its =; None if it was never renamed."""
    for old, new in OPTIONS.items():
        found = re.fullmatch(old, option)
        if found:
            return found.expand(new)
    return None


def left_out_today(option: str) -> str | None:
    """Advice for `~option` where that option no longer exists."""
    found = re.fullmatch(r"task\.loss_weights\.(\w+)", option)
    return (
        f"'~task.losses.{found[1]}' alone leaves the loss out, with its weight" if found else None
    )
