"""How much of filmed mouths a linear readout finds in their sound that heard synthetic voices only.

`python experiments/real_speakers/read_voices.py SET [SET ...] --out FILE.json`: a ridge regression
from audio states to the opening of the mouth is learned from drawn speakers (no picture is drawn)
and read on every recording of the prepared sets, the mouth ahead of its sound by several times.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from read_audio import Rows, read, ridge
from tqdm import tqdm

from latentsync.data.manifest import read_manifest
from latentsync.data.synthetic import Speaker, espeak
from latentsync.data.synthetic.speech import Voice, speak, truth_of, viseme_track
from latentsync.files import publish
from latentsync.models import CentredMelAudioEncoder, MelAudioEncoder

ENCODERS = {"mel": MelAudioEncoder(), "centred_mel": CentredMelAudioEncoder()}
LEADS = (-0.08, -0.04, 0.0, 0.04, 0.08, 0.12, 0.16)  # seconds
FPS = 25.0
CONTEXT, NUM_COMPONENTS = 3, 64
MIN_FRAMES = 75  # of a recording, or a fifth of one, with a mouth that is read
NUM_PARTS = 5
NAMED = ("tk_obama", "dx_nvyou", "ls_demo2")

Spoken = tuple[dict[str, Rows], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-speakers", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = {clip.path: clip for path in options.sets for clip in read_manifest(path)}
    filmed = [read(clip, ENCODERS) for clip in tqdm(clips.values(), desc="clips")]
    espeak.LEAD_SECONDS = 0.0  # it is applied below, to both kinds of voices
    rows = []
    for speech in ("syllables", "espeak"):
        heard = [voice_of(seed, speech) for seed in range(options.num_speakers)]
        for name in ENCODERS:
            for lead in LEADS:
                r = readout([(s[name], moved(o, lead)) for s, o in heard], filmed, name)
                rows.append({"voices": speech, "states": name, "lead": lead, **r})
    with publish(options.out) as written:
        written.write_text(json.dumps(rows, indent=1) + "\n")


def voice_of(seed: int, speech: str, seconds: float = 4.0) -> Spoken:
    """The states and the opening per frame of a drawn speaker."""
    rng = np.random.default_rng(seed)
    speaker = Speaker.random(rng)
    voice = Voice(speaker.f0, speaker.tract)
    if speech == "espeak":
        track, sound = espeak.read_aloud(seconds, voice, rng)
    else:
        track = viseme_track(seconds, rng)
        sound = speak(track, voice, rng)
    opening = truth_of(track, FPS)["open"]
    states = {}
    for name, encoder in ENCODERS.items():
        found = encoder(torch.from_numpy(sound)).flatten(1)
        states[name] = found.reshape(-1, 2 * found.shape[1]).numpy()[: len(opening)]
    return states, opening


def moved(opening: np.ndarray, lead: float) -> np.ndarray:
    frames = round(lead * FPS)
    return opening[np.clip(np.arange(len(opening)) + frames, 0, len(opening) - 1)]


def readout(heard: list[tuple[Rows, np.ndarray]], filmed: list, name: str) -> dict[str, object]:
    whole = np.concatenate([states for states, _ in heard])
    mean = whole.mean(axis=0)
    axes = np.linalg.eigh(np.cov((whole - mean).T))[1][:, -NUM_COMPONENTS:]

    def features(states: Rows) -> Rows:
        padded = np.pad((states - mean) @ axes, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
        return np.concatenate(
            [padded[shift : shift + len(states)] for shift in range(2 * CONTEXT + 1)], axis=1
        )

    seen = np.concatenate([features(states) for states, _ in heard])
    wanted = np.concatenate([deviations(opening) for _, opening in heard])
    centre, spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    weights = ridge([((seen - centre) / spread, wanted, 1.0)])
    pairs: dict[str, list[np.ndarray]] = {}
    for clip in sorted(filmed, key=lambda clip: clip.start):
        known = np.isfinite(clip.opening)
        if known.sum() < 2:
            continue
        found = (features(clip.states[name]) - centre) / spread @ weights
        both = np.stack([found[known], deviations(clip.opening[known])])
        pairs.setdefault(clip.speaker, []).append(both)
    joined = {who: np.concatenate(parts, axis=1) for who, parts in pairs.items()}
    r = {
        who: float(np.corrcoef(both)[0, 1])
        for who, both in joined.items()
        if both.shape[1] >= MIN_FRAMES
    }
    return {
        **{who: round(r[who], 3) for who in NAMED if who in r},
        "fifths": {
            who: [round(float(np.corrcoef(part)[0, 1]), 3) for part in fifths(joined[who])]
            for who in NAMED
            if who in r and joined[who].shape[1] >= NUM_PARTS * MIN_FRAMES
        },
        "mean": round(float(np.mean(list(r.values()))), 3),
        "median": round(float(np.median(list(r.values()))), 3),
        "recordings": len(r),
    }


def fifths(both: np.ndarray) -> list[np.ndarray]:
    """One after the other, as much as the last, which an adaptation holds out."""
    return np.array_split(both, NUM_PARTS, axis=1)


def deviations(opening: np.ndarray) -> np.ndarray:
    return (opening - opening.mean()) / (opening.std() + 1e-6)


if __name__ == "__main__":
    main()
