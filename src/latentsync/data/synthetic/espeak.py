"""Sentences read aloud by espeak-ng, with the mouth shapes of their phonemes.

Many voices, and the sounds and rhythm of a language: what is learned from them carries over to real
voices (experiments/real_speakers). espeak-ng is GPL-3 and not a part of this package: the extra
`voices` installs it.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from latentsync.data.synthetic.speech import (
    FULL_WIDTH_TO_SIGMA,
    LOUDEST,
    SHAPE_SECONDS,
    SHAPE_TRACES,
    TRACK_RATE,
    Track,
    Voice,
)
from latentsync.media.audio import SAMPLE_RATE

# By how much the mouth is ahead of its phonemes, which espeak-ng tells some .03 s late. Of the
# mouths of 22 filmed recordings, read from their sound by a readout that learned from these voices
# only, r is highest with .08 (of -.08 to .16 in steps of .04): experiments/real_speakers.
LEAD_SECONDS = 0.08
SAMPLES_PER_STEP = SAMPLE_RATE // TRACK_RATE
STRESSED, UNSTRESSED = 1.1, 0.8  # of the opening of a vowel
HIGHEST_MALE_HZ = 150.0
LANGUAGES = ("en-us", "en-gb-scotland", "en-029")
MALE = (
    *(f"m{number}" for number in range(1, 9)),
    *("Alex", "Andy", "Denis", "Gene", "Hugo", "Lee", "Marco", "Michael", "Mike", "Reed", "adam"),
    *("benjamin", "boris", "caleb", "david", "ed", "edward", "gustave", "ian", "john", "klatt"),
    *("klatt2", "klatt3", "max", "miguel", "pablo", "paul", "quincy", "rob", "robert", "victor"),
)
FEMALE = (
    *(f"f{number}" for number in range(1, 6)),
    *("Alicia", "Andrea", "Annie", "anika", "belinda", "klatt4", "linda", "shelby", "steph"),
    *("steph2",),
)
WORDS = (  # noqa: SIM905  a list would fill a page
    "about above across after again all along also always and another any ask away back ball bath "
    "be beach bear beautiful because become before begin below between big bird black blue boat "
    "book both bottle box boy bread bridge bring brother build busy but buy call camera car carry "
    "chair change cheap child choose church city clear climb close cloud coffee cold colour come "
    "cook could country cup dance dark daughter day deep different do doctor dog door down draw "
    "dream drink drive early earth easy eat edge eight enough even evening every eye face fall "
    "family far farm fast father feel few field find finger fire first fish five flower fly follow "
    "food foot for forest forget four free fresh friend from front fruit full garden gate gave get "
    "girl give glass go gold good grass great green ground grow half hand happy hard have hear "
    "heavy help her here high hill his hold home hope horse hot hour house how hundred idea if in "
    "it join judge jump just keep key kind kitchen know lake land language large last laugh leave "
    "left letter light like listen little long look love low machine make man many market maybe me "
    "measure meet milk minute money month moon more morning mother mountain mouth move much music "
    "must my name near need never new next nice night nine no north nothing now number ocean of "
    "off often oil old on once one only open orange other our out over own page paint paper part "
    "past path people perhaps picture piece place plan play please point poor power pull push put "
    "question quick quiet rain reach read ready red remember rest rice rich ride right river road "
    "rock room round run same sand say school sea season see seven shape share she ship shop short "
    "should show side sing sister sit six sky sleep slow small smile smooth snow so some song soon "
    "sound south speak spring stand star start stay stone stop story street strong such sugar sun "
    "sure swim table take talk tea teach ten thank that the then there these they thing think "
    "third this those thousand three through time to today together tomorrow too top touch toward "
    "town train travel tree true try turn two under up use usual valley very village visit voice "
    "wait walk wall want warm was watch water way we weather week well west what wheel when where "
    "which while white who why wide wild will wind window winter wish with without wood word work "
    "world would write year yellow yes yesterday you young"
).split()

# The mouth of every IPA letter of an English phoneme, in the order of SHAPE_TRACES.
VOWELS: dict[str, tuple[float, ...]] = {
    "a": (1.00, 0.58, 0.00, 0.45, 0.35),
    "ɑ": (1.00, 0.50, 0.05, 0.40, 0.30),
    "ɐ": (0.80, 0.55, 0.00, 0.40, 0.30),
    "ɒ": (0.85, 0.35, 0.35, 0.30, 0.20),
    "æ": (0.85, 0.75, 0.00, 0.60, 0.40),
    "ʌ": (0.70, 0.55, 0.00, 0.40, 0.30),
    "ə": (0.40, 0.55, 0.05, 0.45, 0.30),
    "ɜ": (0.45, 0.45, 0.25, 0.40, 0.30),
    "ɚ": (0.40, 0.45, 0.25, 0.40, 0.30),
    "e": (0.45, 0.85, 0.00, 0.75, 0.40),
    "ɛ": (0.60, 0.75, 0.00, 0.70, 0.40),
    "i": (0.22, 1.00, 0.00, 0.90, 0.30),
    "ɪ": (0.32, 0.80, 0.00, 0.75, 0.35),
    "ɨ": (0.30, 0.70, 0.00, 0.70, 0.30),
    "ᵻ": (0.32, 0.80, 0.00, 0.75, 0.35),
    "o": (0.55, 0.25, 0.75, 0.15, 0.20),
    "ɔ": (0.70, 0.25, 0.60, 0.20, 0.20),
    "u": (0.25, 0.05, 1.00, 0.00, 0.10),
    "ʊ": (0.32, 0.20, 0.70, 0.10, 0.15),
    "ʉ": (0.25, 0.10, 0.90, 0.00, 0.10),
}
CONSONANTS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys("pb", (0.00, 0.42, 0.10, 0.00, 0.00)),
    "m": (0.00, 0.45, 0.05, 0.00, 0.00),
    **dict.fromkeys("fv", (0.10, 0.52, 0.05, 0.80, 0.00)),
    **dict.fromkeys("sz", (0.14, 0.72, 0.00, 1.00, 0.20)),
    **dict.fromkeys("ʃʒ", (0.20, 0.25, 0.60, 0.80, 0.20)),
    **dict.fromkeys("td", (0.20, 0.60, 0.05, 0.80, 0.50)),
    **dict.fromkeys("nɾ", (0.25, 0.60, 0.05, 0.60, 0.70)),
    **dict.fromkeys("lɫ", (0.35, 0.55, 0.05, 0.50, 1.00)),
    **dict.fromkeys("θð", (0.20, 0.55, 0.00, 0.70, 1.00)),
    **dict.fromkeys("kɡgŋ", (0.30, 0.55, 0.00, 0.50, 0.10)),
    **dict.fromkeys("hʔ", (0.40, 0.55, 0.00, 0.40, 0.20)),
    "j": (0.25, 0.90, 0.00, 0.85, 0.30),
    "w": (0.15, 0.05, 1.00, 0.00, 0.10),
    **dict.fromkeys("ɹr", (0.28, 0.35, 0.50, 0.40, 0.30)),
}
SILENT = (0.00, 0.45, 0.00, 0.00, 0.00)
STRESS_MARK = "ˈ"

# Constants of espeak-ng's speak_lib.h.
SYNCHRONOUS, WITH_PHONEMES, IN_IPA, NO_EXIT = 2, 0x1, 0x2, 0x8000
UTF8, AT_CHARACTER = 1, 1
SEED = 1  # of the library's noise
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4
EVENT_END, EVENT_PHONEME = 0, 7


@dataclass(frozen=True, slots=True)
class Reader:
    """A voice of espeak-ng: `name` "en-us+f2", `rate` in words a minute, the others 0 to 100."""

    name: str
    rate: int
    pitch: int
    pitch_range: int

    @classmethod
    def random(cls, voice: Voice, rng: np.random.Generator) -> "Reader":
        """A voice that goes with the pitch of `voice`."""
        variants = MALE if voice.f0 <= HIGHEST_MALE_HZ else FEMALE
        return cls(
            f"{rng.choice(LANGUAGES)}+{rng.choice(variants)}",
            rate=int(rng.integers(130, 211)),
            pitch=int(rng.integers(20, 81)),
            pitch_range=int(rng.integers(30, 91)),
        )


@dataclass(frozen=True, slots=True)
class Sentence:
    """16 kHz sound in [-1, 1], and when which phoneme begins: seconds and IPA, "" in pauses."""

    sound: Float[np.ndarray, " t"]
    phonemes: list[tuple[float, str]]


def read_aloud(
    seconds: float, voice: Voice, rng: np.random.Generator
) -> tuple[Track, Float[np.ndarray, " t"]]:
    """The mouth at 200 Hz and the sound at 16 kHz of random sentences with pauses between them.

    The seed of `rng` determines words and voice. What the process had espeak-ng read before moves
    phonemes by milliseconds and the pitch a little, so sound and mouth are not the same to a bit.

    Raises ModuleNotFoundError without the extra `voices`.
    """
    reader = Reader.random(voice, rng)
    num, lead = round(seconds * TRACK_RATE), round(LEAD_SECONDS * TRACK_RATE)
    parts = [_silence(rng.uniform(0.05, 0.5))]
    while sum(len(shapes) for shapes, _ in parts) < num + lead:
        parts += [_spoken(say(_random_words(rng), reader)), _silence(rng.uniform(0.2, 0.6))]
    steps = np.concatenate([shapes for shapes, _ in parts])[lead : lead + num]
    sigma = SHAPE_SECONDS * FULL_WIDTH_TO_SIGMA * TRACK_RATE
    smooth = gaussian_filter1d(steps, sigma, axis=0, mode="nearest")
    sound = np.concatenate([sound for _, sound in parts])[: num * SAMPLES_PER_STEP]
    sound *= rng.uniform(0.3, LOUDEST) / max(float(np.abs(sound).max()), 1e-3)
    return dict(zip(SHAPE_TRACES, smooth.T.copy(), strict=True)), sound.astype(np.float32)


def say(words: str, reader: Reader) -> Sentence:
    """The words as this voice reads them.

    Raises ValueError if espeak-ng has no such language; an unknown variant is left out.
    """
    library, rate, heard = _library()
    if library.espeak_SetVoiceByName(reader.name.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {reader.name}")
    for parameter, value in (
        (PARAMETER_RATE, reader.rate),
        (PARAMETER_PITCH, reader.pitch),
        (PARAMETER_RANGE, reader.pitch_range),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    library.espeak_ng_SetRandSeed(SEED)
    heard.sounds.clear()
    heard.phonemes.clear()
    text = words.encode() + b"\0"
    failed = library.espeak_Synth(text, len(text), 0, AT_CHARACTER, 0, UTF8, None, None)
    assert not failed and heard.sounds, f"espeak-ng read nothing: {words}"
    sound = np.concatenate(heard.sounds).astype(np.float32) / 2**15
    common = np.gcd(rate, SAMPLE_RATE)
    sound = resample_poly(sound, SAMPLE_RATE // common, rate // common)
    return Sentence(sound.astype(np.float32), list(heard.phonemes))


def shapes_of(phonemes: list[tuple[float, str]], num: int) -> Float[np.ndarray, "n 5"]:
    """The mouth at `num` steps of 200 Hz in the order of SHAPE_TRACES: a step for every letter."""
    steps = np.tile(np.array(SILENT, dtype=np.float32), (num, 1))
    starts = [round(start * TRACK_RATE) for start, _ in phonemes]
    for (_, name), first, end in zip(phonemes, starts, [*starts, num][1:], strict=True):
        letters = [letter for letter in name if letter in VOWELS or letter in CONSONANTS]
        effort = STRESSED if STRESS_MARK in name else UNSTRESSED
        for place, letter in enumerate(letters):
            vowel = letter in VOWELS
            row = np.array(VOWELS[letter] if vowel else CONSONANTS[letter], dtype=np.float32)
            row[0] *= effort if vowel else 1.0
            share = (end - first) / len(letters)
            steps[first + round(place * share) : first + round((place + 1) * share)] = row
    return steps


Part = tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " t"]]


def _spoken(sentence: Sentence) -> Part:
    num = len(sentence.sound) // SAMPLES_PER_STEP
    return shapes_of(sentence.phonemes, num), sentence.sound[: num * SAMPLES_PER_STEP]


def _silence(seconds: float) -> Part:
    num = round(seconds * TRACK_RATE)
    return shapes_of([], num), np.zeros(num * SAMPLES_PER_STEP, dtype=np.float32)


def _random_words(rng: np.random.Generator) -> str:
    words = [str(rng.choice(WORDS)) for _ in range(int(rng.integers(5, 12)))]
    if len(words) > 7:
        words[3] += ","
    return " ".join(words) + "."


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Heard:
    """What the library calls with sound and events, kept as long as the library."""

    def __init__(self) -> None:
        self.sounds: list[np.ndarray] = []
        self.phonemes: list[tuple[float, str]] = []
        self.callback = _Callback(self._hear)

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.sounds.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != EVENT_END:
            event = events[index]
            if event.type == EVENT_PHONEME:
                name = bytes(event.id.string).split(b"\0")[0].decode(errors="ignore")
                self.phonemes.append((event.audio_position / 1000, name))
            index += 1
        return 0


@cache
def _library() -> tuple[Any, int, _Heard]:
    """The library, once a process; its sample rate in Hz; what it says."""
    import espeakng_loader  # an extra

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(
        SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), WITH_PHONEMES | IN_IPA | NO_EXIT
    )
    if rate <= 0:
        raise RuntimeError(f"espeak-ng did not start: {rate}")
    heard = _Heard()
    library.espeak_SetSynthCallback(heard.callback)
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
        *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
    ]
    return library, rate, heard
