"""LR-ASD computes the same as the published network, from the published files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latentsync.media.mfcc import mfcc
from latentsync.models.lr_asd import LRASD
from latentsync.weights.lr_asd import load_official_lr_asd, translated
from official.recipe import official_shapes

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden/data/lr_asd.npz"
FILES = {
    "": SHARED / "models/lr_asd/finetuning_TalkSet.model",
    "ava.": SHARED / "models/lr_asd/pretrain_AVA.model",
}
# Measured difference between one and two threads: 1e-6.
TOLERANCE = 1e-5

needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason=f"there are no arrays in {GOLDEN}")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@needs_golden
@pytest.mark.parametrize("sound", ["wave", "random"])
@pytest.mark.parametrize("prefix", FILES)
@torch.inference_mode()
def test_features_and_scores_equal_the_published_ones(
    golden: dict[str, np.ndarray], prefix: str, sound: str
) -> None:
    net = load_official_lr_asd(FILES[prefix])
    assert not net.training
    pictures = torch.from_numpy(golden["visual_in"])[None]
    cepstra = golden["audio_in" if sound == "wave" else "audio_in_random"]
    heard = net.encode_audio(torch.from_numpy(cepstra)[None])
    seen = net.encode_pictures(pictures)
    logits = net(pictures, torch.from_numpy(cepstra)[None])
    found = {
        "audio": heard,
        "visual": seen,
        "fused": net.fusion(torch.cat([heard, seen], dim=-1)),
        "logits": logits,
        "scores": logits[..., 1],
    }
    for name, value in found.items():
        expected = golden[f"{prefix}{sound}.{name}"]
        np.testing.assert_allclose(value[0], expected, rtol=0, atol=TOLERANCE, err_msg=name)


@needs_golden
def test_coefficients_equal_the_published_ones(golden: dict[str, np.ndarray]) -> None:
    waveform = torch.from_numpy(golden["wave_int16"]).float() / 32768
    np.testing.assert_allclose(mfcc(waveform), golden["mfcc_wave"], rtol=0, atol=1e-9)


def test_every_tensor_of_the_file_has_its_place_or_is_for_training_only() -> None:
    official = official_shapes("lr_asd")
    with torch.device("meta"):
        own = {key: tuple(value.shape) for key, value in LRASD().state_dict().items()}
    taken = {translated(key): shape for key, shape in official.items() if "lossV." not in key}
    assert taken == own
    assert len(official) - len(own) == 2  # weight and bias of the visual head


def test_a_loaded_file_gives_its_tensors(tmp_path: Path) -> None:
    official = {
        key: torch.full(shape, index, dtype=torch.int64 if not shape else torch.float32)
        for index, (key, shape) in enumerate(official_shapes("lr_asd").items())
    }
    torch.save(official, tmp_path / "lr_asd.model")
    state = load_official_lr_asd(tmp_path / "lr_asd.model").state_dict()
    # Forward and backward direction are two modules there and one here.
    for key in ("gru_forward.weight_hh_l0", "gru_backward.weight_hh_l0"):
        ours = "gru.weight_hh_l0" + ("_reverse" if "backward" in key else "")
        torch.testing.assert_close(state[ours], official[f"model.detector.{key}"])
    assert len({float(value.flatten()[0]) for value in state.values()}) == len(state)


@pytest.mark.parametrize("kind", ["eval_syncnet_S", "s3fd"])
def test_weights_of_another_network_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({key: torch.zeros(1) for key in official_shapes(kind)}, path)
    with pytest.raises(ValueError, match=r"weights\.pth is no official LR-ASD.*holds a S"):
        load_official_lr_asd(path)


def test_a_file_of_another_width_or_without_a_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    official = {key: torch.zeros(shape) for key, shape in official_shapes("lr_asd").items()}
    whole, bias = dict(official), "lossAV.FC.bias"
    whole[bias] = torch.zeros(3)
    for state in (whole, {key: value for key, value in official.items() if key != bias}):
        torch.save(state, path)
        with pytest.raises(ValueError, match=r"tensors of .* do not fit a LRASD: head\.bias"):
            load_official_lr_asd(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_official_lr_asd(tmp_path / "nowhere.pth")


def test_the_two_recurrent_networks_of_the_file_are_one_of_two_directions() -> None:
    torch.manual_seed(0)
    net, steps = LRASD().eval(), torch.randn(1, 9, 256)
    backward = nn.GRU(256, 64, batch_first=True)
    backward.load_state_dict(
        {
            key.removesuffix("_reverse"): value
            for key, value in net.gru.state_dict().items()
            if key.endswith("_reverse")
        }
    )
    both, _ = net.gru(steps)
    alone, _ = backward(steps.flip(1))
    torch.testing.assert_close(both[..., 64:], alone.flip(1))
