"""A video and a voice => the video speaking it.

read -> track -> align -> generate -> restore -> write: every arrow is an iterator, so memory does
not grow with length: at most three chunks of frames are alive, and the few that smoothing looks
ahead. The output runs at the model's own rate (25 fps for all present models) and lasts as long as
the audio: a source at another rate is put on that grid while it is read, a longer one is cut, a
shorter one is played to and fro. What a sampler with `parity` changes is said there.
"""

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Num, UInt8
from torch import Tensor
from tqdm import tqdm

from latentsync.diffusion import Sampler
from latentsync.faces import (
    ALIGNERS,
    Face,
    FaceDetector,
    Placement,
    align,
    paste,
    track,
)
from latentsync.media.audio import read_waveform
from latentsync.media.loop import read_looped
from latentsync.media.video import VideoInfo, VideoWriter, probe, read_frames
from latentsync.models.audio_encoder import frame_tokens, num_parity_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.report import ContactSheet, Report, SkipLog, Stopwatch, peak_memory_mib

Frame = UInt8[np.ndarray, "h w 3"]
Faces = UInt8[np.ndarray, "f r r 3"]
Place = tuple[Float[np.ndarray, "4"], Placement]
Levels = Num[np.ndarray, "r r 3"]  # of a face: uint8, or float and not yet cut to 0..255
Reference = Literal["auto", "previous", "self"]
In = TypeVar("In")
Out = TypeVar("Out")

SAMPLE_RATE = 16000
CONTAINERS = (".mp4", ".mov", ".mkv", ".m4v")


@dataclass(frozen=True, slots=True)
class Sight:
    """A frame and where its face is; without a face the other three are None."""

    frame: Frame
    box: Float[np.ndarray, "4"] | None
    placement: Placement | None
    face: UInt8[np.ndarray, "r r 3"] | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive sights from frame `start` on, at most as many as the network sees at once;
    either all have a face or none has."""

    start: int
    sights: list[Sight]

    def faces(self) -> Faces | None:
        faces = [sight.face for sight in self.sights if sight.face is not None]
        return np.stack(faces) if faces else None


def lipsync(  # noqa: PLR0913 - the one public door: every choice is named where it is called
    video: Path,
    audio: Path,
    out: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    sampler: Sampler,
    seed: int = 1247,
    crf: int = 18,
    reference: Reference = "auto",
    overwrite: bool = False,
    progress: bool = False,
) -> Report:
    """Write `out`, its report and its contact sheet; or none of them and raise ValueError.

    The output has round(audio seconds * model fps) frames; those without a face pass through.
    `reference`: the faces shown unmasked beside a chunk: "previous" are those of the chunk
    before it, "self" its own, as in the official pipeline; "auto" is what the sampler goes with.
    """
    check_paths(video, audio, out, overwrite=overwrite)
    check_choices(crf=crf, reference=reference)
    if reference == "auto":
        reference = "self" if sampler.parity else "previous"
    started, watch, fps = time.perf_counter(), Stopwatch(), model.format.fps
    source = probe(video)
    with watch.stage("audio"):
        waveform = read_waveform(audio, SAMPLE_RATE)
        num_frames = count_frames(audio, len(waveform) / SAMPLE_RATE, fps)
        states = model.audio_encoder(waveform, parity=sampler.parity)
        if sampler.parity:
            num_frames = num_parity_frames(len(states), fps=fps)

    frames = watch.over("read", read_looped(video, fps=fps, num_frames=num_frames))
    sights = look(frames, detector=detector, model=model, watch=watch)
    chunks = add_references(split(sights, model.format.num_frames), reference)
    speaking = speak(chunks, states, model=model, sampler=sampler, seed=seed)
    speaking = watch.over("generate", speaking)
    region = "crop" if sampler.parity else "mask"
    restored = watch.over("restore", restore(speaking, mask=model.format.mask, region=region))

    skips, sheet = SkipLog(fps=fps), ContactSheet(num_frames)
    writer = VideoWriter(
        out, fps=fps, width=source.width, height=source.height, crf=crf, audio=audio
    )
    with watch.stage("write"), writer:
        restored = tqdm(restored, total=num_frames, unit="frame", disable=not progress)
        for index, (sight, frame) in enumerate(restored):
            writer.write(frame)
            sheet.add(index, sight.frame, frame, sight.box)
            skips.add(has_face=sight.face is not None)
        if skips.num_with_face == 0:
            raise ValueError(f"no face found in any of {num_frames} frames of {video}")
    report = Report(
        video=str(video),
        audio=str(audio),
        out=str(out),
        model=fingerprint(model),
        model_format=asdict(model.format),
        sampler=asdict(sampler),
        seed=seed,
        reference=reference,
        crf=crf,
        source_fps=float(source.fps),
        fps=fps,
        num_frames=skips.num_frames,
        num_frames_with_face=skips.num_with_face,
        video_seconds=source.duration_seconds,
        audio_seconds=len(waveform) / SAMPLE_RATE,
        skipped=skips.spans,
        stage_seconds=watch.seconds,
        total_seconds=time.perf_counter() - started,
        peak_memory_mib=peak_memory_mib(),
    )
    report.save(report_path(out))
    sheet.save(sheet_path(out))
    return report


def report_path(out: Path) -> Path:
    return out.with_suffix(".report.json")


def sheet_path(out: Path) -> Path:
    return out.with_suffix(".report.png")


def check_paths(video: Path, audio: Path, out: Path, *, overwrite: bool) -> None:
    """Raise if the run cannot end well, before anything is loaded or decoded."""
    for path in (video, audio):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
    if out.suffix.lower() not in CONTAINERS:
        raise ValueError(f"out={out} must end in one of {', '.join(CONTAINERS)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out={out}: the folder {out.parent} does not exist; make it first")
    for path in (video, audio):
        if out.exists() and out.samefile(path):
            raise ValueError(f"out={out} is the input {path} itself; choose another name")
    for path in (out, report_path(out), sheet_path(out)):
        if path.is_dir() or (path.exists() and not overwrite):
            raise ValueError(f"{path} exists; choose another out= or add overwrite=true")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"out={out}: the folder {out.parent} is not writable") from error
    check_decodes(probe(video))


def check_choices(*, crf: int, reference: str) -> None:
    if not 0 <= crf <= 51:
        raise ValueError(f"crf={crf} must lie between 0 (lossless) and 51")
    if reference not in get_args(Reference):
        raise ValueError(f"reference={reference} must be one of {', '.join(get_args(Reference))}")


def check_decodes(video: VideoInfo) -> None:
    """Raise unless the video's last second still shows a frame: a file cut short does not."""
    last = max(0.0, video.duration_seconds - 1.0)
    shown = read_frames(video.path, fps=video.fps, start_seconds=last, num_frames=1)
    if next(shown, None) is None:
        raise ValueError(
            f"{video.path} should last {video.duration_seconds:.2f} s but ends earlier; "
            "it is truncated or damaged: copy it again, or cut it to the part that plays"
        )


