"""Untrusted model folders: errors in their config files are reported in one line with the file."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig

from latentsync.models import (
    LatentCodec,
    LipSyncModel,
    ModelFormat,
    MouthReader,
    StableSyncNet,
    WhisperAudioEncoder,
    load_network,
    load_syncnet,
    save_network,
)
from models.tiny import build_model

FILES = {
    "config.json": LipSyncModel.from_pretrained,
    "unet/config.json": LipSyncModel.from_pretrained,
    "vae/config.json": LipSyncModel.from_pretrained,
    "audio_encoder/config.json": LipSyncModel.from_pretrained,
    "syncnet/config.json": lambda folder: load_syncnet(folder / "syncnet"),
    "mouth_reader/config.json": lambda folder: load_network(MouthReader, folder / "mouth_reader"),
    "sd_vae/config.json": lambda folder: LatentCodec.from_pretrained(folder / "sd_vae"),
}


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def replaced(fits: Callable[[object], bool], by: object) -> Callable[[str], str]:
    """Every value of a kind, at any depth, replaced; names of versions and classes are kept."""

    def change(value: object) -> object:
        if isinstance(value, dict):
            kept = ("training", "format_version")
            return {k: v if k in kept or k[0] == "_" else change(v) for k, v in value.items()}
        if fits(value):
            return by
        return [change(part) for part in value] if isinstance(value, list) else value

    return lambda text: json.dumps(change(json.loads(text)))


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "page": lambda text: "<html>Not found</html>",
    "list": lambda text: "[]",
    "list of it": lambda text: f"[{text}]",
    "null": lambda text: "null",
    "number": lambda text: "3",
    "text": lambda text: '"openai/whisper-tiny"',
    "deep": lambda text: "[" * 100_000 + "]" * 100_000,
    "endless": lambda text: text.replace("{", '{"more": "' + "a" * 2_000_000 + '",', 1),
    "huge": replaced(whole, 10**12),
    "large": replaced(whole, 10**6),
    "negative": replaced(whole, -3),
    "texts for numbers": replaced(whole, "8"),
    "no number": replaced(lambda value: isinstance(value, int | float), float("nan")),
    "nothing for lists": replaced(lambda value: isinstance(value, list) and value != [], []),
    "numbers for texts": replaced(lambda value: isinstance(value, str), 3),
    "objects for numbers": replaced(whole, {}),
}
# They have no such values, or none that affect anything.
HARMLESS = {
    ("config.json", "nothing for lists"),
    ("audio_encoder/config.json", "nothing for lists"),
    ("syncnet/config.json", "numbers for texts"),
    ("mouth_reader/config.json", "numbers for texts"),
}


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    tiny_model().save_pretrained(folder)
    shared = {"attn_blocks": [0, 0], "dropout": 0.0, "block_out_channels": [8, 16]}
    syncnet = StableSyncNet(
        {**shared, "in_channels": 1, "downsample_factors": [[80, 52], 1]},
        {**shared, "in_channels": 48, "downsample_factors": [[16, 32], 1]},
        resolution=32,
    )
    save_network(syncnet, folder / "syncnet")
    save_network(MouthReader(resolution=64, block_out_channels=(8, 8)), folder / "mouth_reader")
    shutil.copytree(folder / "vae", folder / "sd_vae")
    return folder


def tiny_model() -> LipSyncModel:
    config = WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
    )  # fmt: skip
    return build_model(WhisperAudioEncoder.from_config(config))


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage, without network access."""

    def asked(*words: object, **named: object) -> None:
        raise AssertionError(f"a network was asked for: {words}")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    shutil.copytree(whole_folder, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", FILES)
def test_what_was_written_loads(folder: Path, name: str) -> None:
    FILES[name](folder)


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", FILES)
def test_a_broken_config_is_one_line_with_its_file(folder: Path, name: str, broken: str) -> None:
    path = folder / name
    path.write_text(BROKEN[broken](path.read_text()))
    if (name, broken) in HARMLESS:
        return
    with pytest.raises(ValueError, match=path.parent.name) as raised:
        FILES[name](folder)
    told = str(raised.value)
    assert "\n" not in told
    assert len(told) < 900


@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_no_text(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        FILES[name](folder)


@pytest.mark.parametrize("name", FILES)
def test_a_config_without_one_of_its_values(folder: Path, name: str) -> None:
    """It loads with a default, or is rejected in one line."""
    path = folder / name
    values = json.loads(path.read_text())
    for key in values:
        path.write_text(json.dumps({k: v for k, v in values.items() if k != key}))
        try:
            FILES[name](folder)
        except ValueError as error:
            assert "\n" not in str(error)
            assert str(folder) in str(error)
    path.write_text("{}")
    with pytest.raises(ValueError, match=path.parent.name):
        FILES[name](folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", -256), ("resolution", 0), ("resolution", 10**5), ("resolution", 256.5),
        ("resolution", "256"), ("resolution", True), ("resolution", None), ("resolution", 33),
        ("num_frames", 0), ("num_frames", -16), ("num_frames", [16]),
        ("fps", 0), ("fps", -25.0), ("fps", 1e9), ("fps", "25"), ("fps", None),
        ("mask", "none"), ("mask", 1), ("mask", ["mask"]), ("mask", "../mask"),
        ("aligner", "os.system"), ("aligner", {}), ("aligner", None),
        ("audio_before", -1), ("audio_after", 10**6), ("noise_alpha", -1), ("noise_alpha", "1"),
        ("audio_encoder", {"name": "wav2vec"}), ("audio_encoder", {}), ("audio_encoder", "mel"),
        ("audio_encoder", {"name": ["mel"]}), ("scheduler", []), ("scheduler", {"name": "os"}),
        ("scheduler", {"num_train_timesteps": 0}), ("scheduler", {"num_train_timesteps": -1}),
        ("scheduler", {"beta_end": 7.0}), ("scheduler", {"beta_schedule": "none"}),
        ("scheduler", {"prediction_type": "mouth"}), ("training", []),
        ("format_version", "1"), ("format_version", None),
    ],
)  # fmt: skip
def test_a_value_that_no_model_has_is_refused_with_it(
    folder: Path, name: str, value: object
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=str(folder)) as raised:
        LipSyncModel.from_pretrained(folder)
    told = str(raised.value)
    assert "\n" not in told
    wrong = list(value.values())[-1] if isinstance(value, dict) and value else value
    shown = [json.dumps(wrong), repr(wrong), str(wrong)]
    assert name.replace("_", " ") in told.replace("_", " ") or any(text in told for text in shown)


def test_a_config_may_hold_more_than_it_must(folder: Path) -> None:
    for name, load in FILES.items():
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), "trained_on": "drawn"}))
        load(folder)


@pytest.mark.parametrize("name", ["resolution", "fps", "mask"])
def test_a_format_is_checked_wherever_it_comes_from(name: str) -> None:
    value = "-1" if name == "mask" else -1
    with pytest.raises(ValueError, match=rf"{name}.*-1"):
        ModelFormat(**{name: value})
