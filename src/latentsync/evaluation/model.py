"""Evaluates a model on unseen synthetic clips, with own and other voices, and baselines.

Everything scored has been encoded once, as for a viewer: every result is written as an mp4 and read
back. Faces are used as prepared, so that pictures and ground truth are exact.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentsync.data.clips import Clip
from latentsync.data.stores import map_tensors, shrink
from latentsync.data.synthetic import read_truth
from latentsync.diffusion.sampler import Sampler
from latentsync.evaluation.aggregate import Row
from latentsync.evaluation.evaluator import Evaluator, Faces, Voice
from latentsync.evaluation.landmarks import by_landmarks, lips_of
from latentsync.faces import Face, paint_weights
from latentsync.media.video import VideoWriter, open_clip, read_frames
from latentsync.metrics.correlation import TRAITS
from latentsync.metrics.mouth import silent_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import generate_clip

# Inputs that need whole frames, which drawn clips do not have.
UNKNOWN_OF_ALIGNED = dict.fromkeys(
    ("lse_curves", "identity", "other_identity", "speaker_scores", "speech"),
    "drawn clips are aligned faces without surroundings: use pred= and ref=",
)
OVERLAP = 4  # frames shared by consecutive windows, as in infer.py


@dataclass(frozen=True, slots=True)
class Example:
    """A prepared clip at the model's resolution."""

    name: str
    source: str
    faces: Faces
    voice: Voice


@dataclass(frozen=True, slots=True)
class Spoken:
    """The results for one clip, decoded from the files written."""

    example: Example
    driver: Example
    truth: Faces
    own: Faces
    swapped: Faces
    found: list[Face | None] | None = None
    """Faces in the truth by landmarks, in the pixels of `landmarks.with_room`."""
    driver_lips: Float[Tensor, "f 40 2"] | None = None


def load_example(clip: Clip, *, resolution: int, max_frames: int) -> Example:
    """The first frames of a clip with their audio and synthetic ground truth."""
    num_frames = min(clip.num_frames, max_frames)
    frames = open_clip(clip.path).frames(np.arange(num_frames))
    features = map_tensors(clip.features_path)
    truth = read_truth(Path(clip.source))
    columns = [torch.as_tensor(np.asarray(truth[name])).float() for name in TRAITS]
    span = slice(clip.start_frame, clip.start_frame + num_frames)
    voice = Voice(
        path=clip.path,
        states=features["audio"].float(),
        mel=features["mel"].float(),
        truth=torch.stack(columns, dim=-1)[span],
        silent=silent_frames(features["mel"].float(), num_frames, fps=clip.fps),
    )
    return Example(clip.name, clip.source, shrink(frames, resolution), voice)


def choose_clips(clips: Sequence[Clip], num_clips: int, seed: int) -> list[Clip]:
    """The requested number of clips, from as many speakers as possible, shuffled by the seed."""
    shuffled = [clips[index] for index in np.random.default_rng(seed).permutation(len(clips))]
    counts: Counter[str] = Counter()
    ranks = []
    for clip in shuffled:
        ranks.append(counts[clip.source])
        counts[clip.source] += 1
    if min(len(counts), num_clips) < 3:
        raise ValueError(
            "swapped and shuffled voices need 3 clips of 3 speakers or more, got "
            f"num_clips={num_clips} of {len(counts)} speakers"
        )
    # A stable sort: the first clip of every speaker, then the second of every speaker, and so on.
    order = sorted(range(len(shuffled)), key=lambda index: ranks[index])
    return [shuffled[index] for index in order[:num_clips]]


def choose_driver(examples: Sequence[Example], index: int, *, besides: set[str]) -> int:
    """The next example, cyclically, that is not of the given speakers."""
    for step in range(1, len(examples)):
        other = (index + step) % len(examples)
        if examples[other].source not in besides:
            return other
    raise ValueError(f"no voice of another speaker than {sorted(besides)}: use more clips")