def count_frames(audio: Path, seconds: float, fps: float) -> int:
    """Frames of video as long as the audio."""
    num_frames = round(seconds * fps)
    if num_frames == 0:
        raise ValueError(f"{audio} lasts {seconds:.3f} s, which is less than a frame of video")
    return num_frames


def look(
    frames: Iterable[tuple[int, Frame]],
    *,
    detector: FaceDetector,
    model: LipSyncModel,
    watch: Stopwatch,
) -> Iterator[Sight]:
    """Find the face in every frame and cut it out; frames come with their number in the video.

    A frame that is played again has its face where it was the first time: of all frames, only
    these places are kept (some 300 bytes each).
    """
    stream = iter(frames)
    places: list[Place | None] = []
    again: list[tuple[int, Frame]] = []

    def first_time() -> Iterator[Frame]:
        for count, (number, frame) in enumerate(stream):
            if number != count:
                again.append((number, frame))
                return
            yield frame

    def cut(frame: Frame, place: Place | None) -> Sight:
        if place is None:
            return Sight(frame, None, None, None)
        with watch.stage("align"):
            return Sight(frame, *place, align(frame, place[1], model.format.resolution))

    for frame, place in find(first_time(), detector=detector, model=model, watch=watch):
        places.append(place)
        yield cut(frame, place)
    for number, frame in chain(again, stream):
        yield cut(frame, places[number])


def find(
    frames: Iterable[Frame], *, detector: FaceDetector, model: LipSyncModel, watch: Stopwatch
) -> Iterator[tuple[Frame, Place | None]]:
    """Every frame with the place of its face."""
    aligner = ALIGNERS[model.format.aligner](model.format.resolution)

    def place(items: Iterable[tuple[Frame, Face | None]]) -> Iterator[Placement | None]:
        return aligner.placements(
            None if face is None else aligner.points_of(face) for _, face in items
        )

    followed = watch.over("track", beside(frames, lambda ahead: track(ahead, detector)))
    for (frame, face), placement in watch.over("align", beside(followed, place)):
        yield frame, None if face is None or placement is None else (face.box, placement)


