"""Turns of plans are followed, turns of files and edits checked; scorers score what they see."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from latentsync.cli.choices import choices, chosen_speakers, load_scorer
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.faces.tracking.survey import Shot, Survey, Track
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameTimes
from latentsync.media.mfcc import mfcc
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.lr_asd import LRASD
from latentsync.models.speaker_scorers import (
    PIECE_SLOTS,
    UNKNOWN_SCORE,
    ActiveSpeakerScorer,
    FaceSlots,
    FilmSlots,
    MouthMotionScorer,
    crop_squares,
    cut_square,
    loudness_fit,
    score_matrix,
)
from latentsync.pipeline import (
    Choice,
    Generation,
    LRASDScorer,
    Plan,
    SpeakerChoice,
    Timing,
    lipsync,
)
from latentsync.pipeline.chunks import NOT_SPEAKING
from latentsync.pipeline.job import Job
from latentsync.pipeline.plan import NO_TURN, doubts_of
from latentsync.pipeline.speakers import Turn
from official.recipe import official_shapes
from pipeline.inputs import SeesLight, job_of, write_voice

LINE = "SPEAKER film 1 {:g} {:g} <NA> <NA> {} <NA> <NA>\n"


@pytest.fixture
def parts(tiny_model: LipSyncModel, detector: SeesLight) -> dict:
    return {
        "model": tiny_model,
        "detector": detector,
        "choice": Choice(select="speaker", min_size=0, fade_slots=0),
        "timing": Timing(tail="cut"),
    }


def by_rttm(path: Path, *turns: tuple[float, float, int]) -> SpeakerChoice:
    path.write_text("".join(LINE.format(*turn) for turn in turns))
    return SpeakerChoice(rttm=path)


def prepared(video: Path, voice: Path, parts: dict, sampler: object, **more: object) -> Job:
    return job_of(video, voice, generation=Generation(sampler), **parts, **more)


def spans(job: Job) -> list[tuple[int, int]]:
    return [(run.first, run.end) for run in job.runs]


def test_a_face_is_redrawn_in_the_turns_of_a_file_and_said_where_not(
    tmp_path: Path, video: Path, voice: Path, parts: dict, sampler
):
    speakers = by_rttm(tmp_path / "a.rttm", (0.4, 0.6, 0))
    report = lipsync(
        video, voice, tmp_path / "out.mp4", sampler=sampler, speakers=speakers, **parts
    )
    assert report.num_frames_with_face == 15
    assert report.frames_left == {NOT_SPEAKING: report.num_frames - 15}
    assert [round(span.end_seconds, 2) for span in report.skipped] == [0.4, 1.36]


def test_an_edited_plan_is_obeyed(tmp_path: Path, video: Path, voice: Path, parts: dict, sampler):
    speakers = by_rttm(tmp_path / "a.rttm", (0.4, 0.6, 0))
    first = prepared(video, voice, parts, sampler, speakers=speakers)
    path = tmp_path / "plan.json"
    first.plan.save(path)
    assert Plan.load(path) == first.plan
    told = json.loads(path.read_text())
    assert told["turns"] == [{"start": 0.4, "end": 1.0, "person": 0, "confidence": 1.0}]

    def again(**changes: object) -> list[tuple[int, int]]:
        edited = json.loads(path.read_text())
        edited["turns"] = changes.pop("turns", edited["turns"])
        edited["shots"][0]["faces"][0] |= changes
        (tmp_path / "edited.json").write_text(json.dumps(edited))
        plan = Plan.load(tmp_path / "edited.json")
        return spans(prepared(video, voice, parts, sampler, plan=plan))

    assert again() == spans(first) == [(10, 25)]
    assert again(edit=False) == []
    assert again(turns=[{"start": 0.2, "end": 0.3, "person": 0}]) == [(5, 7)]
    assert again(turns=[{"start": 0.2, "end": 0.3, "person": None}]) == []
    assert again(turns=[]) == []
    # Outside of turns: an edit gives the face a turn, or selects it as a whole.
    assert again(edit=False, reason=NO_TURN) == [(10, 25)]
    assert again(edit=True, reason=NO_TURN, turns=[])[0][0] == 0
    with pytest.raises(ValueError, match=r"the plan, turn 0 .*there is no person 3"):
        again(turns=[{"start": 0.2, "end": 0.3, "person": 3}])
    with pytest.raises(ValueError, match=r"edited\.json is not a plan"):
        again(turns=[{"from": 0.2, "end": 0.3, "person": 0}])
    with pytest.raises(ValueError, match=r"edited\.json is not a plan"):
        again(turns=[{"start": "0.2", "end": 0.3, "person": 0}])


def test_a_face_in_no_turn_is_told_so(
    tmp_path: Path, video: Path, voice: Path, parts: dict, sampler
):
    speakers = by_rttm(tmp_path / "a.rttm", (0.001, 0.002, 0))
    job = prepared(video, voice, parts, sampler, speakers=speakers)
    (face,) = job.plan.shots[0].faces
    assert (face.edit, face.reason) == (False, NO_TURN)
    assert spans(job) == []


def test_turns_of_no_use_are_refused(
    tmp_path: Path, video: Path, voice: Path, parts: dict, sampler
):
    for turn, said in (
        ((0.0, 9.0, 0), r"a\.rttm, turn 0 .*the video ends at 1\.60 s"),
        ((0.0, 1.0, 4), r"a\.rttm, turn 0 .*there is no person 4"),
    ):
        speakers = by_rttm(tmp_path / "a.rttm", turn)
        with pytest.raises(ValueError, match=said):
            prepared(video, voice, parts, sampler, speakers=speakers)
    with pytest.raises(ValueError, match="has no sound to tell who speaks"):
        prepared(video, voice, parts, sampler)


def test_turns_and_persons_have_voices_of_their_own(
    tmp_path: Path, video: Path, voice: Path, parts: dict, sampler
):
    speakers = by_rttm(tmp_path / "a.rttm", (0.2, 0.4, 0), (0.6, 0.4, 0))
    voices = {name: write_voice(tmp_path / f"{name}.wav", 1.4) for name in ("person", "turn1")}
    assign: dict[int | str, Path] = {0: voices["person"], "turn1": voices["turn1"]}
    job = prepared(video, voice, parts, sampler, speakers=speakers, assign=assign)
    # Where one turn follows another, voices change too.
    assert spans(job) == [(5, 15), (15, 25)]
    assert [job.voice_of(run) for run in job.runs] == [job.voices[0], job.voices["turn1"]]
    for name, said in ((3, "assign names 3: .*persons"), ("turn2", "names turn2: .*turns 0 to 1")):
        with pytest.raises(ValueError, match=said):
            prepared(video, voice, parts, sampler, speakers=speakers, assign={name: voice})


def test_doubtful_turns_are_told_with_the_worst() -> None:
    plan = Plan("a.mp4", 1, [], [Turn(0, 1, 0, 0.9), Turn(1, 2, 1, 0.5), Turn(2, 3, 0, 0.4)])
    (line,) = doubts_of(plan)
    assert "doubtful in 2 of 3 turns" in line
    assert "from 2 to 3 s (person 0, confidence 0.40)" in line
    assert doubts_of(replace(plan, turns=plan.turns[:1])) == []
    assert doubts_of(replace(plan, turns=None)) == []


def film_of(
    faces: Sequence[FaceSlots], num_slots: int, sound: torch.Tensor | None = None
) -> FilmSlots:
    """Distinct pictures of noise, and a person's slots in them."""

    def read(numbers: Sequence[int]) -> Iterator[Picture]:
        for number in numbers:
            rng = np.random.default_rng(number)
            yield Picture.of(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))

    cuts = np.arange(num_slots) == 0
    sound = torch.zeros(num_slots * 640) if sound is None else sound
    return FilmSlots(np.arange(num_slots), cuts, list(faces), sound, read)


