"""A trained model that gets another VAE."""

import json

import pytest
import torch
from transformers import WhisperConfig

from latentsync.models import (
    CentredMelAudioEncoder,
    LatentCodec,
    LipSyncModel,
    MelAudioEncoder,
    UNet,
    WhisperAudioEncoder,
)
from latentsync.models.adapted import recording_of, with_vae
from models.tiny import build_model


@pytest.fixture
def folder(tmp_path):
    """A model whose UNet has motion modules that do something, and a VAE with other weights."""
    model = build_model(MelAudioEncoder())
    unet = UNet.from_config({**model.unet.config, "motion": "decoder"}).eval()
    for value in unet.parameters():  # the last layers of motion modules start at zero
        torch.nn.init.normal_(value, std=0.1)
    model.unet = unet
    model.training = {"steps": 7}
    model.save_pretrained(tmp_path / "model")
    other = LatentCodec.from_pretrained(tmp_path / "model" / "vae")
    with torch.no_grad():
        other.vae.net.decoder.conv_out.bias.fill_(3.0)
    other.vae.net.save_pretrained(tmp_path / "vae")
    return tmp_path


def test_the_vae_and_the_recording_are_new_and_the_unet_is_the_models(folder):
    before = LipSyncModel.from_pretrained(folder / "model")
    after = with_vae(
        folder / "model", vae=folder / "vae", adapted_to={"video": "me.mp4", "sha256": "0"}
    )
    assert after.codec.vae.net.decoder.conv_out.bias.tolist() == [3.0] * 3
    assert before.unet.state_dict().keys() == after.unet.state_dict().keys()
    assert recording_of(before) is None
    assert recording_of(after) == {"video": "me.mp4", "sha256": "0"}
    assert after.training["steps"] == 7


def test_without_motion_frames_are_drawn_one_by_one_by_the_same_weights(folder):
    model = with_vae(folder / "model", vae=folder / "vae", keep_motion=False)
    kept = LipSyncModel.from_pretrained(folder / "model").unet.state_dict()
    plain = model.unet.state_dict()
    assert plain.keys() == {name for name in kept if ".motion_" not in name}
    assert all(torch.equal(value, kept[name]) for name, value in plain.items())
    assert model.unet.config.motion == "none"
    # The folder of the plain model can be read again.
    model.save_pretrained(folder / "plain")
    again = LipSyncModel.from_pretrained(folder / "plain").unet
    assert again.state_dict().keys() == plain.keys()


def test_the_mouth_of_the_reference_is_hidden_if_asked_and_stays_hidden(folder):
    assert with_vae(folder / "model", vae=folder / "vae").format.reference_mouth
    hidden = with_vae(folder / "model", vae=folder / "vae", reference_mouth=False)
    hidden.save_pretrained(folder / "hidden")
    again = with_vae(folder / "hidden", vae=folder / "vae")
    assert not again.format.reference_mouth
    assert not LipSyncModel.with_motion(folder / "hidden", motion="all").format.reference_mouth


def test_a_folder_of_an_older_version_shows_the_mouth_of_the_reference(folder):
    path = folder / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["reference_mouth"]
    path.write_text(json.dumps(config))
    assert LipSyncModel.from_pretrained(folder / "model").format.reference_mouth


def test_another_encoder_like_its_own(folder):
    model = with_vae(folder / "model", vae=folder / "vae", audio_encoder=CentredMelAudioEncoder())
    model.save_pretrained(folder / "centred")
    again = LipSyncModel.from_pretrained(folder / "centred")
    assert again.audio_encoder.states_name == "centred_mel"
    before = LipSyncModel.from_pretrained(folder / "model")
    assert before.audio_encoder.states_name == "mel"
    assert before.unet.state_dict().keys() == again.unet.state_dict().keys()


def test_an_encoder_of_other_states_is_refused(folder):
    encoder = WhisperAudioEncoder.from_config(
        WhisperConfig(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32)
    )
    with pytest.raises(ValueError, match=r"whisper makes states of \(50, 3, 16\).*\(50, 2, 80\)"):
        with_vae(folder / "model", vae=folder / "vae", audio_encoder=encoder)
