"""The alarm on real talking heads: own sound, each other's sound, own sound 400 ms off."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.evaluation.speaking import speaker_scores
from latentsync.faces import ALIGNERS, MeshDetector, align, track
from latentsync.media.audio import read_waveform
from latentsync.media.video import read_frames
from latentsync.metrics.speaker import ALARM_BELOW
from latentsync.models.speaker_scorers import LRASDScorer
from latentsync.weights import load_official_lr_asd
from wild.conftest import WILD_DIR

WEIGHTS = WILD_DIR.parent / "models" / "lr_asd" / "pretrain_AVA.model"
# One head, labelled as talking throughout without a doubt, with sound.
HEADS = (
    "ap_pose.mp4", "it_ref.mp4", "lp_d20.mp4", "ls_demo1.mp4", "ls_demo2.mp4", "st_aoc.mp4",
    "tk_obama.mp4", "vr_1.mp4", "vr_2.mp4",
)  # fmt: skip
NUM_FRAMES, RESOLUTION, FPS = 96, 256, 25.0
OFF = 6400  # samples: 400 ms


def faces_of(path: Path, detector: MeshDetector) -> np.ndarray:
    frames = list(read_frames(path, fps=FPS, num_frames=NUM_FRAMES))
    aligner = ALIGNERS["smooth"](RESOLUTION)
    points = (None if face is None else aligner.points_of(face) for face in track(frames, detector))
    placed = zip(frames, aligner.placements(points), strict=True)
    return np.array([align(frame, where, RESOLUTION) for frame, where in placed if where])


@pytest.mark.slow
def test_hits_and_false_alarms_on_talking_heads(clips: dict[str, Path]) -> None:
    if not WEIGHTS.is_file():
        pytest.skip(f"no weights of LR-ASD at {WEIGHTS}")
    scorer = LRASDScorer(load_official_lr_asd(WEIGHTS))
    detector = MeshDetector()
    heads = {name: faces_of(clips[name], detector) for name in HEADS}
    sounds = {name: read_waveform(clips[name]) for name in HEADS}
    assert all(len(faces) == NUM_FRAMES for faces in heads.values())

    def alarms(pairs: list[tuple[str, torch.Tensor]]) -> int:
        scores = [speaker_scores(scorer, heads[name], sound, fps=FPS) for name, sound in pairs]
        return sum(float(each.mean()) < ALARM_BELOW for each in scores if each is not None)

    own = alarms(list(sounds.items()))
    foreign = alarms([(name, sounds[other]) for name, other in permutations(HEADS, 2)])
    late = [(name, torch.cat([torch.zeros(OFF), sound])) for name, sound in sounds.items()]
    early = [(name, sound[OFF:]) for name, sound in sounds.items()]
    off = alarms(late + early)
    assert own == 0
    assert foreign >= 28
    # Many times less than it would be of a measure of sync.
    assert 1 <= off <= 9
