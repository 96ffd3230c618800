"""Controls: what they do to the inputs of a clip, and what is concluded from them."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.control_findings import (
    FEW,
    RIGHT,
    SHIFTED,
    control_table,
    findings,
)
from latentsync.evaluation.control_rows import ControlRows, OtherVoice, Truth
from latentsync.evaluation.controls import (
    CONTROLS,
    COPIED,
    EXAGGERATED,
    MIN_FRAMES,
    REVERSED,
    SHIFTS,
    SHUFFLED,
    TRUTH,
    WIDE_LSE,
    middle_of,
    reversed_in_time,
    shifted,
    with_voice,
)
from latentsync.evaluation.evaluator import Evaluator
from latentsync.evaluation.exaggerate import (
    GRID,
    REACH,
    STILL,
    exaggerated_faces,
    exaggerated_points,
)
from latentsync.evaluation.lse import wide_curves
from latentsync.metrics.base import Figure, MeanOverClips
from latentsync.metrics.correlation import LandmarkCorrelation
from latentsync.metrics.lips import INNER, INNER_ABOVE, LIPS, OUTER, OUTER_ABOVE, shape_of
from latentsync.metrics.lse import LseFigures, lse_of, shift_distances
from latentsync.metrics.sync import MAX_SHIFT, score_of, shift_cosines
from latentsync.metrics.syncnet_v2 import LseTrack
from latentsync.models.model_config import ModelFormat

NUM_FRAMES = 60


def embeddings(seed: int) -> torch.Tensor:
    return torch.randn(NUM_FRAMES, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_frames", [1, 7, 15])
def test_a_late_sound_is_found_so_late_by_every_scorer(num_frames: int) -> None:
    vision = embeddings(0)
    starts = torch.arange(NUM_FRAMES)
    sample = {
        "sync_cosines": shift_cosines(vision, vision, starts),
        WIDE_LSE: shift_distances(vision, vision, max_shift=2 * MAX_SHIFT).mean(dim=1)[None],
    }
    late = shifted(sample, num_frames)
    assert score_of(late["sync_cosines"]).offset == -num_frames
    # The same as scoring a sound that really begins later.
    delayed = torch.cat([torch.zeros(num_frames, 64), vision])[:NUM_FRAMES]
    rows = slice(num_frames, None)
    expected = shift_cosines(vision, delayed, starts)[rows]
    both = ~(expected.isnan() | late["sync_cosines"][rows].isnan())
    both[:, :MAX_SHIFT] = False  # there, the delayed sound has none of its own
    torch.testing.assert_close(late["sync_cosines"][rows][both], expected[both])
    assert lse_of(late["lse_curves"][0]).offset == -num_frames
    assert late["lse_curves"].shape == (1, 2 * MAX_SHIFT + 1)


def test_tracks_meet_the_voice_of_so_many_frames_before() -> None:
    track = torch.arange(20.0)[:, None]
    late = shifted({"reading": track, "driving": track}, 5)
    assert (late["reading"] - late["driving"]).unique().tolist() == [5]
    assert len(late["reading"]) == 15
    assert shifted({"reading": track, "driving": track}, 20 - MIN_FRAMES + 1) == {}


def test_reversing_and_another_voice_change_one_side_only() -> None:
    face, voice = torch.arange(20.0)[:, None], torch.arange(20.0)[:, None] * 3
    sample = {"lips": face, "driving_lips": voice, "sync_cosines": torch.zeros(4, 31)}
    back = reversed_in_time(sample)
    assert back.keys() == {"lips", "driving_lips"}
    torch.testing.assert_close(back["lips"], face.flip(0))
    torch.testing.assert_close(back["driving_lips"], voice)
    dubbed = with_voice(sample, {"driving_lips": voice[:12] + 1, "lips": face + 100})
    torch.testing.assert_close(dubbed["lips"], face[:12])
    torch.testing.assert_close(dubbed["driving_lips"], voice[:12] + 1)


def test_the_middle_of_wide_curves_is_what_lse_is_defined_by() -> None:
    vision, audio = embeddings(1), embeddings(2)
    wide = shift_distances(vision, audio, max_shift=2 * MAX_SHIFT).mean(dim=1)
    narrow = shift_distances(vision, audio).mean(dim=1)
    torch.testing.assert_close(middle_of(wide[None])[0], narrow)


def mouth(openings: list[float], center: float = 64.0, width: float = 40.0) -> torch.Tensor:
    """Lips of an ellipse, its inner opening given in pixels."""
    frames = []
    for opening in openings:
        points = {}
        for names, sign, grow in (
            (OUTER, 1, 6), (OUTER_ABOVE, -1, 6), (INNER, 1, 0), (INNER_ABOVE, -1, 0)
        ):  # fmt: skip
            for index, name in enumerate(names):
                angle = math.pi * index / len(names)
                side = -math.cos(angle) if sign > 0 else math.cos(angle)
                height = sign * math.sin(angle) * (opening / 2 + grow)
                points[name] = (center + side * width / 2, center + height)
        frames.append([points[name] for name in LIPS])
    return torch.tensor(frames)


def test_an_exaggerated_mouth_opens_by_so_much_more() -> None:
    openings = [0.0, 2.0, 8.0, 4.0, 0.0, 6.0, *[1.0] * 14]
    opened = shape_of(exaggerated_points(mouth(openings), 1.5))[:, 0]
    torch.testing.assert_close(opened, 1.5 * torch.tensor(openings), atol=1e-4, rtol=0)
    lost = mouth(openings)
    lost[3] = math.nan
    assert exaggerated_points(lost, 1.5)[3].isnan().all()


def test_its_picture_opens_too_and_stays_the_same_elsewhere() -> None:
    openings = [0.0, 0.0, 20.0]
    faces = np.full((3, 128, 128, 3), 200, np.uint8)
    rows, columns = np.mgrid[:128, :128] - 64
    for face, opening in zip(faces, openings, strict=True):
        if opening:
            face[(columns / 20) ** 2 + (rows / (opening / 2)) ** 2 < 1] = 0
    drawn = exaggerated_faces(faces, mouth(openings), 1.5)
    before, after = ((each[2, :, 64, 0] < 100).sum() for each in (faces, drawn))
    assert before == 19
    assert 24 <= after <= 32
    np.testing.assert_array_equal(drawn[:2], faces[:2])
    np.testing.assert_array_equal(drawn[2, :20], faces[2, :20])


def test_the_pull_of_all_points_is_their_weighted_mean() -> None:
    """The field by its formula, point by point; it is evaluated as a product of matrices."""
    generator = torch.Generator().manual_seed(0)
    points = mouth([0.0, 0.0, 20.0])
    faces = torch.randint(0, 256, (3, 128, 128, 3), generator=generator).byte().numpy()
    moved = exaggerated_points(points, 1.5)[2].double().numpy()
    steps = moved - points[2].double().numpy()
    reach = REACH * np.ptp(points[2, :, 0].numpy())
    coarse = (np.arange(GRID) + 0.5) * 128 / GRID - 0.5
    field = np.empty((GRID, GRID, 2), np.float32)
    for row, y in enumerate(coarse):
        for column, x in enumerate(coarse):
            weights = np.exp(-(((x, y) - moved) ** 2).sum(axis=1) / (2 * reach**2))
            field[row, column] = weights @ steps / (weights.sum() + STILL)
    wide = cv2.resize(field, (128, 128), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[:128, :128].astype(np.float32)
    expected = cv2.remap(
        faces[2], x - wide[..., 0], y - wide[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    drawn = exaggerated_faces(faces, points, 1.5)[2].astype(int)
    assert np.abs(drawn - expected).max() <= 8  # a position is rounded to 1/32 of a pixel
    assert (drawn == expected).mean() > 0.999
    assert (drawn != faces[2]).mean() > 0.1


class Given(MeanOverClips):
    """A metric whose values are its inputs."""

    needs = frozenset({"reading"})

    def __init__(self, figure: Figure) -> None:
        super().__init__()
        self.figures = (figure,)

    def update(self, reading: torch.Tensor) -> None:
        self.add(reading[:1])


FIGURE = Figure("r", "r", "r", "higher", -1.0, 1.0, "here", sync="timed")


def concluded(figure: Figure, spoiled: dict[str, float], num_speakers: int = 8) -> dict:
    """What follows if the truth has 0.9 +- 0.02 and the controls have these instead."""
    rows = {name: Row({"given": Given(figure)}) for name in CONTROLS}
    for index in range(num_speakers):
        noise = 0.02 * (index % 3 - 1)
        for name, row in rows.items():
            value = spoiled.get(name, 0.9) + noise * (1 if name == TRUTH else -1)
            row.add({"reading": torch.tensor([value])}, clip=f"c{index}", speaker=f"s{index}")
    return findings(rows, seed=0, not_run={})


WORSE = {name: 0.1 for name in CONTROLS if name not in (TRUTH, EXAGGERATED)}


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ({}, RIGHT),
        ({REVERSED: 0.9}, f"broken: not worse when {REVERSED}"),
        ({COPIED: 0.95, SHUFFLED: 0.9}, f"broken: not worse when {COPIED}, {SHUFFLED}"),
        (dict.fromkeys(SHIFTS.values(), 0.9), f"broken: not worse when {SHIFTED}"),
        ({EXAGGERATED: 0.97}, "rewards exaggeration"),
        ({EXAGGERATED: 0.8}, RIGHT),
    ],
)
def test_what_is_said_of_a_metric(spoiled: dict[str, float], said: str) -> None:
    found = concluded(FIGURE, WORSE | spoiled)
    assert found["marks"] == {"r": said}
    table = control_table(found, [FIGURE])
    assert table[1][0] == "r"
    assert table[1][-1] == said


def test_a_metric_that_looks_for_the_best_time_need_not_fall_when_shifted() -> None:
    late = WORSE | dict.fromkeys(SHIFTS.values(), 0.9)
    assert concluded(replace(FIGURE, sync="free"), late)["marks"] == {"r": RIGHT}


def test_a_distance_is_worse_when_larger() -> None:
    figure = replace(FIGURE, better="lower")
    assert concluded(figure, dict.fromkeys(WORSE, 1.5))["marks"] == {"r": RIGHT}
    assert concluded(figure, WORSE)["marks"]["r"].startswith("broken: not worse when copied")


def test_one_speaker_says_nothing() -> None:
    assert concluded(FIGURE, WORSE, num_speakers=1)["marks"] == {"r": FEW}


def test_how_much_worse_is_the_mean_difference_of_the_clips() -> None:
    found = concluded(FIGURE, WORSE, num_speakers=6)
    worse = found["worse_than_truth_by"]["r"]
    assert worse[REVERSED]["difference"] == pytest.approx(0.8)
    assert worse[REVERSED]["num_speakers"] == 6
    assert worse[SHIFTED]["low"] > 0.7


def test_figures_of_lse_say_which_of_them_look_for_the_best_time() -> None:
    kinds = {figure.key: figure.sync for figure in LseFigures.figures}
    assert kinds == {"lse_d": "free", "lse_c": "free", "lse_offset": "timed", "lse_c_0": "timed"}


def test_a_syncnet_v2_that_knows_these_faces_is_worse_on_every_spoiled_truth() -> None:
    """Planted embeddings: the sound of a moment lies near its picture, and nowhere else."""
    evaluator = Evaluator(ModelFormat(resolution=8), None, None, None)
    metrics = {"lse": LseFigures()}
    controls = ControlRows(metrics, evaluator)
    faces = np.zeros((NUM_FRAMES, 8, 8, 3), np.uint8)

    def lse_track(seed: int) -> LseTrack:
        vision, noise = embeddings(seed), embeddings(seed + 1000)
        return LseTrack(vision, vision + 0.3 * noise, vision.flip(0))

    for seed in range(12):
        truth = Truth(f"clip{seed}", f"speaker{seed}", {}, faces, None, None, [lse_track(seed)])
        wide = wide_curves((each.vision, each.sound) for each in truth.lse)
        sample = {"lse_curves": middle_of(wide), WIDE_LSE: wide}
        other = OtherVoice({}, None, [lse_track(seed + 100)])
        controls.add(replace(truth, sample=sample), other=other)
    controls.finish()
    for name in (COPIED, SHUFFLED, REVERSED):
        assert controls.rows[name].num_clips == 12, name
    found = findings(controls.rows, seed=0, not_run={})
    assert found["marks"] == dict.fromkeys(("lse_d", "lse_c", "lse_offset", "lse_c_0"), RIGHT)
    for name in (COPIED, SHUFFLED, REVERSED):
        for key, worse in found["worse_than_truth_by"].items():
            assert worse[name]["low"] > 0, (key, name)


def test_a_clip_listed_twice_is_not_shuffled_with_its_own_sound() -> None:
    evaluator = Evaluator(ModelFormat(resolution=8), None, None, None)
    controls = ControlRows({"landmarks": LandmarkCorrelation()}, evaluator)
    generator = torch.Generator().manual_seed(0)
    for speaker in "ab":
        track = torch.rand(40, 2, generator=generator)
        sample = {"landmarks": track, "driving_landmarks": track}
        for name in (speaker, f"{speaker}--other"):
            faces = np.zeros((40, 8, 8, 3), np.uint8)
            controls.add(Truth(name, speaker, sample, faces, None, None))
    controls.finish()
    assert [clip.clip for clip in controls.rows[SHUFFLED].clips] == ["b", "a"]
    assert controls.rows[SHUFFLED].summary()["r_open_mesh"] < 0.5
    assert controls.rows[TRUTH].summary()["r_open_mesh"] == pytest.approx(1)
    assert controls.rows[EXAGGERATED].summary().keys() == {"num_clips"}
