"""SyncNet v2 judges `sync`: its input, its file, and which way its offsets are corrected."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latentsync.media.mfcc import mfcc
from latentsync.metrics.lse import lse
from latentsync.models.syncnet_v2 import SyncNetV2
from latentsync.prepare import AlignedSegment, MeasureSync
from latentsync.prepare.stage import Source
from latentsync.prepare.sync import FACE_BOX, SyncNetV2Scorer, shifted

NUM_FRAMES = 100
LEVELS = np.random.default_rng(3).uniform(-1, 1, 200)  # of frame i, seen and heard
SIDE = 64


class SeesAndHears(SyncNetV2):
    """Embeds five frames by their lightness, and their sound by its energy, less the mean."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.ones(1))

    def forward_lip(self, frames: Tensor) -> Tensor:
        return spread(frames[..., 80:140, 80:140].mean(dim=(1, 3, 4)) / 64)

    def forward_aud(self, cepstra: Tensor) -> Tensor:
        energy = cepstra[:, 0, 0].unflatten(1, (5, 4)).mean(dim=2)
        return spread(energy / 2)


def spread(values: Tensor) -> Tensor:
    return 5 * (values - values.mean(dim=1, keepdim=True))


@pytest.fixture
def speaker(tmp_path: Path) -> AlignedSegment:
    """Frame i is as light as its sound is loud; it begins at frame 50 of the levels."""
    shown = LEVELS[50 : 50 + NUM_FRAMES]
    faces = [np.full((SIDE, SIDE, 3), round(128 + 64 * each), np.uint8) for each in shown]
    noise = torch.randn(NUM_FRAMES * 640, generator=torch.Generator().manual_seed(0))
    sound = 0.05 * noise * torch.from_numpy(shown).exp().repeat_interleave(640).float()
    source = Source(tmp_path / "a.mp4", "a.mp4", "a", tmp_path)
    return AlignedSegment(source, 0, 50, faces, np.zeros(NUM_FRAMES), sound)


def stage_with(net: SyncNetV2) -> MeasureSync:
    stage = MeasureSync(fps=25.0)
    stage.__dict__["scorer"] = SyncNetV2Scorer(net, fps=25.0)
    return stage


@pytest.mark.parametrize("planted", [-6, -2, 0, 3, 6])
def test_the_sound_of_a_corrected_clip_belongs_to_its_picture(speaker, planted) -> None:
    stage = stage_with(SeesAndHears())
    # Undoing an offset that is not there plants its opposite.
    *_, clip = stage.run(shifted(speaker, -planted, fps=25.0))
    assert clip.measures["sync_offset"] == planted
    assert clip.measures["sync_confidence"] > 3
    *_, again = stage.run(AlignedSegment(*(getattr(clip, each) for each in PLAIN)))
    assert again.measures["sync_offset"] == 0


PLAIN = ("source", "index", "start_frame", "faces", "turns", "waveform")


def test_foreign_sound_and_short_clips_are_not_judged(speaker) -> None:
    stage = stage_with(SeesAndHears())
    foreign = shifted(speaker, 40, fps=25.0)
    (clip,) = stage.run(foreign)
    assert clip.measures["sync_offset"] is None
    assert 0 <= clip.measures["sync_confidence"] < 3
    short = AlignedSegment(
        speaker.source, 0, 0, speaker.faces[:30], np.zeros(30), speaker.waveform[: 30 * 640]
    )
    (clip,) = stage.run(short)
    assert clip.measures == {"sync_offset": None, "sync_confidence": None}


def test_its_file_is_read_and_sees_the_face_as_published(speaker, tmp_path) -> None:
    """Windows of five crops of 224 px, blue first: 1.4 times half the box to each side of its
    middle, as much above as half the box, 1.8 times below, grey beyond the square."""
    torch.manual_seed(0)
    net = SyncNetV2().eval()
    torch.save(net.state_dict(), tmp_path / "syncnet_v2.model")
    stage = MeasureSync(syncnet=tmp_path / "syncnet_v2.model", fps=25.0)
    some = np.random.default_rng(0).integers(0, 255, (40, SIDE, SIDE, 3)).astype(np.uint8)
    clip = AlignedSegment(
        speaker.source, 0, 0, list(some), np.zeros(40), speaker.waveform[: 40 * 640]
    )
    (made,) = stage.run(clip)
    left, top, right, bottom = np.array(FACE_BOX) * SIDE
    half, x, y = max(right - left, bottom - top) / 2, (left + right) / 2, (top + bottom) / 2
    border = int(1.8 * half)
    padded = np.pad(some, ((0, 0), (border, border), (border, border), (0, 0)), constant_values=110)
    rows = slice(int(y + border - half), int(y + border + 1.8 * half))
    columns = slice(int(x + border - 1.4 * half), int(x + border + 1.4 * half))
    crops = [cv2.resize(each[rows, columns], (224, 224))[..., ::-1] for each in padded]
    frames = torch.from_numpy(np.stack(crops)).permute(3, 0, 1, 2).float()
    cepstra = mfcc(clip.waveform).float()
    with torch.inference_mode():
        vision = [net.forward_lip(frames[None, :, at : at + 5]) for at in range(35)]
        sound = [net.forward_aud(cepstra[4 * at : 4 * at + 20].T[None, None]) for at in range(35)]
    expected = lse(torch.cat(vision), torch.cat(sound))
    assert made.measures["sync_confidence"] == pytest.approx(expected.confidence, abs=1e-3)


def test_other_rates_are_refused(tmp_path) -> None:
    torch.save(SyncNetV2().state_dict(), tmp_path / "syncnet_v2.model")
    stage = MeasureSync(syncnet=tmp_path / "syncnet_v2.model", fps=30.0)
    with pytest.raises(ValueError, match=r"25 frames a second, got prepare\.fps=30"):
        _ = stage.scorer
    with pytest.raises(FileNotFoundError, match="other"):
        _ = MeasureSync(syncnet=tmp_path / "other", fps=25.0).scorer
