"""Drawn speakers that read English: mouth and sound agree, the mouth first."""

import sys
from pathlib import Path

import numpy as np
import pytest

from latentsync.data.synthetic import Speaker, draw_world, espeak, read_truth, render_clip
from latentsync.data.synthetic.espeak import Reader, read_aloud, say, shapes_of
from latentsync.data.synthetic.speech import TRACK_RATE, Voice, truth_of
from latentsync.extras import missing_part
from latentsync.media.audio import SAMPLE_RATE, read_waveform

LOW, HIGH = Voice(f0=110.0, tract=1.0), Voice(f0=210.0, tract=1.1)
READER = Reader("en-us+m3", rate=150, pitch=50, pitch_range=50)
PER_STEP = SAMPLE_RATE // TRACK_RATE


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("espeakng_loader", reason="needs the extra voices")


def levels(sound: np.ndarray) -> np.ndarray:
    """Root mean square of every step of the track."""
    steps = sound[: len(sound) // PER_STEP * PER_STEP].reshape(-1, PER_STEP)
    return np.sqrt((steps.astype(np.float64) ** 2).mean(axis=1))


def test_mouth_of_phonemes() -> None:
    shapes = shapes_of([(0.1, "m"), (0.2, "ˈɑː"), (0.4, "aɪ"), (0.6, "")], 200)
    opening = shapes[:, 0]
    assert (opening[:20] == 0).all(), "nothing is said yet"
    assert (opening[20:40] == 0).all(), "m closes the lips"
    assert opening[40:80] == pytest.approx(espeak.STRESSED * espeak.VOWELS["ɑ"][0])
    assert opening[80:100] == pytest.approx(espeak.UNSTRESSED * espeak.VOWELS["a"][0])
    assert opening[100:120] == pytest.approx(espeak.UNSTRESSED * espeak.VOWELS["ɪ"][0])
    assert (opening[120:] == 0).all(), "a pause"
    assert not shapes_of([], 7)[:, 0].any()


def test_every_phoneme_has_a_mouth() -> None:
    # A letter without a shape would leave the mouth as in silence; the marks of length and stress
    # and espeak-ng's sign of a syllable have none.
    spoken = say(" ".join(espeak.WORDS), READER).phonemes
    letters = set("".join(name for _, name in spoken))
    assert letters - set(espeak.VOWELS) - set(espeak.CONSONANTS) <= set("ˈˌː̩ ")


def test_lips_close_where_the_sound_is_low() -> None:
    sentence = say("papa papa papa papa papa.", READER)
    level = levels(sentence.sound)
    opening = shapes_of(sentence.phonemes, len(level))[:, 0]
    assert level[opening > 0.5].mean() > 3 * level[opening == 0].mean()
    shifts = range(-20, 21)
    r = [np.corrcoef(np.roll(opening, shift)[40:-40], level[40:-40])[0, 1] for shift in shifts]
    assert max(r) > 0.5
    assert -12 <= shifts[int(np.argmax(r))] <= 4, "phonemes are told up to 60 ms late"


def test_mouth_is_ahead_of_its_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    track, sound = read_aloud(20.0, LOW, np.random.default_rng(3))
    level = levels(sound)

    def r(steps: int) -> float:
        return float(np.corrcoef(np.roll(track["open"], steps)[50:-50], level[50:-50])[0, 1])

    best = max(range(-40, 41), key=r)
    assert best / TRACK_RATE == pytest.approx(espeak.LEAD_SECONDS, abs=0.03)
    # The same words without the lead: the same mouth, later.
    monkeypatch.setattr(espeak, "LEAD_SECONDS", 0.0)
    later, same_sound = read_aloud(20.0, LOW, np.random.default_rng(3))
    assert np.corrcoef(levels(sound), levels(same_sound))[0, 1] > 0.95
    assert np.corrcoef(track["open"][:-16], later["open"][16:])[0, 1] > 0.99
    assert np.corrcoef(track["open"], later["open"])[0, 1] < 0.8


@pytest.mark.parametrize("voice", [LOW, HIGH])
def test_seed_determines_words_and_voice(voice: Voice) -> None:
    track, sound = read_aloud(3.0, voice, np.random.default_rng(7))
    again, same = read_aloud(3.0, voice, np.random.default_rng(7))
    other, _ = read_aloud(3.0, voice, np.random.default_rng(8))
    assert np.corrcoef(levels(sound), levels(same))[0, 1] > 0.95
    assert all(np.corrcoef(track[name], again[name])[0, 1] > 0.99 for name in track)
    assert np.corrcoef(track["open"], other["open"])[0, 1] < 0.8
    assert len(sound) == 3 * SAMPLE_RATE
    assert len(track["open"]) == 3 * TRACK_RATE
    assert 0.1 < np.abs(sound).max() < 1
    assert track["open"].min() >= 0
    assert track["open"].max() <= 1.1


def test_voice_goes_with_the_pitch() -> None:
    rng = np.random.default_rng(0)
    variants = {Reader.random(LOW, rng).name.split("+")[1] for _ in range(200)}
    assert variants == set(espeak.MALE)
    assert {Reader.random(HIGH, rng).name.split("+")[1] for _ in range(200)} == set(espeak.FEMALE)


def test_all_voices_are_there() -> None:
    # A variant that is not there would be left out without a word.
    loader = pytest.importorskip("espeakng_loader")
    folder = Path(loader.get_data_path()) / "voices" / "!v"
    assert {*espeak.MALE, *espeak.FEMALE} <= {path.name for path in folder.iterdir()}
    for language in espeak.LANGUAGES:
        assert len(say("Yes.", Reader(f"{language}+f1", 170, 50, 50)).sound) > 1000


def test_unknown_voice() -> None:
    with pytest.raises(ValueError, match=r"no voice xx-none\+f1"):
        say("Yes.", Reader("xx-none+f1", 170, 50, 50))


def test_world_that_reads(tmp_path: Path) -> None:
    (video,) = draw_world(
        tmp_path, num_speakers=1, seconds=3.0, size=64, seed=4, speech="espeak", progress=False
    )
    assert len(read_waveform(video.with_suffix(".wav"))) == 3 * SAMPLE_RATE
    # The words are those of the seed, and no syllables.
    rng = np.random.default_rng(4)
    speaker = Speaker.random(rng)
    track, _ = read_aloud(3.0, Voice(speaker.f0, speaker.tract), rng)
    syllables = render_clip(tmp_path / "syllables", seed=4, seconds=3.0, size=64)
    opening = read_truth(video)["open"]
    assert np.corrcoef(opening, truth_of(track)["open"])[0, 1] > 0.99
    assert np.corrcoef(opening, read_truth(syllables)["open"])[0, 1] < 0.8
    with pytest.raises(ValueError, match="name another output"):
        draw_world(tmp_path, num_speakers=1, seconds=3.0, size=64, seed=4, progress=False)


def test_unknown_speech(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="speech=loud: choose syllables or espeak"):
        draw_world(tmp_path, num_speakers=1, seconds=1.0, speech="loud")
    with pytest.raises(ValueError, match="speech=loud: choose syllables or espeak"):
        render_clip(tmp_path / "one", seed=1, seconds=1.0, speech="loud")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._library.cache_clear()
    with pytest.raises(ModuleNotFoundError) as raised:
        draw_world(tmp_path, num_speakers=1, seconds=1.0, size=64, speech="espeak")
    assert "pip install 'latentsync[voices]'" in str(missing_part(raised.value))
