"""A planted leak is found: of given size in tracks, and growing with it on drawn faces."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from latentsync import demo_model_dir
from latentsync.data.synthetic.render import Portrait, at, head_motion, render
from latentsync.data.synthetic.speaker import Speaker
from latentsync.data.synthetic.speech import truth_of, viseme_track
from latentsync.faces import SmoothAligner, align
from latentsync.metrics.correlation import TRAITS, OpeningLeak
from latentsync.metrics.leakage import LeakShare, SameFace, leak_share
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.serialization import load_network

SIDE = 128
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def speech(seed: int, num_frames: int = 100) -> dict[str, np.ndarray]:
    track = truth_of(viseme_track(num_frames / 25 + 1, np.random.default_rng(seed)), 25.0)
    return {name: values[:num_frames] for name, values in track.items()}


def mixed(wanted: dict, own: dict, alpha: float) -> dict[str, np.ndarray]:
    return {name: (1 - alpha) * wanted[name] + alpha * own[name] for name in wanted}


def as_reading(mouth: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.tensor(np.stack([mouth[name] for name in TRAITS], axis=1)).float()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_share_of_a_mixed_track_is_its_alpha(alpha: float) -> None:
    wanted, own = (as_reading(speech(seed))[:, 0] for seed in (1, 2))
    opening = 0.4 * ((1 - alpha) * wanted + alpha * own) + 0.1  # read at another scale
    opening[5] = math.nan
    assert leak_share(opening, wanted, own) == pytest.approx(alpha, abs=1e-5)


def test_a_share_of_nothing_is_unknown() -> None:
    wanted, own = (as_reading(speech(seed))[:, 0] for seed in (1, 2))
    assert math.isnan(leak_share(torch.full((100,), 0.3), wanted, own))
    assert math.isnan(leak_share(wanted, wanted, torch.zeros(100)))
    assert math.isnan(leak_share(wanted[:2], wanted[:2], own[:2]))
    with pytest.raises(ValueError, match="by='smell'"):
        LeakShare("smell")


@pytest.fixture(scope="module")
def reader() -> MouthReader:
    """The demo's, which learnt from drawn faces and was part of no generator's loss."""
    return load_network(MouthReader, demo_model_dir() / "mouth_reader")


def aligned(portrait: Portrait, mouth: dict, motion: dict) -> Iterator[np.ndarray]:
    aligner = SmoothAligner(SIDE)
    for index, frame in enumerate(render(portrait, mouth, motion)):
        yield align(frame, aligner.place(portrait.points(at(motion, index))), SIDE)


def figures(alpha: float, reader: MouthReader) -> dict[str, float]:
    """The leak of drawn faces whose mouths are mixed of the wanted and the filmed one."""
    share, leak, same = LeakShare("reading"), OpeningLeak(), SameFace()
    for seed in range(3):
        rng = np.random.default_rng(700 + seed)
        portrait = Portrait(Speaker.random(rng), 192)
        motion = head_motion(40, 25.0, rng)
        filmed, *voices = (speech(10 * seed + index, 40) for index in range(3))
        readings = []
        for wanted in voices:
            frames = np.stack(list(aligned(portrait, mixed(wanted, filmed, alpha), motion)))
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                readings.append(reader(pixels))
        wanted, own = as_reading(voices[0]), as_reading(filmed)
        share.update(reading=readings[0], driving=wanted, own=own)
        leak.update(readings[0], own)
        same.update(readings[0][:, :2], readings[1][:, :2])
    return share.compute() | leak.compute() | same.compute()


def test_a_planted_leak_raises_every_leak_metric(reader: MouthReader) -> None:
    found = [figures(alpha, reader) for alpha in ALPHAS]
    for key in ("leak_share", "leak", "same_face"):
        values = [each[key] for each in found]
        assert values == sorted(values), key
        assert values[-1] > values[0] + 0.5
    assert found[0]["leak_share"] == pytest.approx(0, abs=0.15)
    assert found[-1]["leak_share"] == pytest.approx(1, abs=0.15)
