"""How much of a speaker's mouth a linear readout finds in audio states, learned from whom.

`python experiments/real_speakers/read_audio.py SET --whisper FILE --speaker STEM --out FILE.json`:
SET is a prepared set of many recordings. For every speaker (the stem of a recording's name) a ridge
regression from states to the opening of the mouth is learned from the first four fifths of the own
recording, from all other recordings, or from both, and scored on the last fifth. `random` is the
same Whisper with new weights.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from latentsync.data.clips import Clip
from latentsync.data.manifest import read_manifest
from latentsync.evaluation.landmarks import find_faces
from latentsync.faces import MeshDetector
from latentsync.faces.shape import mouth_shape
from latentsync.files import publish
from latentsync.media.audio import read_waveform
from latentsync.media.video import read_frames
from latentsync.models import MelAudioEncoder
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.weights import load_official_whisper

CONTEXT = 2  # frames before and after the one that is predicted
NUM_COMPONENTS = 96  # principal components of the states of a frame
RIDGE = 3.0  # of the mean diagonal of the covariance; from 0.3 to 30 the figures hardly differ
OWN_WEIGHT, OTHERS_WEIGHT = 1.0, 0.3  # of a frame, when both are learned from
HELD_OUT = 0.2

Rows = Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class Spoken:
    """A clip: its recording, the opening of its mouth per frame, and states per frame."""

    speaker: str
    start: int
    opening: Float[np.ndarray, " n"]
    states: dict[str, Rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--speaker", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    encoders = {
        "mel": MelAudioEncoder(),
        "whisper": load_official_whisper(options.whisper),
        "random": with_new_weights(options.whisper),
    }
    clips = read_manifest(options.set)
    spoken = [read(clip, encoders) for clip in tqdm(clips, desc="clips")]
    spoken = [clip for clip in spoken if np.isfinite(clip.opening).any()]
    for name in encoders:
        reduce(spoken, name)
    rows = [score(spoken, name, speaker) for name in encoders for speaker in options.speaker]
    with publish(options.out) as written:
        written.write_text(json.dumps(rows, indent=1) + "\n")


def with_new_weights(path: Path) -> AudioEncoder:
    encoder = load_official_whisper(path)
    torch.manual_seed(0)
    for module in encoder.net.net.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.LayerNorm):
            module.reset_parameters()
    return encoder


@torch.no_grad()
def read(clip: Clip, encoders: dict[str, AudioEncoder]) -> Spoken:
    faces = find_faces(np.stack(list(read_frames(clip.path))), MeshDetector())
    opening = np.array([np.nan if face is None else mouth_shape(face).opening for face in faces])
    sound = read_waveform(clip.path)
    states = {}
    for name, encoder in encoders.items():
        per_frame = round(encoder.rate / clip.fps)
        found = encoder(sound).float().flatten(1)
        found = found[: len(found) // per_frame * per_frame].reshape(-1, per_frame * found.shape[1])
        missing = max(len(opening) - len(found), 0)
        states[name] = np.pad(found.numpy(), ((0, missing), (0, 0)), mode="edge")[: len(opening)]
    return Spoken(Path(clip.source).stem, clip.start_frame, opening, states)


def reduce(spoken: list[Spoken], name: str) -> None:
    """States to principal components, with their neighbours in time, in place."""
    whole = np.concatenate([clip.states[name] for clip in spoken])
    mean = whole.mean(axis=0)
    axes = np.linalg.eigh(np.cov((whole - mean).T))[1][:, -NUM_COMPONENTS:]
    for clip in spoken:
        short = np.pad((clip.states[name] - mean) @ axes, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
        count = len(clip.opening)
        shifts = [short[shift : shift + count] for shift in range(2 * CONTEXT + 1)]
        clip.states[name] = np.concatenate(shifts, axis=1)


def score(spoken: list[Spoken], name: str, speaker: str) -> dict[str, object]:
    own = sorted((clip for clip in spoken if clip.speaker == speaker), key=lambda clip: clip.start)
    if not own:
        raise ValueError(f"--speaker {speaker}: the set has no recording of this name")
    others = [clip for clip in spoken if clip.speaker != speaker]
    seen = [together(others, name, alone=True), together(own, name, alone=False)]
    mean, spread = seen[0][0].mean(axis=0), seen[0][0].std(axis=0) + 1e-6
    (other_states, other_openings), (states, openings) = (
        ((rows - mean) / spread, wanted) for rows, wanted in seen
    )
    first = int(len(states) * (1 - HELD_OUT))
    learned = states[:first], openings[:first]
    sources = {
        "own": [(*learned, OWN_WEIGHT)],
        "others": [(other_states, other_openings, OWN_WEIGHT)],
        "both": [(*learned, OWN_WEIGHT), (other_states, other_openings, OTHERS_WEIGHT)],
    }
    found = {source: states[first:] @ ridge(parts) for source, parts in sources.items()}
    return {
        "states": name,
        "speaker": speaker,
        "learned_frames": first,
        "held_out_frames": len(states) - first,
        "r_opening": {
            source: round(float(np.corrcoef(read, openings[first:])[0, 1]), 3)
            for source, read in found.items()
        },
    }


def together(
    clips: list[Spoken], name: str, *, alone: bool
) -> tuple[Rows, Float[np.ndarray, " n"]]:
    """States and openings in deviations, `alone` of each clip or of all, where a mouth is seen."""
    openings = [clip.opening for clip in clips]
    if not alone:
        openings = [np.concatenate(openings)]
    wanted = np.concatenate([(one - np.nanmean(one)) / (np.nanstd(one) + 1e-6) for one in openings])
    states = np.concatenate([clip.states[name] for clip in clips])
    return states[np.isfinite(wanted)], wanted[np.isfinite(wanted)]


def ridge(parts: list[tuple[Rows, Float[np.ndarray, " n"], float]]) -> Float[np.ndarray, " d"]:
    squares = sum(weight * states.T @ states for states, _, weight in parts)
    products = sum(weight * states.T @ wanted for states, wanted, weight in parts)
    amount = RIDGE * np.trace(squares) / len(squares)
    return np.linalg.solve(squares + amount * np.eye(len(squares)), products)


if __name__ == "__main__":
    main()
