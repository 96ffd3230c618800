"""The codec that preserves most of a source's format, and what the output cannot preserve."""

from av.video.format import VideoFormat

from latentsync.media.hdr import HDR
from latentsync.media.video import VideoInfo
from latentsync.media.writer import ENCODERS, HEVC_SMALLEST

AUTO = "auto"
CODECS = (AUTO, *ENCODERS)
# Containers that support H.264 but not H.265.
H264_ONLY = frozenset((".m4v",))
SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (4, 1): "4:1:1", (4, 4): "4:1:0"}


def codec_for(codec: str, source: VideoInfo, suffix: str = ".mp4") -> str:
    """The codec that "auto" selects for a source: H.265 for 10 bits if possible, else H.264.

    Most devices play 10 bits in H.265 only, and 8 bits best in H.264.
    """
    if codec != AUTO:
        return codec
    is_large = min(source.width, source.height) >= HEVC_SMALLEST
    fits = is_large and suffix.lower() not in H264_ONLY
    return "hevc" if source.colour.depth > 8 and fits else "h264"


def check_source(source: VideoInfo) -> None:
    """ValueError for Dolby Vision pictures that only Dolby's own decoders can display."""
    if "Dolby Vision" in source.dynamic and source.colour.transfer not in HDR:
        raise ValueError(
            f"{source.path} is Dolby Vision without an HDR10 or HLG picture below it (profile 5): "
            "its colours cannot be read. Convert it to HDR10 or SDR first, or record it as HLG"
        )


def what_changes(source: VideoInfo, *, codec: str, crf: float) -> list[str]:
    """One sentence for each property of the source's format that the output does not preserve."""
    stored, colour = VideoFormat(source.pixel_format), source.colour
    is_hdr = colour.transfer in HDR
    notes = []
    if any(component.is_alpha for component in stored.components):
        notes.append("the source's transparency is dropped: H.264 and H.265 files hold none")
    is_full = crf == 0 and colour.depth == 8 and not is_hdr
    chroma = "RGB" if stored.is_rgb else subsampling(stored)
    if chroma != "4:2:0" and not is_full and len(stored.components) >= 3:
        notes.append(
            f"the source's colours are stored as {chroma}, the output's as 4:2:0 (at half the "
            "width and height): players want that"
        )
    bits = max(component.bits for component in stored.components)
    if bits > colour.depth:
        notes.append(f"{bits} bits become {colour.depth}, the most that players know")
    if colour.depth > 8 and codec == "h264":
        notes.append("few devices play H.264 of 10 bits; encoding.codec=hevc is played by more")
    if is_hdr:
        notes.append(
            f"{HDR[colour.transfer]} HDR is kept; the network sees and draws SDR, so that a drawn "
            "mouth is never lighter than 1000 nits"
        )
    notes += [
        f"{name}'s own data is dropped; the {HDR.get(colour.transfer, 'SDR')} picture below it "
        "stays"
        for name in source.dynamic
    ]
    width, height = source.width, source.height
    if (width % 2 or height % 2) and not is_full:
        notes.append(
            f"{width}x{height} becomes {width + width % 2}x{height + height % 2}, with the last "
            "column or row twice: 4:2:0 wants even sides"
        )
    return notes


def subsampling(stored: VideoFormat) -> str:
    sides = 16 // stored.chroma_width(16), 16 // stored.chroma_height(16)
    return SUBSAMPLING.get(sides, f"{sides[0]}x{sides[1]} pixels a colour")


def is_padded(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) are equal after padding their sides to even."""
    return all(a + a % 2 == b + b % 2 for a, b in zip(size, other, strict=True))
