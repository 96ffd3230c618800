"""Latents on disk equal the VAE's encoding of the clips' frames."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from latentsync.data import ClipDataset, Items, attach_latents, read_manifest
from latentsync.models.codec import LatentCodec
from latentsync.prepare import Recipe, encode_latents, prepare_clips

pytestmark = pytest.mark.filterwarnings("ignore:.*low_cpu_mem_usage")


def save_vae(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.7,
        shift_factor=0.1,
    )
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def data_dir(raw_dir: Path, recipe: Recipe, tmp_path: Path) -> Path:
    prepare_clips(raw_dir, tmp_path / "set", stages=recipe.stages())
    return tmp_path / "set"


@pytest.fixture
def vae_dir(tmp_path: Path) -> Path:
    return save_vae(tmp_path / "vae", seed=0)


def test_an_item_holds_the_latents_of_its_own_frames(data_dir: Path, vae_dir: Path):
    encode_latents(data_dir, vae_dir)
    codec = LatentCodec.from_pretrained(vae_dir)
    dataset = ClipDataset(read_manifest(data_dir), Items(with_latents=True, samples_per_clip=3))
    for index in (0, 5, 11):
        item = dataset[index]
        kept = item["pixels"] * item["mask"]
        for name, pixels in (
            ("latents", item["pixels"]),
            ("masked_latents", kept),
            ("reference_latents", item["reference"]),
        ):
            # Half precision has eleven bits.
            torch.testing.assert_close(item[name], codec.encode(pixels), atol=4e-3, rtol=1e-3)


def test_batches_of_latents_need_no_video(data_dir: Path, vae_dir: Path):
    encode_latents(data_dir, vae_dir)
    for path in (data_dir / "clips").iterdir():
        path.write_bytes(b"")
    dataset = ClipDataset(
        read_manifest(data_dir),
        Items(num_frames=4, with_latents=True, with_pixels=False, with_mel=False),
    )
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["latents"].shape == batch["reference_latents"].shape == (2, 4, 4, 32, 32)
    assert "pixels" not in batch


def test_an_interrupted_encoding_goes_on(data_dir: Path, vae_dir: Path, monkeypatch):
    class InterruptedRunError(Exception):
        pass

    calls = []
    encode = LatentCodec.encode

    def encode_two_clips(codec: LatentCodec, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) > 9:  # a clip takes two batches of truth and two of masked frames
            raise InterruptedRunError
        return encode(codec, pixels)

    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
        patch.setattr(LatentCodec, "encode", encode_two_clips)
        encode_latents(data_dir, vae_dir)
    with pytest.raises(FileNotFoundError, match="2 of 4 clips have no latents"):
        attach_latents(read_manifest(data_dir), True)
    folder = encode_latents(data_dir, vae_dir)
    clips = attach_latents(read_manifest(data_dir), True)
    assert len(list(folder.glob("*.safetensors"))) == 4
    assert [len(load_file(clip.latents_path)["latents"]) for clip in clips] == [55, 60, 55, 60]


def test_latents_of_two_vaes_stand_apart(data_dir: Path, vae_dir: Path, tmp_path: Path):
    other = save_vae(tmp_path / "other" / "vae", seed=1)
    first, second = encode_latents(data_dir, vae_dir), encode_latents(data_dir, other)
    assert first != second
    clips = read_manifest(data_dir)
    with pytest.raises(ValueError, match="latents of 2 VAEs"):
        attach_latents(clips, True)
    assert attach_latents(clips, second.name)[0].latents_path.parent == second
    assert attach_latents(clips, second)[0].latents_path.parent == second


def test_another_mask_is_refused_with_both_names(data_dir: Path, vae_dir: Path):
    encode_latents(data_dir, vae_dir)
    with pytest.raises(ValueError, match='mask was "mask", is now "mask2"'):
        encode_latents(data_dir, vae_dir, mask="mask2")
    with pytest.raises(ValueError, match="mask=mask, this data set asks for mask=mask2"):
        ClipDataset(read_manifest(data_dir), Items(with_latents=True, mask="mask2"))


def test_a_folder_without_a_vae_is_named(data_dir: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no VAE in"):
        encode_latents(data_dir, tmp_path)
