"""HDR (PQ or HLG) <=> SDR for detectors and networks, in closed form.

Code values are linearised; light up to half of SDR white is kept, more is compressed up to
`PEAK_NITS`; then converted to BT.709 primaries and levels. Invertible up to rounding, except for
colours outside BT.709 and light above the peak.
"""

from functools import cache

import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from jaxtyping import Float, Float32, UInt8, UInt16

HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}

WHITE_NITS = 203.0  # HDR reference white (ITU-R BT.2408)
PEAK_NITS = 1000.0  # nominal for HLG, and for most mastering displays
KNEE = 0.5
SDR_GAMMA = 2.4  # ITU-R BT.1886
NUM_CODES = 1 << 16
WHITE_CODE = 255 << 8  # libswscale shifts levels to 16 bits instead of scaling them

# SMPTE ST 2084
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
PQ_NITS = 10000.0
# ITU-R BT.2100
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
HLG_GAMMA = 1.2

# Chromaticities of red, green, blue; white is D65 in all (ITU-T H.273).
CHROMATICITIES = {
    int(ColorPrimaries.BT709): ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    int(ColorPrimaries.BT2020): ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    int(ColorPrimaries.SMPTE432): ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D65 = (0.3127, 0.3290)

Curve = Float[np.ndarray, "*n"]


def is_hdr(transfer: int) -> bool:
    return transfer in HDR


def to_sdr(
    stored: UInt16[np.ndarray, "h w 3"], *, transfer: int, primaries: int
) -> UInt8[np.ndarray, "h w 3"]:
    """R'G'B' in the file's transfer and primaries, 0..`WHITE_CODE` => SDR levels in BT.709."""
    light = _light_table(transfer)[stored]
    light = cv2.transform(light, _between(primaries, int(ColorPrimaries.BT709)))
    # Dark levels are close together, their square roots are not.
    roots = np.sqrt(np.clip(light, 0, 1, out=light), out=light)
    return _level_table()[(roots * (NUM_CODES - 1) + 0.5).astype(np.uint16)]


def from_sdr(
    levels: UInt8[np.ndarray, "h w 3"], *, transfer: int, primaries: int
) -> Float32[np.ndarray, "h w 3"]:
    """SDR levels => R'G'B' in 0..1 in the file's transfer and primaries."""
    light = ((np.arange(256) / 255) ** SDR_GAMMA).astype(np.float32)[levels]
    light = cv2.transform(light, _between(int(ColorPrimaries.BT709), primaries))
    nits = WHITE_NITS * unbent(np.clip(light, 0, 1).astype(np.float64))
    stored = pq_of(nits) if HDR[transfer] == "PQ" else hlg_of(nits)
    return stored.astype(np.float32)


def bent(light: Curve) -> Curve:
    """Tone mapping: light, 1 at reference white => light of an SDR display, 1 at `PEAK_NITS`."""
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    # Extended Reinhard curve from the knee on, where its slope is 1.
    rolled = over * (1 + over / _most_over() ** 2) / (1 + over)
    return np.where(light <= KNEE, light, np.minimum(KNEE + (1 - KNEE) * rolled, 1))


def unbent(shown: Curve) -> Curve:
    """The inverse of `bent`."""
    rolled = np.maximum(shown - KNEE, 0) / (1 - KNEE)
    half = (1 - rolled) / 2
    square = _most_over() ** 2
    over = square * (np.sqrt(half**2 + rolled / square) - half)
    return np.where(shown <= KNEE, shown, KNEE + (1 - KNEE) * over)


def pq_nits(stored: Curve) -> Curve:
    """PQ's R'G'B' in 0..1 => nits."""
    power = stored ** (1 / PQ_M2)
    return PQ_NITS * (np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power)) ** (1 / PQ_M1)


def pq_of(nits: Curve) -> Curve:
    power = (nits / PQ_NITS) ** PQ_M1
    return ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2


def hlg_nits(stored: Curve) -> Curve:
    """HLG's R'G'B' in 0..1 => nits of its reference display, per channel."""
    bright = (np.exp((np.maximum(stored, 0.5) - HLG_C) / HLG_A) + HLG_B) / 12
    return PEAK_NITS * np.where(stored <= 0.5, stored**2 / 3, bright) ** HLG_GAMMA


def hlg_of(nits: Curve) -> Curve:
    scene = (nits / PEAK_NITS) ** (1 / HLG_GAMMA)
    bright = HLG_A * np.log(12 * np.maximum(scene, 1 / 12) - HLG_B) + HLG_C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def _most_over() -> float:
    return (PEAK_NITS / WHITE_NITS - KNEE) / (1 - KNEE)


@cache
def _light_table(transfer: int) -> Float32[np.ndarray, " n"]:
    stored = np.minimum(np.arange(NUM_CODES) / WHITE_CODE, 1)
    nits = pq_nits(stored) if HDR[transfer] == "PQ" else hlg_nits(stored)
    return bent(nits / WHITE_NITS).astype(np.float32)


@cache
def _level_table() -> UInt8[np.ndarray, " n"]:
    roots = np.arange(NUM_CODES) / (NUM_CODES - 1)
    return np.rint(255 * roots ** (2 / SDR_GAMMA)).astype(np.uint8)


@cache
def _between(source: int, target: int) -> Float32[np.ndarray, "3 3"]:
    """Matrix of linear RGB from some primaries to others; HDR without tags is taken for BT.2020."""
    usual = int(ColorPrimaries.BT2020)
    to_xyz, of_xyz = (
        _xyz_of_rgb(primaries if primaries in CHROMATICITIES else usual)
        for primaries in (source, target)
    )
    return (np.linalg.inv(of_xyz) @ to_xyz).astype(np.float32)


def _xyz_of_rgb(primaries: int) -> Float[np.ndarray, "3 3"]:
    corners = np.array([(x / y, 1, (1 - x - y) / y) for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    return corners * np.linalg.solve(corners, white)
