"""Aligned segments => clips on disk: near-lossless video, and audio features."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from latentsync.data.clips import FEATURES_FOLDER, Clip, states_metadata
from latentsync.data.stores import save_tensors
from latentsync.files import aside
from latentsync.media.audio import SAMPLE_RATE, write_wav
from latentsync.media.colour import ColourTags
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoWriter
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.prepare.stage import AlignedSegment

# For data loaders, which decode a window from the keyframe before it: without CABAC and deblocking
# this takes half the time, for 5 % larger files. Compared to an interval of 16, 8 makes files a
# third larger, and decoding a sixth faster. OpenCV converts BT.601 to RGB in a tenth of the time of
# an exact conversion of BT.709.
KEYFRAME_INTERVAL = 8
# A third of the time of x264's default, for half a decibel; files are 5 % smaller.
PRESET = "veryfast"
TUNE = "fastdecode"
COLOUR = ColourTags(matrix=6)


@dataclass(kw_only=True)
class WriteClips:
    """Writes clips/NAME.mp4 and features/NAME.safetensors.

    The clip's first track of sound is that of the features, 16 kHz in AAC; the second, if stages
    before kept it, the recording's own rate and channels, lossless in 16 bits.
    Features: `audio` (encoder states), `mel` (for SyncNet), `turn` (yaw of the head, degrees), and
    `opening` (of the mouth, by the detector). Adds `id`, the same for the same frames of the same
    person in the same recording, whatever its name is.
    `make_audio_encoder` is called once per process.
    """

    name: ClassVar[str] = "write"
    takes: ClassVar[type] = AlignedSegment
    makes: ClassVar[type] = Clip

    make_audio_encoder: Callable[[], AudioEncoder]
    fps: float
    resolution: int
    crf: int

    @cached_property
    def audio_encoder(self) -> AudioEncoder:
        return self.make_audio_encoder()

    def run(self, aligned: AlignedSegment) -> Iterator[Clip]:
        folder, source = aligned.source.output_dir, aligned.source.path
        end = aligned.start_frame + len(aligned.faces)
        person = aligned.measures.get("person")
        state = source.stat()
        content = content_hash(source, state.st_mtime_ns, state.st_size)
        named = clip_id(content, (aligned.start_frame, end), self.fps, person)
        clip = Clip(
            path=folder / "clips" / f"{aligned.name}.mp4",
            features_path=folder / FEATURES_FOLDER / f"{aligned.name}.safetensors",
            latents_path=None,
            num_frames=len(aligned.faces),
            source=str(source),
            start_frame=aligned.start_frame,
            resolution=self.resolution,
            fps=self.fps,
            measures=aligned.with_measures(id=named).measures,
        )
        self._write_video(clip, aligned)
        self._write_features(clip, aligned)
        yield clip

    def _write_video(self, clip: Clip, aligned: AlignedSegment) -> None:
        size, own = self.resolution, aligned.own_sound
        with ExitStack() as stack:
            sound_path = stack.enter_context(wav_aside(clip, "heard"))
            write_wav(sound_path, aligned.waveform, SAMPLE_RATE)
            own_path = None
            if own is not None:
                own_path = stack.enter_context(wav_aside(clip, "own"))
                own.write(own_path)
            with VideoWriter(
                clip.path,
                fps=self.fps,
                width=size,
                height=size,
                crf=self.crf,
                preset=PRESET,
                audio=sound_path,
                lossless_audio=own_path,
                keyframe_interval=KEYFRAME_INTERVAL,
                tune=TUNE,
                colour=COLOUR,
            ) as writer:
                for face in aligned.faces:
                    writer.write(face)

    def _write_features(self, clip: Clip, aligned: AlignedSegment) -> None:
        with torch.no_grad():
            states = self.audio_encoder(aligned.waveform)
        features = {
            "mel": mel_spectrogram(aligned.waveform),
            "turn": torch.from_numpy(aligned.turns).float(),
        }
        if aligned.openings is not None:
            features["opening"] = torch.from_numpy(aligned.openings).float()
        save_features(self.audio_encoder, states, features, clip)


@contextmanager
def wav_aside(clip: Clip, kind: str) -> Iterator[Path]:
    """A place beside a clip for its sound, removed at the end."""
    path = aside(clip.path.with_name(f"{clip.name}.{kind}.wav"))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1)  # the clips of a recording follow one another
def content_hash(path: Path, modified: int, size: int) -> str:
    """BLAKE2b of a file that was modified then and has this size, 32 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def clip_id(content: str, span: tuple[int, int], fps: float, person: float | str | None) -> str:
    """32 digits for first and end frame at `fps` of a recording of this content, and the number of
    the person shown, None if it is not known."""
    first, end = span
    number = "" if person is None else f"{person:g}" if isinstance(person, float) else person
    text = f"{content} {first} {end} {fps:g} {number}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_features(
    encoder: AudioEncoder, states: Tensor, features: Mapping[str, Tensor], clip: Clip
) -> None:
    """Write the features file of a clip, with these audio states, "n l d", of an encoder."""
    tensors = {**features, "audio": states.to(torch.float16).cpu().contiguous()}
    noted = states_metadata(encoder.states_name, encoder.rate)
    save_tensors(tensors, clip.features_path, noted)