def beside(
    items: Iterable[In], follow: Callable[[Iterator[In]], Iterable[Out]]
) -> Iterator[tuple[In, Out]]:
    """Each item with what `follow` makes of it; holds only the items `follow` is ahead.

    (`itertools.tee` would keep up to 57 pictures longer than needed: it frees by blocks.)
    """
    ahead: deque[In] = deque()

    def tap() -> Iterator[In]:
        for item in items:
            ahead.append(item)
            yield item

    for result in follow(tap()):
        yield ahead.popleft(), result


def split(sights: Iterable[Sight], num_frames: int) -> Iterator[Chunk]:
    """Cut into chunks of `num_frames`, and wherever the face comes or goes."""
    start = 0
    chunk: list[Sight] = []
    for sight in sights:
        if chunk and (len(chunk) == num_frames or (sight.face is None) != (chunk[0].face is None)):
            yield Chunk(start, chunk)
            start, chunk = start + len(chunk), []
        chunk.append(sight)
    if chunk:
        yield Chunk(start, chunk)


def add_references(
    chunks: Iterable[Chunk], reference: Reference
) -> Iterator[tuple[Chunk, Faces | None]]:
    """Each chunk with the faces to show beside it; None for a chunk without faces.

    Without a chunk before or right after it, a chunk's own faces serve, half a chunk apart.
    """
    previous: Faces | None = None
    stream = iter(chunks)
    chunk = next(stream, None)
    while chunk is not None:
        following = next(stream, None)
        faces = chunk.faces()
        if faces is None or reference == "self":
            yield chunk, faces
        else:
            others = previous
            if others is None and following is not None:
                others = following.faces()
            if others is None:
                others = np.roll(faces, len(faces) // 2, axis=0)
            yield chunk, others
            previous = faces
        chunk = following


def speak(
    chunks: Iterable[tuple[Chunk, Faces | None]],
    states: Float[Tensor, "n l d"],
    *,
    model: LipSyncModel,
    sampler: Sampler,
    seed: int,
) -> Iterator[tuple[Sight, Levels | None]]:
    """Every sight with its face speaking; without a face, with None.

    The whole video shares one noise, as in the official pipeline. The network always sees full
    chunks: a short one repeats its last frame. In parity it stays short, and faces stay unrounded.
    """
    form = model.format
    generator = torch.Generator().manual_seed(seed)
    noise = model.draw_noise(generator)
    for chunk, others in chunks:
        faces = chunk.faces()
        if faces is None or others is None:
            yield from ((sight, None) for sight in chunk.sights)
            continue
        indices = torch.arange(chunk.start, chunk.start + len(faces))
        audio = frame_tokens(
            states, indices, before=form.audio_before, after=form.audio_after, fps=form.fps
        )
        length = len(faces) if sampler.parity else form.num_frames
        pixels = model.generate(
            to_pixels(pad(faces, length)).to(model.device),
            torch.from_numpy(pad(audio.numpy(), length))[None].to(model.device),
            reference=to_pixels(pad(others, length)).to(model.device),
            sampler=sampler,
            generator=generator,
            noise=noise,
        )
        spoken = to_levels(pixels) if sampler.parity else to_faces(pixels)
        yield from zip(chunk.sights, spoken[: len(faces)], strict=True)


def pad(items: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last item until there are `length`."""
    return np.concatenate([items, np.repeat(items[-1:], length - len(items), axis=0)])


def to_pixels(faces: Faces) -> Float[Tensor, "1 f 3 r r"]:
    """uint8 faces => pixels in [-1, 1]."""
    return rearrange(torch.from_numpy(faces), "f h w c -> 1 f c h w").float() / 127.5 - 1


def to_levels(pixels: Float[Tensor, "1 f 3 r r"]) -> Float[np.ndarray, "f r r 3"]:
    """Pixels, about in [-1, 1] => levels, about in 0..255."""
    return rearrange((pixels.float() + 1) * 127.5, "1 f c h w -> f h w c").cpu().numpy()


def to_faces(pixels: Float[Tensor, "1 f 3 r r"]) -> Faces:
    """Pixels in [-1, 1] => uint8 faces, rounded."""
    return np.rint(to_levels(pixels)).clip(0, 255).astype(np.uint8)


def restore(
    speaking: Iterable[tuple[Sight, Levels | None]], *, mask: str, region: str
) -> Iterator[tuple[Sight, Frame]]:
    """Every sight with its finished frame: the face put back, or the frame as it was."""
    for sight, face in speaking:
        if face is None or sight.placement is None:
            yield sight, sight.frame
        else:
            yield sight, paste(sight.frame, face, sight.placement, region=region, mask=mask)


def fingerprint(model: LipSyncModel) -> str:
    """Twelve letters that tell trained models apart: a hash of the UNet's first and last layer."""
    digest = hashlib.sha256()
    for layer in (model.unet.conv_in, model.unet.conv_out):
        digest.update(layer.weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
