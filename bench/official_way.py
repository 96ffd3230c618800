"""The official pipeline's work around the network, reimplemented as the baseline of other scripts.

Every step costs what the official one costs on a CPU in float32: whole frames are warped, twice for
a filled border; whole masks are eroded and blurred; all frames of the video are held in a list;
three encodings follow each other. Where it uses a library, a faster way to the same numbers is used
here, never a slower one. Faces are detected in every frame, but with our detector.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from latentsync.faces import FaceDetector, OfficialAligner, Placement, largest
from latentsync.faces.official import sampling_grid
from latentsync.faces.warp import Matrix, invert
from latentsync.media.audio import read_waveform, write_wav
from latentsync.runtime import Stopwatch

FPS = 25
FIRST_CRF, OWN_CRF, LAST_CRF = 18, 13, 18
PRESET = "medium"
BORDER_LEVEL = 127

Frame = UInt8[np.ndarray, "h w 3"]


def align_face(frame: Frame, placement: Placement, resolution: int) -> UInt8[np.ndarray, "r r 3"]:
    """The square face of a frame: warped from the whole frame, truncated, scaled to [-1, 1]."""
    picture = rearrange(torch.from_numpy(frame), "h w c -> 1 c h w").float()
    crop = warp_filled(picture, placement.matrix, placement.size)
    levels = rearrange(crop, "1 c h w -> h w c").numpy().astype(np.uint8)
    return cv2.resize(levels, (resolution, resolution), interpolation=cv2.INTER_LANCZOS4)


def restore_face(frame: Frame, pixels: Float[Tensor, "3 r r"], placement: Placement) -> Frame:
    """The frame with the whole crop of a face in [-1, 1] blended in."""
    height, width = frame.shape[:2]
    size, back = (width, height), invert(placement.matrix)
    columns, rows = placement.size
    face = F.interpolate(pixels[None], (rows, columns), mode="bicubic", antialias=True)
    painted = (warp_filled(face, back, size)[0] / 2 + 0.5).clamp(0, 1) * 255
    covered = warp(torch.ones(1, 1, rows, columns), back, size)
    # Erosion by 2x2: the minimum of each pixel and those above and to the left.
    covered = -F.max_pool2d(F.pad(-covered, (1, 0, 1, 0), value=-1e4), 2, stride=1)
    painted = covered[0] * painted
    edge = int(covered.sum() ** 0.5) // 20
    centre = cv2.erode(covered[0, 0].numpy(), np.ones((2 * edge, 2 * edge), np.uint8))
    soft = blur(torch.from_numpy(centre), 2 * edge + 1)
    picture = rearrange(torch.from_numpy(frame), "h w c -> c h w").float()
    blended = soft * painted + (1 - soft) * picture
    return rearrange(blended, "c h w -> h w c").contiguous().to(torch.uint8).numpy()


def warp(
    picture: Float[Tensor, "1 c h w"], matrix: Matrix, size: tuple[int, int]
) -> Float[Tensor, "1 c h2 w2"]:
    """Bilinear, zeros outside; `matrix` maps the picture to the (w, h) result."""
    height, width = picture.shape[2:]
    grid = sampling_grid(torch.from_numpy(matrix).float(), size, (width, height))
    return F.grid_sample(picture, grid[None], align_corners=True)


def warp_filled(
    picture: Float[Tensor, "1 c h w"], matrix: Matrix, size: tuple[int, int]
) -> Float[Tensor, "1 c h2 w2"]:
    """The same with level 127 outside, by also warping a picture of ones."""
    share = warp(torch.ones_like(picture), matrix, size)
    return warp(picture, matrix, size) + (1 - share) * BORDER_LEVEL


def blur(mask: Float[Tensor, "h w"], width: int) -> Float[Tensor, "h w"]:
    """Gaussian blur of an odd width in pixels, rows first, then columns."""
    sigma = 0.3 * ((width - 1) * 0.5 - 1) + 0.8
    steps = torch.arange(width) - width // 2
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(mask[None, None], (width // 2,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, width))
    return F.conv2d(rows, kernel.view(1, 1, width, 1))[0, 0]


def run(
    video: Path,
    audio: Path,
    out: Path,
    *,
    detector: FaceDetector,
    resolution: int,
    num_frames: int,
    watch: Stopwatch | None = None,
) -> int:
    """All of an official run except its networks, on the first frames; returns their number.

    Every face is pasted back as it was cropped. Temporary files are written next to `out`.
    """
    stage = watch.stage if watch else lambda _: nullcontext()
    first, own, voice = (out.with_name(f"temp.{name}") for name in ("25.mp4", "own.mp4", "wav"))
    with stage("re-encode"):
        transcode(video, first, crf=FIRST_CRF, num_frames=num_frames)
    with stage("decode"):
        frames = np.array(list(captured(first)))
    aligner = OfficialAligner(resolution)
    placements, faces = [], []
    for frame in frames:
        with stage("faces"):
            found = largest(detector(frame))
            if found is None:
                raise ValueError(f"{video} has a frame without a face: the official run stops")
            placements.append(aligner.place(aligner.points_of(found)))
        with stage("align"):
            faces.append(align_face(frame, placements[-1], resolution))
    stack = rearrange(torch.from_numpy(np.stack(faces)), "f h w c -> f c h w")
    pixels = torch.cat([chunk.float() / 127.5 - 1 for chunk in stack.split(16)])
    restored = []
    for frame, face, placement in zip(frames, pixels, placements, strict=True):
        with stage("restore"):
            restored.append(restore_face(frame, face, placement))
    with stage("write"):
        encode(np.stack(restored), own)
        write_wav(voice, read_waveform(audio)[: int(len(frames) / FPS * 16000)])
    with stage("mux"):
        transcode(own, out, crf=LAST_CRF, voice=voice)
    return len(frames)


def captured(path: Path) -> Iterator[Frame]:
    """All frames of a file, read with OpenCV."""
    capture = cv2.VideoCapture(str(path))
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def transcode(
    path: Path,
    out: Path,
    *,
    crf: int,
    preset: str = PRESET,
    num_frames: int | None = None,
    voice: Path | None = None,
) -> None:
    """`ffmpeg -i path [-i voice] -r 25 -crf crf -preset preset out`, for the first frames."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        shown = source.streams.video[0]
        shown.thread_type = "AUTO"
        stream = target.add_stream("libx264", rate=FPS, options=options(crf, preset))
        stream.width, stream.height = shown.width, shown.height
        stream.pix_fmt = "yuv420p"
        sound = target.add_stream("aac", rate=16000, layout="mono") if voice else None
        for count, frame in enumerate(at_rate(source, shown)):
            if count == num_frames:
                break
            frame.pts, frame.time_base = count, Fraction(1, FPS)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
        if voice and sound:
            with av.open(str(voice)) as spoken:
                for piece in spoken.decode(audio=0):
                    target.mux(sound.encode(piece))
            target.mux(sound.encode(None))


def at_rate(source: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames through ffmpeg's fps filter, in yuv420p."""
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(template=stream),
        graph.add("fps", str(FPS)),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    for frame in _and_end(source, stream):
        graph.vpush(frame)
        while True:
            try:
                yield graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                break


def _and_end(
    source: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame | None]:
    yield from source.decode(stream)
    yield None


def encode(frames: UInt8[np.ndarray, "f h w 3"], out: Path) -> None:
    """RGB frames through x264, as imageio writes them."""
    with av.open(str(out), "w") as target:
        stream = target.add_stream("libx264", rate=FPS, options=options(OWN_CRF))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        target.mux(stream.encode(None))


def options(crf: int, preset: str = PRESET) -> dict[str, str]:
    return {"crf": str(crf), "preset": preset}
