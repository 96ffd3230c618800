"""What is drawn before a synthetic mouth stays as well as the codec keeps it, and the mouth moves
as without it."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Bool, Float

from latentsync import LipSyncModel, demo_model_dir
from latentsync.data.synthetic import read_truth, render_clip
from latentsync.data.synthetic.render import FACE_SHARE
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import MeshDetector, Placement, mouth_shape, track
from latentsync.faces.occlusion import SIDE, Occluder
from latentsync.faces.warp import warp
from latentsync.media.video import read_frames
from latentsync.pipeline import Cache, Choice, lipsync
from latentsync.pipeline.reporting.report import Report

FACE_SEED, VOICE_SEED = 900_021, 900_022
SURE = 250  # alpha of pixels that show the occluder alone


class TrueAlpha:
    """Knows from the truth of a synthetic clip what hides the face."""

    every = 1
    cache_key = "truth"

    def __init__(self, video: Path) -> None:
        alphas = read_truth(video)["alpha"]
        frames = read_frames(video)
        self.alphas = {frame.tobytes(): alpha for frame, alpha in zip(frames, alphas, strict=True)}

    def __call__(
        self, frame: np.ndarray, placement: Placement, before: Occluder | None
    ) -> Occluder | None:
        alpha = self.alphas[frame.tobytes()].astype(np.float32) / 255
        covered = warp(alpha, placement.square_matrix(SIDE), (SIDE, SIDE))
        return Occluder(covered) if covered.any() else None


def draw(folder: Path, kind: str | None, *, seconds: float, size: int) -> Path:
    """A face, with something before it if asked for, and beside it another's voice."""
    render_clip(folder / "voice", seed=VOICE_SEED, seconds=seconds, size=64)
    stem = folder / (kind or "bare")
    return render_clip(stem, seed=FACE_SEED, seconds=seconds, size=size, occluder=kind)


def speak(video: Path, out: Path, model: LipSyncModel, **options: object) -> Report:
    return lipsync(
        video,
        video.with_name("voice.wav"),
        out,
        model=model,
        detector=MeshDetector(),
        cache=Cache(video.parent / "cache"),
        **{"choice": Choice(min_seconds=0), "sampler": Sampler(num_steps=1), **options},
    )


def psnr_in(where: list[Bool[np.ndarray, "h w"]], video: Path, out: Path) -> float:
    """PSNR of the output against the source in these pixels of every frame."""
    errors = [
        ((before.astype(float) - after) ** 2)[pixels]
        for before, after, pixels in zip(read_frames(video), read_frames(out), where, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.concatenate(errors).mean()))


def shown_on_the_mouth(video: Path) -> list[Bool[np.ndarray, "h w"]]:
    """Pixels of the occluder between nose and chin."""
    truth = read_truth(video)
    pixels = []
    for alpha, points in zip(truth["alpha"], truth["points"], strict=True):
        x, y = points[2]
        reach = FACE_SHARE * alpha.shape[1]
        near = np.zeros(alpha.shape, dtype=bool)
        near[round(y) : round(y + reach), round(x - 0.6 * reach) : round(x + 0.6 * reach)] = True
        pixels.append(near & (alpha > SURE))
    return pixels


@pytest.mark.parametrize("kind", ["hand", "microphone", "beard"])
def test_what_hides_the_mouth_stays_as_well_as_the_codec_keeps_it(
    kind: str, tiny_model: LipSyncModel, tmp_path: Path
) -> None:
    video = draw(tmp_path, kind, seconds=2, size=160)
    where, masker = shown_on_the_mouth(video), TrueAlpha(video)
    out = {name: tmp_path / f"{name}.out.mp4" for name in ("codec", "kept", "painted")}
    left = speak(video, out["codec"], tiny_model, choice=Choice(min_size=1000))
    kept = speak(video, out["kept"], tiny_model, masker=masker)
    off = Choice(min_seconds=0, occlusion="off")
    speak(video, out["painted"], tiny_model, masker=masker, choice=off)
    assert left.num_frames_with_face == 0
    assert kept.num_frames_with_face == 50
    assert kept.occlusion["frames"] > 10
    psnr = {name: psnr_in(where, video, path) for name, path in out.items()}
    assert psnr["kept"] > psnr["codec"] - 1
    assert psnr["painted"] < psnr["codec"] - 10


@pytest.mark.slow
def test_the_uncovered_mouth_moves_as_without_anything_before_it(tmp_path: Path) -> None:
    """Hand and microphone are raised twice in the five seconds, and hide it for a second."""
    model = LipSyncModel.from_pretrained(demo_model_dir())
    sampler = Sampler("dpmpp", num_steps=8, guidance_scale=1.5)
    bare = draw(tmp_path, None, seconds=5, size=256)
    speak(bare, tmp_path / "bare.out.mp4", model, sampler=sampler)
    alone = openings(tmp_path / "bare.out.mp4")
    for kind in ("hand", "microphone"):
        video, out = draw(tmp_path, kind, seconds=5, size=256), tmp_path / f"{kind}.out.mp4"
        speak(video, out, model, sampler=sampler, masker=TrueAlpha(video))
        free = ~np.array([pixels.any() for pixels in shown_on_the_mouth(video)])
        asked = read_truth(tmp_path / "voice.mp4")["open"][free]
        r_alone, r = (np.corrcoef(each[free], asked)[0, 1] for each in (alone, openings(out)))
        assert 40 < free.sum() < 110
        assert r_alone > 0.5
        assert r == pytest.approx(r_alone, abs=0.03)


def openings(video: Path) -> Float[np.ndarray, " f"]:
    """The mesh's opening of every frame."""
    faces = track(read_frames(video), MeshDetector())
    return np.array([mouth_shape(face).opening if face else np.nan for face in faces])
