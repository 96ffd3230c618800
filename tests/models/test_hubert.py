"""HuBERT and wav2vec 2.0, tiny ones of the real classes, against the library's own output."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

from latentsync.models import HubertAudioEncoder, LipSyncModel, TokenStream
from latentsync.models.audio.hubert import overlapping_spans
from models.tiny import build_model

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
# As published, 320 samples per state, and one with half as many states.
CONVS = {
    50: {"conv_dim": [8] * 7},
    25: {"conv_dim": [8] * 3, "conv_kernel": [16, 8, 8], "conv_stride": [16, 8, 5]},
}


def hubert(rate: int = 50, seed: int = 0) -> HubertModel:
    torch.manual_seed(seed)
    return HubertModel(HubertConfig(**SMALL, **CONVS[rate])).eval()


@pytest.fixture
def sound(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(16000, generator=generator) * 0.1 + 0.02


@pytest.mark.parametrize("rate", CONVS)
def test_states_come_at_the_rate_that_the_encoder_says(rate: int, sound: torch.Tensor) -> None:
    encoder = HubertAudioEncoder(hubert(rate))
    assert encoder.width == 16
    if rate == 50:
        assert encoder.rate == 50
        assert encoder(sound).shape == (50, 3, 16)
    else:
        assert encoder.rate == 25
        assert encoder(sound).shape == (25, 3, 16)


def test_states_are_those_of_the_library_on_the_normalised_sound(sound: torch.Tensor) -> None:
    net = hubert()
    normed = (sound - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
    # A state has a receptive field of 400 samples, of which the middle 320 are its own.
    silence = torch.nn.functional.pad(sound, (40, 40)) == 0
    padded = torch.nn.functional.pad(sound, (40, 40))
    padded = (padded - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
    assert silence.sum() >= 80
    torch.testing.assert_close(padded[40:-40], normed)
    with torch.no_grad():
        expected = net(padded[None], output_hidden_states=True).hidden_states
    states = HubertAudioEncoder(net, layers=[0, -1])(sound)
    assert states.shape == (50, 2, 16)
    torch.testing.assert_close(states[:, 0], expected[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states[:, 1], expected[2][0], atol=1e-5, rtol=1e-4)


def test_a_stream_gives_what_the_whole_gives_around_every_frame(generator) -> None:
    waveform = torch.randn(70 * 16000, generator=generator) * 0.1
    encoder = HubertAudioEncoder(hubert(25))
    states = encoder(waveform)
    assert len(states) == 70 * 25
    stream = TokenStream(encoder.stream(waveform), before=2, after=2, rate=25.0)
    frames = torch.tensor([0, 700, 1749])
    # One state per frame at 25 fps.
    expected = torch.stack(
        [states[(frame + torch.arange(-2, 2)).clamp(0, 1749)].flatten(0, 1) for frame in frames]
    )
    torch.testing.assert_close(stream.tokens(frames), expected)


def test_windows_share_what_they_should_and_end_with_the_sound() -> None:
    assert overlapping_spans(7, 10, overlap=2) == [(0, 7)]
    assert overlapping_spans(21, 10, overlap=2) == [(0, 10), (8, 18), (11, 21)]


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_a_folder_that_transformers_wrote_loads(
    kind: str, sound: torch.Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    if kind == "hubert":
        net = hubert()
    else:
        net = Wav2Vec2Model(Wav2Vec2Config(**SMALL, **CONVS[50], num_codevectors_per_group=4))
    net.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    loaded = HubertAudioEncoder.load(tmp_path)
    assert not loaded.normalize
    torch.testing.assert_close(loaded(sound), HubertAudioEncoder(net, normalize=False)(sound))


def test_the_network_of_a_model_with_a_head_loads_from_files_of_any_age(
    sound: torch.Tensor, tmp_path: Path
) -> None:
    """Published ones are pickles whose weight-normed tensors have names from before
    parametrizations."""
    torch.manual_seed(0)
    whole = Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL, **CONVS[50], vocab_size=5)).eval()
    whole.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }
    assert old.keys() != state.keys()
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    expected = HubertAudioEncoder(whole.wav2vec2)(sound)
    torch.testing.assert_close(HubertAudioEncoder.load(tmp_path)(sound), expected)


def test_it_comes_back_from_a_model_folder_with_its_layers(
    sound: torch.Tensor, tmp_path: Path
) -> None:
    encoder = HubertAudioEncoder(hubert(25), layers=[0, -1], normalize=False)
    build_model(encoder).save_pretrained(tmp_path)
    loaded = LipSyncModel.from_pretrained(tmp_path).audio_encoder
    assert isinstance(loaded, HubertAudioEncoder)
    assert (loaded.layers, loaded.normalize, loaded.rate) == ([0, -1], False, 25)
    torch.testing.assert_close(loaded(sound), encoder(sound))
    assert loaded.states_name == encoder.states_name


def test_a_name_is_that_of_weights_and_layers() -> None:
    names = [
        HubertAudioEncoder(hubert()).states_name,
        HubertAudioEncoder(hubert(seed=1)).states_name,
        HubertAudioEncoder(hubert(), layers=[-1]).states_name,
        HubertAudioEncoder(hubert(), normalize=False).states_name,
    ]
    assert len(set(names)) == 4
    assert names[0] == HubertAudioEncoder(hubert()).states_name
    assert all(name.startswith("hubert-") for name in names)


def test_missing_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"hubert-base-ls960.*or name the folder"):
        HubertAudioEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("config.json", {"model_type": "bert"}, "'bert'.*hubert or wav2vec2"),
        ("config.json", {"hidden_size": "many"}, "many"),
        ("config.json", {"hidden_size": 32}, "do not fit"),
        ("states.json", {"layers": [9]}, r"0 to 2.*\[9\]"),
        ("states.json", {"layers": "all"}, "all"),
        ("states.json", {"normalize": 3}, "3"),
    ],
)
def test_a_wrong_value_is_refused_with_its_file(
    tmp_path: Path, name: str, value: dict, said: str
) -> None:
    HubertAudioEncoder(hubert()).save(tmp_path)
    path = tmp_path / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **value}))
    with pytest.raises(ValueError, match=f"(?s){tmp_path.name}.*{said}"):
        HubertAudioEncoder.load(tmp_path)


def test_a_tensor_that_is_missing_is_no_random_one(tmp_path: Path) -> None:
    HubertAudioEncoder(hubert()).save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layer_norm.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 tensors.*encoder\.layer_norm\.weight"):
        HubertAudioEncoder.load(tmp_path)