def speak_with(
    example: Example, voice: Voice, *, model: LipSyncModel, sampler: Sampler, seed: int
) -> Faces:
    """The example's faces lip-synced to a voice.

    Windows, references, noise and the soft edge of the painted region are as in `infer.py`.
    """
    num_frames = min(len(example.faces), len(voice.truth))
    originals = example.faces[:num_frames]
    spoken = generate_clip(
        originals, voice.states, model=model, sampler=sampler, seed=seed, overlap=OVERLAP
    )
    weights = paint_weights(model.format.mask, model.format.resolution)[..., None]
    return np.rint(weights * spoken + (1 - weights) * originals).clip(0, 255).astype(np.uint8)


def encode(faces: Faces, path: Path, *, voice: Voice, fps: float, crf: int) -> Faces:
    """Write the faces with their audio, and return the decoded frames."""
    height, width = faces.shape[1:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(
        path,
        fps=fps,
        width=width,
        height=height,
        crf=crf,
        audio=voice.path,
        audio_seconds=len(faces) / fps,
    ) as writer:
        for face in faces:
            writer.write(face)
    return np.stack(list(read_frames(path)))


ROWS = (
    "ground truth",
    "model, own voice",
    "model, another's voice",
    "copied source",
    "shuffled audio",
)


def evaluate_model(
    examples: Sequence[Example],
    *,
    rows: dict[str, Row],
    model: LipSyncModel,
    sampler: Sampler,
    evaluator: Evaluator,
    folder: Path,
    seed: int,
    crf: int,
) -> Iterator[Spoken]:
    """The results of each clip in turn; adds them to the rows named in ROWS.

    "copied source" is the original face with another's voice; "shuffled audio" is the model's
    result for that voice, scored against a third one: chance level.
    """
    filmed = [evaluator.lips(example.faces) for example in examples]
    sampler = sampler.suited_to(model.process)
    for index, example in enumerate(examples):
        driver_index = choose_driver(examples, index, besides={example.source})
        driver = examples[driver_index]
        third = examples[
            choose_driver(examples, driver_index, besides={example.source, driver.source})
        ]

        def result(name: str, faces: Faces, voice: Voice, clip: str = example.name) -> Faces:
            path = folder / name / f"{clip}.mp4"
            return encode(faces, path, voice=voice, fps=model.format.fps, crf=crf)

        own, other = (
            speak_with(example, voice, model=model, sampler=sampler, seed=seed + index)
            for voice in (example.voice, driver.voice)
        )
        truth = result("truth", example.faces, example.voice)
        shown = Spoken(
            example,
            driver,
            truth=truth,
            own=result("own", own, example.voice),
            swapped=result("swapped", other, driver.voice),
            found=evaluator.find(truth),
            driver_lips=filmed[driver_index],
        )
        _fill(rows, evaluator, shown, third.voice, (filmed[index], filmed[driver_index]))
        yield shown


def _fill(
    rows: dict[str, Row],
    evaluator: Evaluator,
    shown: Spoken,
    third: Voice,
    filmed: tuple[Tensor | None, Tensor | None],
) -> None:
    face, driver = shown.example.voice, shown.driver.voice
    original, look, compare = shown.example.faces, evaluator.look, evaluator.compare

    own, wanted = filmed
    swapped = evaluator.lips(shown.swapped)
    spoken = evaluator.lips(shown.own)
    copied = None if shown.found is None else lips_of(shown.found)
    samples = {
        "ground truth": look(shown.truth, face, own=None)
        | compare(shown.truth, original, same_speech=True),
        "model, own voice": look(shown.own, face, own=None)
        | compare(shown.own, original, same_speech=True)
        | by_landmarks(spoken, own),
        "model, another's voice": look(shown.swapped, driver, own=face)
        | compare(shown.swapped, original, same_speech=False)
        | by_landmarks(swapped, wanted, filmed=own, with_own_voice=spoken),
        "copied source": look(shown.truth, driver, own=face)
        | by_landmarks(copied, wanted, filmed=own),
        "shuffled audio": look(shown.swapped, third, own=None),
    }
    for name, sample in samples.items():
        rows[name].add(sample, clip=shown.example.name, speaker=shown.example.source)