def still_face(person: int, first: int, n: int, openings: np.ndarray | None = None) -> FaceSlots:
    unknown = np.full(n, np.nan) if openings is None else openings
    return FaceSlots(person, first, np.tile([10.0, 5.0, 40.0, 35.0], (n, 1)), unknown)


def test_faces_are_seen_in_pieces_as_they_would_be_at_once() -> None:
    torch.manual_seed(0)
    net = LRASD().eval()
    scorer = LRASDScorer(net)
    assert isinstance(scorer, ActiveSpeakerScorer)
    lengths = (PIECE_SLOTS + 30, 7)
    faces = [still_face(0, 3, lengths[0]), still_face(1, 40, lengths[1])]
    sound = torch.randn(100 * 640) / 10  # it ends before the pictures do
    film = film_of(faces, PIECE_SLOTS + 40, sound)
    scores = scorer(film)
    assert [len(each) for each in scores] == list(lengths)
    padded = torch.nn.functional.pad(sound, (0, (PIECE_SLOTS + 40) * 640 + 240 - len(sound)))
    for face, found in zip(faces, scores, strict=True):
        squares = crop_squares(face.boxes)
        numbers = range(face.first, face.end)
        pictures = film.read(list(numbers))
        crops = [cut_square(p, s) for p, s in zip(pictures, squares, strict=True)]
        with torch.inference_mode():
            rows = mfcc(padded).float()[4 * face.first : 4 * face.end]
            heard = net.encode_audio(rows[None])
            seen = net.encode_pictures(torch.from_numpy(np.stack(crops)).float()[None])
            pieces = [
                net.classify(heard[:, i : i + PIECE_SLOTS], seen[:, i : i + PIECE_SLOTS])
                for i in range(0, len(numbers), PIECE_SLOTS)
            ]
        expected = torch.cat(pieces, dim=1)[0, :, 1].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_square_beyond_the_picture_is_filled_with_grey() -> None:
    white = Picture.of(np.full((40, 60, 3), 255, np.uint8))
    left = cut_square(white, np.array([0.0, 20.0, 10.0]))
    np.testing.assert_array_equal(left[:, :50], 110)
    np.testing.assert_array_equal(left[:, 62:], 255)
    assert set(np.unique(cut_square(white, np.array([500.0, 20.0, 10.0])))) == {110}


