"""Audio states of several encoders in one set, and which of them an item holds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig

from latentsync.data import AudioStates, ClipDataset, Items, attach_states, read_manifest
from latentsync.models import MelAudioEncoder, WhisperAudioEncoder, frame_tokens
from latentsync.prepare import Recipe, encode_audio, prepare_clips
from latentsync.prepare.states import heard


def tiny_whisper(seed: int) -> WhisperAudioEncoder:
    torch.manual_seed(seed)
    return WhisperAudioEncoder.from_config(
        WhisperConfig(
            d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, vocab_size=8
        )
    )


@pytest.fixture
def data_dir(raw_dir: Path, recipe: Recipe, tmp_path: Path) -> Path:
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    return tmp_path / "set"


def test_an_item_holds_the_states_of_the_encoder_that_is_asked_for(data_dir: Path):
    first, second = tiny_whisper(0), tiny_whisper(1)
    folders = [encode_audio(data_dir, encoder) for encoder in (first, second)]
    assert [folder.parent for folder in folders] == [data_dir / "features"] * 2
    clips = read_manifest(data_dir)
    for encoder in (first, second):
        dataset = ClipDataset(clips, Items(with_audio=AudioStates(encoder.states_name)))
        item = dataset[1]
        frames = int(item["start"]) + torch.arange(16)
        expected = frame_tokens(encoder(heard(clips[1])), frames)
        torch.testing.assert_close(item["audio"], expected, atol=2e-3, rtol=1e-3)  # half precision
    own = ClipDataset(clips, Items(with_audio=AudioStates("mel")))
    assert torch.equal(own[2]["audio"], ClipDataset(clips)[2]["audio"])


def test_sound_is_as_long_as_the_picture(data_dir: Path):
    clips = read_manifest(data_dir)
    encode_audio(data_dir, tiny_whisper(0))
    (folder,) = (path for path in (data_dir / "features").iterdir() if path.is_dir())
    for clip in clips:
        states = load_file(folder / f"{clip.name}.safetensors")["audio"]
        assert states.shape == (2 * clip.num_frames, 2, 8)


def test_states_of_the_clip_s_own_sound_are_those_of_the_raw_one(data_dir: Path):
    """AAC in between: nothing is earlier, later or louder."""
    for clip in read_manifest(data_dir):
        states = load_file(clip.features_path)["audio"].float()
        again = MelAudioEncoder()(heard(clip))
        both = torch.stack([states.flatten(), again.flatten()])
        if both[0].std() > 0:  # two of the clips are silent
            assert torch.corrcoef(both)[0, 1] > 0.999
        assert (both[0] - both[1]).abs().mean() < 0.005


def test_a_name_is_that_of_the_weights(tmp_path: Path):
    first = tiny_whisper(0)
    first.net.net.save_pretrained(tmp_path / "copy")
    copy = WhisperAudioEncoder.load(tmp_path / "copy")
    assert copy.states_name == first.states_name != tiny_whisper(1).states_name
    assert MelAudioEncoder().states_name == "mel"


@pytest.mark.parametrize("spoil", ["interrupted", "deleted"])
def test_what_is_missing_is_made_when_the_command_is_typed_again(data_dir: Path, spoil: str):
    whisper = tiny_whisper(0)
    wanted = AudioStates(whisper.states_name, "audio_encoder=whisper audio_encoder.folder=F")
    clips = read_manifest(data_dir)
    if spoil == "interrupted":

        class Stops(WhisperAudioEncoder):
            """Two clips, then the process stops."""

            left = 2

            def __call__(self, waveform, *, overlap=True):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                return super().__call__(waveform)

        with pytest.raises(KeyboardInterrupt):
            encode_audio(data_dir, Stops(whisper.net.net))
        missing = "2 of 4"
    else:
        folder = encode_audio(data_dir, whisper)
        (folder / f"{clips[3].name}.safetensors").unlink()
        missing = "1 of 4"
    with pytest.raises(FileNotFoundError) as raised:
        attach_states(clips, wanted)
    assert str(raised.value).startswith(f"{missing} clips of {data_dir} have no audio states of")
    assert str(raised.value).endswith(
        f"python prepare.py stage=features output='{data_dir}' "
        "audio_encoder=whisper audio_encoder.folder=F"
    )
    encode_audio(data_dir, whisper)
    assert {clip.states_path.is_file() for clip in attach_states(clips, wanted)} == {True}


def test_a_set_that_says_nothing_of_its_encoder_still_loads(data_dir: Path):
    """Like sets from before features recorded their encoder."""
    clips = read_manifest(data_dir)
    for clip in clips:
        save_file(load_file(clip.features_path), clip.features_path)
    assert attach_states(clips, AudioStates("mel")) == clips  # recognised by their shape
    with pytest.raises(FileNotFoundError, match="prepared with mel"):
        attach_states(clips, AudioStates("whisper-12345678"))
    for clip in clips:  # of an unknown Whisper: assumed to be the one that training asks for
        features = load_file(clip.features_path)
        save_file({**features, "audio": torch.zeros(100, 5, 8).half()}, clip.features_path)
    assert attach_states(clips, AudioStates("whisper-12345678")) == clips


def test_a_set_prepared_with_a_whisper_needs_nothing_more(raw_dir: Path, tmp_path: Path, recipe):
    from dataclasses import replace
    from functools import partial

    tiny_whisper(0).net.net.save_pretrained(tmp_path / "whisper")
    make = partial(WhisperAudioEncoder.load, tmp_path / "whisper")
    prepare_clips(
        raw_dir, tmp_path / "set", stages=replace(recipe, make_audio_encoder=make).stages()
    )
    clips = read_manifest(tmp_path / "set")
    assert attach_states(clips, AudioStates(make().states_name)) == clips
    with pytest.raises(FileNotFoundError, match="prepared with whisper-"):
        attach_states(clips, AudioStates("mel", "audio_encoder=mel"))
    encode_audio(tmp_path / "set", MelAudioEncoder())
    item = ClipDataset(clips, Items(with_audio=AudioStates("mel")))[0]
    assert item["audio"].shape == (16, 20, 80)
