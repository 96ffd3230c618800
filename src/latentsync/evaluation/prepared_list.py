"""A list of pairs of a prepared set: its clips cut out of the recordings that they come from.

Prepared clips are aligned faces, which no other method takes; so the frames of every clip are cut
again, as they were filmed.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from latentsync.data.clips import Clip
from latentsync.data.manifest import read_manifest
from latentsync.evaluation.pair_list import Task, task_of
from latentsync.evaluation.pairs import Failed
from latentsync.evaluation.setting import AUTO, CROSS, RECONSTRUCTION
from latentsync.files import publish
from latentsync.media.audio import SAMPLE_RATE, read_waveform, write_wav
from latentsync.media.container import UNREADABLE
from latentsync.media.video import VideoWriter, read_frames

# High enough that the reference is not what a figure measures.
CRF = 12

log = logging.getLogger(__name__)


def prepared_list(
    data: Path, folder: Path, *, setting: str, limit: int | None, seconds: float
) -> tuple[list[Task], list[Failed]]:
    """The pairs of the first `limit` clips in the order of the manifest, and what has no pair.

    Each clip speaks with its own voice, and with that of the next one of another recording;
    `setting` chooses one of both. Videos are written to `folder`, at most `seconds` long.
    """
    clips = read_manifest(data)[:limit]
    failed: list[Failed] = []
    cut: list[tuple[Clip, Path, Path]] = []
    for clip in tqdm(clips, desc="cut", unit="clip"):
        try:
            cut.append((clip, *cut_clip(clip, folder, seconds=seconds)))
        except UNREADABLE as error:
            failed.append(Failed(f"{clip.name}.mp4", " ".join(str(error).split())))
    return list(pairs_of(cut, setting)), failed


def pairs_of(cut: Sequence[tuple[Clip, Path, Path]], setting: str) -> Iterator[Task]:
    """Every clip with its own voice and with another's."""
    for index, (clip, video, audio) in enumerate(cut):
        if setting in (AUTO, RECONSTRUCTION):
            yield task_of(clip.name, video, audio, speaker=clip.source, setting=RECONSTRUCTION)
        others = [*cut[index + 1 :], *cut[:index]]
        other = next((each for each in others if each[0].source != clip.source), None)
        if setting in (AUTO, CROSS) and other is not None:
            name = f"{clip.name}--{other[0].name}"
            yield task_of(name, video, other[2], speaker=clip.source, setting=CROSS)


def cut_clip(clip: Clip, folder: Path, *, seconds: float) -> tuple[Path, Path]:
    """The frames of a clip as they were filmed, with their sound, and the sound alone."""
    folder.mkdir(parents=True, exist_ok=True)
    video, audio = folder / f"{clip.name}.mp4", folder / f"{clip.name}.wav"
    if video.is_file() and audio.is_file():
        return video, audio
    source = Path(clip.source)
    if not source.is_file():
        raise FileNotFoundError(f"{source}, which {clip.name} was cut from, does not exist")
    num_frames = min(clip.num_frames, round(seconds * clip.fps))
    start = clip.start_frame / clip.fps
    begin = round(start * SAMPLE_RATE)
    sound = read_waveform(source)[begin : begin + round(num_frames / clip.fps * SAMPLE_RATE)]
    with publish(audio) as partial:
        write_wav(partial, sound)
    frames = read_frames(source, fps=clip.fps, start_seconds=start, num_frames=num_frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{source} has no frame at {start:.2f} s, where {clip.name} begins")
    height, width = first.shape[:2]
    with VideoWriter(
        video, fps=clip.fps, width=width, height=height, crf=CRF, audio=audio
    ) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)
    return video, audio