def test_squares_are_larger_than_boxes_and_one_bad_box_moves_none() -> None:
    boxes = np.tile([10.0, 20.0, 40.0, 60.0], (20, 1))
    boxes[[5, 9]] += 50
    np.testing.assert_allclose(crop_squares(boxes), [[25.0, 40.0, 24.0]] * 20)


def test_slots_show_the_frame_at_their_middle() -> None:
    # 30 frames per second: slot k, at (k + 1/2) / 25 s, shows frame floor(1.2 k + 0.6).
    n = 60
    times = FrameTimes(Fraction(1, 30), np.arange(n), n)
    openings = np.arange(n - 12, dtype=np.float32)
    boxes = np.tile(np.arange(n - 12, dtype=np.float32)[:, None], (1, 4))
    boxes[5:9] = np.nan
    track = Track(3, 12, np.zeros((n - 12, 3, 2), np.float32), boxes, openings, openings)
    survey = Survey(n, [Shot(0, 31), Shot(31, n)], [track])
    film = FilmSlots.of(survey, times, torch.zeros(16), lambda numbers: iter(()))
    slots = np.arange(50)
    np.testing.assert_array_equal(film.numbers, (6 * slots + 3) // 5)
    # Frame 31 is first seen in slot 26, 31.8 frames from the start.
    assert np.flatnonzero(film.cuts).tolist() == [0, 26]
    (face,) = film.faces
    assert (face.person, face.first, face.end) == (3, 10, 50)
    np.testing.assert_allclose(face.openings, film.numbers[10:] - 12)
    np.testing.assert_allclose(face.boxes[:, 2], film.numbers[10:] - 12)


def test_a_mouth_fits_its_own_loudness_at_any_small_lag() -> None:
    rng = np.random.default_rng(0)
    loud = np.convolve(rng.normal(0, 20, 400), np.ones(5) / 5, "same") - 30
    openings = loud.clip(min=-60)[50:250] * 0.01
    own, foreign = loudness_fit(openings, loud, 53), loudness_fit(openings[::-1], loud, 53)
    assert own[20:-20].min() > 0.7
    assert foreign[20:-20].mean() < own[20:-20].mean() - 0.4
    # A fit over a few slots may be chance.
    assert loudness_fit(openings[:15], loud, 53).max() < own.max() - 0.2


def test_who_is_seen_for_a_moment_and_who_is_still_does_not_speak() -> None:
    n = 200
    time = torch.arange(n * 640) / 16_000
    sound = 0.3 * torch.sin(2 * torch.pi * 200 * time) * torch.sin(4 * time)
    moving = 0.2 * np.abs(np.sin(4 * np.arange(n) / 25))
    faces = [
        still_face(0, 0, n, moving), still_face(1, 0, n, np.full(n, 0.1)),
        still_face(2, 100, 10, moving[:10]),
    ]  # fmt: skip
    scorer = MouthMotionScorer()
    assert isinstance(scorer, ActiveSpeakerScorer)
    speaks, is_still, flashes = scorer(film_of(faces, n, sound))
    assert speaks.min() > 0.5
    assert is_still.max() < -1
    assert set(flashes) == {UNKNOWN_SCORE}
    silent = sound.clone()
    silent[80 * 640 : 120 * 640] = 0
    quiet, _, _ = scorer(film_of(faces, n, silent))
    assert quiet[82:118].max() < -1
    assert quiet[:70].min() > 0.5


def test_persons_of_two_tracks_have_one_column() -> None:
    faces = [still_face(5, 0, 4), still_face(2, 2, 6), still_face(5, 6, 2)]
    scores = [np.full(4, 1.0), np.full(6, 99.0), np.full(2, -99.0)]
    inf = np.inf
    expected = [[-inf, 1], [-inf, 1], [4, 1], [4, 1], [4, -inf], [4, -inf], [4, -4], [4, -4]]
    np.testing.assert_array_equal(score_matrix(faces, scores, [2, 5], 8), expected)


def config(*words: str):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("infer", overrides=list(words))


def test_turns_of_a_file_say_who_is_redrawn() -> None:
    given = config("turns=a.rttm")
    assert choices(given)["choice"].select == "speaker"
    assert chosen_speakers(given, None) == SpeakerChoice(rttm=Path("a.rttm"))
    with pytest.raises(ValueError, match=r"leave out faces\.select=all"):
        chosen_speakers(config("turns=a.rttm", "faces.select=all"), None)
    with pytest.raises(ValueError, match="plan= has turns of its own"):
        chosen_speakers(config("turns=a.rttm", "plan=plan.json"), None)


def test_weights_of_another_network_and_none_are_told(tmp_path: Path) -> None:
    assert load_scorer(config()) is None
    path = tmp_path / "weights.pth"
    torch.save({key: torch.zeros(1) for key in official_shapes("s3fd")}, path)
    with pytest.raises(ValueError, match=r"is no official LR-ASD.*holds a S3FD"):
        load_scorer(config(f"faces.speaker.weights={path}"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_scorer(config(f"faces.speaker.weights={tmp_path}/nowhere.pth"))
