"""Every metric of conf/metrics on drawn faces: the truth has the best value there is, swapping
result and truth does what the definition says, and more of a damage is worse.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentsync.data.synthetic.render import Portrait, at, head_motion, render
from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import truth_of, viseme_track
from latentsync.evaluation.aggregate import figures_of, needs_of
from latentsync.faces import SmoothAligner, align
from latentsync.metrics.base import Figure, Sample
from latentsync.metrics.correlation import TRAITS
from latentsync.metrics.lips import CORNERS, GAPS, LIPS, shape_of
from latentsync.metrics.lse import shift_distances
from latentsync.metrics.sync import shift_cosines
from metrics.listed import LISTED, metric_of
from metrics.networks import files_in, save_script

SIDE, NUM_FRAMES, NUM_SPEAKERS, PERIOD = 64, 50, 2, 12
AMOUNTS = (0.0, 0.3, 0.6, 1.0)
# The best value of each figure; None: it has none of its own, only a direction.
BEST: Mapping[str, float | None] = {
    **{f"r_{trait}{kind}": value for trait in (*TRAITS, "open_mesh", "width_mesh")
       for kind, value in (("", 1), ("_spread", 0), ("_pooled", 1))},
    **{f"{key}{kind}": None for key in ("leak", "leak_mesh", "same_face")
       for kind in ("", "_spread", "_pooled")},
    **{f"{kind}_{region}": value for region in ("inside", "outside")
       for kind, value in (("psnr", 100), ("ssim", 1), ("lpips", 0), ("dists", 0))},
    "mesh_seen": 1, "lmd": 0, "lmd_warped": 0, "mar_error": 0, "lip_leak": 0, "lips_closed": 1,
    "leak_share": 0, "leak_share_mesh": 0, "sync": 1, "offset_near": 1, "in_over_off": None,
    "sync_confidence": None, "offset": 0, "csim": 1, "csim_other": None, "flicker": 1, "border": 1,
    "closed_in_silence": 1, "mouth_sharpness": 1, "jitter": 1, "seam": 1, "color_step": 0,
    "lse_d": 0, "lse_c": None, "lse_offset": 0, "lse_c_0": None, "fid": 0, "kid": None, "cmmd": 0,
    "fvd": 0, "fvd_videomae": 0, "fid_samples": None, "cmmd_samples": None, "fvd_samples": None,
    "fvd_videomae_samples": None, "lip_score": 1,
    "avs_u": 1, "avs_m": 1, "avs_v": 1, "speaker": 5, "speaker_alarm": 0,
}  # fmt: skip
# Figures in steps, which small damages leave alone; how they follow the sound: test_controls.py.
STEPPED = {"offset", "offset_near", "lse_offset", "speaker_alarm", "mesh_seen"}


def mouths(openings: Tensor, widths: Tensor) -> Tensor:
    """Lips with these gaps and widths; all other points in one place."""
    lips = torch.zeros(len(openings), 40, 2)
    for lower, upper in GAPS:
        lips[:, LIPS.index(lower), 1] = openings / 2
        lips[:, LIPS.index(upper), 1] = -openings / 2
    for corner, other, sign in zip(CORNERS, (61, 291), (-1, 1), strict=True):
        lips[:, LIPS.index(corner), 0] = lips[:, LIPS.index(other), 0] = sign * widths / 2
    return lips


def lips_of(traits: Tensor) -> Tensor:
    return mouths(0.5 * traits[:, 0], 0.8 + 0.4 * traits[:, 1])


def spoken(seed: int) -> dict[str, np.ndarray]:
    """A mouth that says something, and nothing for the last fifth."""
    track = truth_of(viseme_track(NUM_FRAMES / 25 + 1, np.random.default_rng(seed)), 25.0)
    fade = np.linspace(0, 1, NUM_FRAMES) < 0.8
    return {name: values[:NUM_FRAMES] * (fade if name == "open" else 1)
            for name, values in track.items()}  # fmt: skip


def traits_of(mouth: dict[str, np.ndarray]) -> Tensor:
    return torch.tensor(np.stack([mouth[name] for name in TRAITS], axis=1)).float()


@cache
def faces_of(speaker: int) -> Tensor:
    """Aligned faces that say `spoken(10 * speaker)`, in [-1, 1]."""
    rng = np.random.default_rng(700 + speaker)
    portrait = Portrait(Speaker.random(rng), 96)
    motion = head_motion(NUM_FRAMES, 25.0, rng)
    aligner = SmoothAligner(SIDE)
    frames = [
        align(frame, aligner.place(portrait.points(at(motion, index))), SIDE)
        for index, frame in enumerate(render(portrait, spoken(10 * speaker), motion))
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float() / 127.5 - 1


def heard(sample: Sample) -> Sample:
    """What judges of sync say of the mouth and the voice: windows of five frames of both."""
    seen, sound = (
        (sample[name] - sample["driving"].mean(dim=0)).unfold(0, 5, 1).flatten(1)
        for name in ("reading", "driving")
    )
    apart = (sample["reading"] - sample["driving"])[:, 0].abs()
    return {
        "sync_cosines": shift_cosines(seen, sound, torch.arange(len(seen))),
        "lse_curves": shift_distances(seen, sound).mean(dim=1)[None],
        "speaker_scores": 5 - 20 * apart,
    }


def pictured(sample: Sample) -> Sample:
    """Cosines of the faces with the truth's, and with another speaker's."""
    ours, theirs, others = (
        (each[0] - sample["truth"].mean()).flatten(1)
        for each in (sample["pixels"], sample["truth"], faces_of(NUM_SPEAKERS))
    )
    return {
        "identity": F.cosine_similarity(ours, theirs),
        "other_identity": F.cosine_similarity(ours, others),
    }


def truth(speaker: int) -> Sample:
    """A drawn clip as its own result; `own`: how the face was filmed, with another voice."""
    wanted, own, other = (traits_of(spoken(10 * speaker + index)) for index in range(3))
    pixels = faces_of(speaker)
    painted = torch.zeros(1, NUM_FRAMES, 1, SIDE, SIDE)
    painted[..., 28:60, 12:52] = 1
    sample = {
        "pixels": pixels, "original": pixels, "truth": pixels, "painted": painted,
        "kept": 1 - painted, "reading": wanted, "driving": wanted, "own": own,
        "silent": wanted[:, 0] == 0, "lips": lips_of(wanted), "driving_lips": lips_of(wanted),
        "own_landmarks": shape_of(lips_of(own)), "driving_landmarks": shape_of(lips_of(wanted)),
        "landmarks": shape_of(lips_of(wanted)), "other_voice_landmarks": shape_of(lips_of(other)),
        "speech": mouth_level(pixels).repeat_interleave(640),
    }  # fmt: skip
    return sample | heard(sample) | pictured(sample)


def mouth_level(pixels: Tensor) -> Tensor:
    """What `MouthOrSound` sees of every frame."""
    crops = metric_of("lip_reading.av_sync", {"av_sync": "", "lip_score": ""}).network.crops(pixels)
    return crops.flatten(1).mean(dim=1)


class MouthOrSound(nn.Module):
    """The level of every picture and that of its sound as one feature, and one that is constant."""

    def forward(self, pictures: Tensor, sound: Tensor) -> Tensor:
        level = pictures.flatten(2).mean(2) + sound.unflatten(1, (-1, 640)).mean(2)
        return torch.stack([level, torch.ones_like(level)], dim=2)


def other_voice(sample: Sample, amount: float) -> Sample:
    """A mouth mixed of the wanted and the filmed one."""
    names = {
        "reading": "own",
        "landmarks": "own_landmarks",
        "other_voice_landmarks": "own_landmarks",
    }
    mixed = {name: torch.lerp(sample[name], sample[own], amount) for name, own in names.items()}
    spoilt = sample | mixed | {"lips": lips_of(mixed["reading"])}
    return spoilt | heard(spoilt)


def gaping(sample: Sample, amount: float) -> Sample:
    """A mouth that stands open in the first silent frames."""
    silent = sample["silent"].nonzero()[:, 0]
    reading = sample["reading"].clone()
    reading[silent[: round(amount * len(silent))], 0] = 0.9
    return sample | {"reading": reading, "lips": lips_of(reading)}


def trembling(sample: Sample, amount: float) -> Sample:
    return sample | {"lips": sample["lips"] + 0.02 * amount * noise_like(sample["lips"])}


def noise_like(values: Tensor) -> Tensor:
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(0))


def with_pixels(change: Callable[[Sample, float], Tensor]) -> Callable[[Sample, float], Sample]:
    def damage(sample: Sample, amount: float) -> Sample:
        spoilt = sample | {"pixels": change(sample, amount)}
        return spoilt | pictured(spoilt)

    return damage


def softened(sample: Sample, amount: float) -> Tensor:
    soft = F.avg_pool2d(sample["truth"][0], 5, stride=1, padding=2, count_include_pad=False)[None]
    return torch.lerp(sample["truth"], soft, amount)


noisy = with_pixels(lambda clip, amount: clip["truth"] + 0.2 * amount * noise_like(clip["truth"]))
soft = with_pixels(softened)
lifted = with_pixels(lambda clip, amount: clip["truth"] + 0.5 * amount * clip["painted"])
chunked = with_pixels(
    lambda clip, amount: (
        clip["truth"] + 0.2 * amount * (torch.arange(NUM_FRAMES) // PERIOD)[:, None, None, None]
    )
)
DAMAGES: Mapping[str, Callable[[Sample, float], Sample]] = {
    **dict.fromkeys(
        ("traits", "landmarks", "lmd", "leak", "leak_mesh", "leak_share", "leak_share_mesh",
         "same_face", "sync", "lse", "speaker"),
        other_voice,
    ),
    **dict.fromkeys(("lip_leak", "closed_in_silence"), gaping),
    **dict.fromkeys(
        (f"{kind}_{region}" for kind in ("psnr", "ssim", "lpips", "dists")
         for region in ("inside", "outside")),
        noisy,
    ),
    **dict.fromkeys(("csim", "csim_other", "flicker"), noisy),
    **dict.fromkeys(
        ("border", "color_step", "fid", "cmmd", "fvd", "fvd_videomae", "lip_score", "av_sync"),
        lifted,
    ),
    "sharpness_mouth": soft, "jitter": trembling, "seam": chunked,
}  # fmt: skip
SWAPS = (("pixels", "truth"), ("pixels", "original"), ("lips", "driving_lips"),
         ("reading", "driving"), ("landmarks", "driving_landmarks"))  # fmt: skip
# What swapping result and truth does to the figures; of all others it makes another question.
SAME = {
    "traits",
    "landmarks",
    "lmd",
    "color_step",
    "fid",
    "cmmd",
    "fvd",
    "fvd_videomae",
    "lip_score",
} | {name for name in DAMAGES if name.split("_")[0] in ("psnr", "ssim", "lpips", "dists")}
INVERSE = {"flicker", "border", "sharpness_mouth", "jitter", "seam"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("networks")
    save_script(MouthOrSound(), folder / "mouth_or_sound.pt")
    return files_in(folder) | {"av_sync": str(folder / "mouth_or_sound.pt")}


def figures(name: str, files: dict[str, str], samples: list[Sample]) -> dict[str, float]:
    metric = metric_of(name, files)
    for sample in samples:
        metric.update(**{need: sample[need] for need in needs_of(metric)})
    return metric.compute()


def cost(figure: Figure, value: float) -> float:
    """More is worse."""
    turned = {"higher": -value, "lower": value, "0": abs(value), "1": abs(value - 1)}
    return turned[figure.better]


@pytest.mark.parametrize("name", LISTED)
def test_the_truth_is_best_and_more_damage_is_worse(name: str, files: dict[str, str]) -> None:
    damage = DAMAGES[name.split(".")[1]]
    clips = [truth(speaker) for speaker in range(NUM_SPEAKERS)]
    found = [figures(name, files, [damage(clip, amount) for clip in clips]) for amount in AMOUNTS]
    for figure in figures_of({"": metric_of(name, files)}):
        key, best = figure.key, BEST[figure.key]
        if best is not None:
            assert found[0][key] == pytest.approx(best, abs=2e-5), key
        if figure.better == "-":
            continue
        costs = [cost(figure, each[key]) for each in found]
        assert costs[-1] >= costs[0], key
        if key not in STEPPED:
            assert costs == sorted(costs), (key, costs)
            assert costs[-1] > costs[0] + 1e-4, (key, costs)


@pytest.mark.parametrize("name", LISTED)
def test_swapping_result_and_truth(name: str, files: dict[str, str]) -> None:
    metric = name.split(".")[1]
    clip = DAMAGES[metric](truth(0), 0.6)
    swapped = dict(clip)
    for one, other in SWAPS:
        swapped |= {one: clip[other], other: clip[one]}
    there, back = (figures(name, files, [each]) for each in (clip, swapped))
    for key, value in there.items():
        if math.isnan(value):
            assert math.isnan(back[key]), key
        elif metric in SAME:
            assert back[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
        elif metric in INVERSE:
            assert back[key] * value == pytest.approx(1, rel=1e-3), key
