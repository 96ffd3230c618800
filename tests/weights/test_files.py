"""Every wrong file raises an error of one sentence that says what the file is."""

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentsync.weights import (
    export_official_unet,
    load_official_lr_asd,
    load_official_s3fd,
    load_official_syncnet,
    load_official_syncnet_v2,
    load_official_unet,
    load_official_vae,
    load_official_whisper,
)
from latentsync.weights.files import build, read, read_state
from weights.published import as_version_1_0, tiny_unet

LOADERS: dict[str, Callable] = {
    "UNet": load_official_unet,
    "SyncNet": load_official_syncnet,
    "VAE": load_official_vae,
    "Whisper": load_official_whisper,
    "SyncNet v2": load_official_syncnet_v2,
    "S3FD": load_official_s3fd,
    "LR-ASD": load_official_lr_asd,
}
FILES = {
    "UNet": "latentsync_unet.pt",
    "SyncNet": "stable_syncnet.pt",
    "VAE": "vae/diffusion_pytorch_model.safetensors",
    "Whisper": "whisper/tiny.pt",
}


@pytest.mark.parametrize("given", FILES)
@pytest.mark.parametrize("wanted", LOADERS)
def test_a_file_fits_its_own_loader_and_no_other(published: Path, wanted: str, given: str):
    path = published.parent / FILES[given]
    if wanted == given:
        LOADERS[wanted](path)
        return
    with pytest.raises(ValueError, match=rf"{FILES[given]}.* holds .*{given}"):
        LOADERS[wanted](path)


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter.pt"])
def test_a_lora_is_refused_with_what_to_do(tmp_path: Path, name: str):
    from safetensors.torch import save_file

    key = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
    state = {key: torch.zeros(4, 8)}
    if name.endswith("pt"):
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    with pytest.raises(ValueError, match=r"is a LoRA.*merge it"):
        load_official_unet(tmp_path / name)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil"),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "code.pt")
    for load in LOADERS.values():
        with pytest.raises(ValueError, match=r"code\.pt holds code.*is not opened"):
            load(tmp_path / "code.pt")
    assert not Path("evil").exists()


class Calls:
    """A pickle that would call a function."""

    def __init__(self, function: object, *words: object) -> None:
        self.call = function, words

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


CODE = {
    "os.system": Calls(os.system, "touch evil"),
    "eval": Calls(eval, "open('evil', 'w')"),
    "subprocess": Calls(subprocess.call, ["touch", "evil"]),
    "getattr": Calls(getattr, "", "join"),
    "path": Evil(),
}


@pytest.mark.parametrize("form", ["zip", "legacy", *(f"protocol {n}" for n in range(6))])
@pytest.mark.parametrize("name", CODE)
def test_whatever_a_pickle_calls_is_said_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"a.weight": CODE[name]}}
    if form.startswith("protocol"):
        Path("code.pt").write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        torch.save(content, "code.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"code\.pt holds code.*is not opened") as raised:
        read(Path("code.pt"))
    assert "weights_only" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("evil").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.999])
@pytest.mark.parametrize("kind", ["UNet", "VAE"])
def test_a_truncated_file_is_told_as_such(published: Path, tmp_path: Path, kind: str, share: float):
    whole = (published.parent / FILES[kind]).read_bytes()
    short = tmp_path / Path(FILES[kind]).name
    short.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cut short"):
        LOADERS[kind](short)


def test_half_precision_is_cast_to_the_nearest_floats(tmp_path: Path):
    net = tiny_unet()
    rounded = {key: value.half().float() for key, value in net.state_dict().items()}
    export_official_unet(net.half(), tmp_path / "half.pt")
    loaded = load_official_unet(tmp_path / "half.pt").state_dict()
    torch.testing.assert_close(loaded, rounded, rtol=0, atol=0)


def test_a_version_that_contradicts_the_names_is_refused(published: Path, tmp_path: Path):
    torch.save(as_version_1_0(read_state(published)), tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"as version 1\.0 did, but version 1\.5 was asked for"):
        load_official_unet(tmp_path / "old.pt", version="1.5")
    with pytest.raises(ValueError, match=r"as version 1\.5 and 1\.6 did, but version 1\.0"):
        load_official_unet(published, version="1.0")
    old = load_official_unet(tmp_path / "old.pt", version="1.0").state_dict()
    torch.testing.assert_close(old, load_official_unet(published).state_dict(), rtol=0, atol=0)


def test_what_is_missing_too_much_or_misshapen_is_named_as_in_the_file(
    published: Path, tmp_path: Path
):
    state = read_state(published)
    stem = "up_blocks.1.motion_modules.0.temporal_transformer."
    table = f"{stem}transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
    del state[table]
    state[f"{stem}norm.weight"] = torch.zeros(7)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"3 tensors of .* do not fit a UNet") as raised:
        load_official_unet(tmp_path / "wrong.pt")
    assert f"{table}: nothing in the file, (1, 24, 32) here" in str(raised.value)
    assert f"{stem}norm.weight: (7,) in the file, (32,) here" in str(raised.value)
    assert "extra.weight: (1,) in the file, nothing here" in str(raised.value)


def test_a_file_without_what_its_shape_is_read_off_is_refused(published: Path, tmp_path: Path):
    state = read_state(published)
    del state["down_blocks.0.resnets.0.conv2.weight"]
    torch.save(state, tmp_path / "holed.pt")
    with pytest.raises(ValueError, match=r"lacks .*down_blocks\.0\.resnets\.0\.conv2\.weight"):
        load_official_unet(tmp_path / "holed.pt")


def test_other_things_that_are_no_weights(tmp_path: Path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        load_official_unet(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match="is a folder, not a weight file"):
        load_official_unet(tmp_path)
    (tmp_path / "page.pt").write_text("<html>Not found</html>")
    with pytest.raises(ValueError, match=r"page\.pt is cut short or is no weight file"):
        load_official_unet(tmp_path / "page.pt")


def test_a_net_is_built_of_the_file_without_meta_tensors_left(published: Path):
    net = load_official_unet(published)
    assert not any(value.is_meta for value in [*net.parameters(), *net.buffers()])
    assert all(value.requires_grad for value in net.parameters())
    net.zero_grad()
    with pytest.raises(ValueError, match="do not fit a Linear"):
        build(lambda: torch.nn.Linear(2, 2), {}, "nothing")
