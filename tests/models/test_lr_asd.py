"""LR-ASD: its temporal context, its audio input, and its device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from latentsync.media.mfcc import mfcc
from latentsync.models.lr_asd import (
    LRASD,
    REACH,
    ROWS_PER_FRAME,
    SIDE,
    Gate,
    audio_block,
    visual_block,
)

NUM_FRAMES = 26


@pytest.fixture(scope="module")
def net() -> LRASD:
    torch.manual_seed(0)
    return LRASD().eval()


@torch.inference_mode()
def test_pieces_with_overlap_are_those_of_the_whole(net: LRASD) -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(1, NUM_FRAMES, SIDE, SIDE, generator=generator) * 255
    cepstra = torch.randn(1, NUM_FRAMES * ROWS_PER_FRAME, 13, generator=generator) * 5
    middle = NUM_FRAMES // 2
    seen, heard = net.encode_pictures(pictures), net.encode_audio(cepstra)
    first, second = slice(0, middle + REACH), slice(middle - REACH, None)
    rows = [
        slice(part.start * ROWS_PER_FRAME, part.stop and part.stop * ROWS_PER_FRAME)
        for part in (first, second)
    ]
    for encode, given, parts, whole in (
        (net.encode_pictures, pictures, (first, second), seen),
        (net.encode_audio, cepstra, rows, heard),
    ):
        pieces = [encode(given[:, part]) for part in parts]
        joined = torch.cat([pieces[0][:, :middle], pieces[1][:, REACH:]], dim=1)
        torch.testing.assert_close(joined, whole, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_faces_of_a_batch_do_not_see_each_other(net: LRASD) -> None:
    pictures = torch.rand(2, 6, SIDE, SIDE) * 255
    cepstra = torch.randn(2, 6 * ROWS_PER_FRAME, 13)
    both = net(pictures, cepstra)
    assert both.shape == (2, 6, 2)
    torch.testing.assert_close(both[1:], net(pictures[1:], cepstra[1:]), atol=1e-5, rtol=1e-4)


def test_the_network_stays_on_its_device() -> None:
    # Recurrent layers query the driver, which may be missing: that part runs on the meta device.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        encoders = visual_block(1, 32, stride=2).eval(), audio_block(1, 32).eval()
        gate = Gate(256).eval()
        seen = encoders[0](torch.rand(1, 1, 4, SIDE, SIDE))
        heard = encoders[1](torch.randn(1, 1, 13, 16))
        for value in (seen, heard, gate(torch.randn(1, 4, 256))):
            assert value.device.type == "cuda"
    with torch.device("meta"):
        logits = LRASD().eval()(torch.rand(1, 4, SIDE, SIDE), torch.randn(1, 16, 13))
    assert logits.device.type == "meta"
    assert logits.shape == (1, 4, 2)


def test_silence_is_the_log_of_the_smallest_energy_and_nothing_else() -> None:
    rows = mfcc(torch.zeros(16_000))
    assert rows.shape == (99, 13)
    eps = torch.tensor(2.0**-52, dtype=torch.float64)
    torch.testing.assert_close(rows[:, 0], eps.log().expand(99))
    # All bands are equal: only the first cosine is not zero.
    torch.testing.assert_close(rows[:, 1:], torch.zeros(99, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("num_samples", "num_rows"), [(1, 1), (400, 1), (401, 2), (16_000, 99), (16_160, 100)]
)
def test_rows_start_every_10_ms_while_there_is_sound(num_samples: int, num_rows: int) -> None:
    assert len(mfcc(torch.ones(num_samples))) == num_rows


def test_long_sound_is_heard_as_its_pieces() -> None:
    waveform = torch.randn(160 * 5000, generator=torch.Generator().manual_seed(0)) / 10
    rows = mfcc(waveform)
    # Row r depends on samples from 160 r - 1; the first row of a piece has none before it.
    for first in (1, 4090, 4097):
        piece = mfcc(waveform[160 * first - 160 : 160 * first + 4000])
        torch.testing.assert_close(rows[first : first + 20], piece[1:21])


def test_a_tone_is_loudest_in_its_band_and_twice_as_loud_is_a_log_more() -> None:
    tone = 0.1 * torch.sin(torch.arange(8000) * 2 * torch.pi * 440 / 16_000)
    quiet, loud = mfcc(tone)[5], mfcc(2 * tone)[5]
    torch.testing.assert_close(loud[0] - quiet[0], 2 * torch.tensor(2.0).double().log())
    torch.testing.assert_close(loud[1:], quiet[1:])


def test_no_sound_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        mfcc(torch.zeros(0))
