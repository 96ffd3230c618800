import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from latentsync.diffusion.sampler import Sampler
from latentsync.models import LatentCodec, LipSyncModel

SIDE, NUM_FRAMES = 32, 4  # of the model in conftest.py


def test_generating_in_chunks_equals_generating_at_once(model, faces, audio, generator):
    sampler = Sampler("dpmpp", 3, 1.5)
    noise = torch.randn(1, 4, 1, SIDE // 4, SIDE // 4, generator=generator)
    whole = model.generate(faces, audio, sampler=sampler, noise=noise)
    halves = [
        model.generate(face, sound, sampler=sampler, noise=noise)
        for face, sound in zip(
            faces.split(NUM_FRAMES, dim=1), audio.split(NUM_FRAMES, dim=1), strict=True
        )
    ]
    torch.testing.assert_close(torch.cat(halves, dim=1), whole)


def test_chunks_drawn_at_once_equal_chunks_drawn_one_by_one(model, faces, audio, generator):
    sampler = Sampler("dpmpp", 4, 1.5, guidance_interval=(0.25, 0.75), deepcache_interval=2)
    noise = torch.randn(1, 4, 1, SIDE // 4, SIDE // 4, generator=generator)
    pixels = torch.cat(faces.split(NUM_FRAMES, dim=1))
    sound = torch.cat(audio.split(NUM_FRAMES, dim=1))
    masked, seen = model.encode_faces(pixels)
    latents = model.generate_latents(
        masked, seen, sound, sampler=sampler, noise=noise.expand(2, -1, -1, -1, -1)
    )
    at_once = model.finish(latents, pixels, sampler=sampler)
    one_by_one = model.generate(faces, audio, sampler=sampler, noise=noise)
    together = torch.cat(list(at_once[:, None]), dim=1)
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)


def test_latents_of_a_face_do_not_depend_on_the_faces_beside_it(model, faces):
    whole = model.encode_faces(faces)
    picked = torch.tensor([6, 1, 1])
    for all_of_them, some in zip(whole, model.encode_faces(faces[:, picked]), strict=True):
        torch.testing.assert_close(all_of_them[:, :, picked], some)


def test_masked_latents_know_nothing_of_the_painted_part(model, faces):
    hidden = torch.where(model.mask == 0, torch.zeros_like(faces), faces)
    (masked, seen), (masked_hidden, seen_hidden) = map(model.encode_faces, (faces, hidden))
    assert torch.equal(masked, masked_hidden)
    assert not torch.allclose(seen, seen_hidden)


def other_in(latents, rows, columns):
    """The latents with other values in one box of cells, of 8 x 8."""
    out = latents.clone()
    out[..., slice(*rows), slice(*columns)] += 1.0
    return out


@pytest.mark.parametrize("reference_mouth", [True, False])
def test_a_format_without_the_references_mouth_hides_it_from_the_network(
    model, faces, audio, reference_mouth
):
    """In generation and in training; what of the reference lies beside it is seen either way."""
    model.format = replace(model.format, reference_mouth=reference_mouth)
    with torch.no_grad():
        model.unet.conv_out.weight.normal_(generator=torch.Generator().manual_seed(0))
    audio = audio[:, :NUM_FRAMES]
    masked, seen = model.encode_faces(faces[:, :NUM_FRAMES])
    noise = torch.ones(1, 4, 1, SIDE // 4, SIDE // 4)

    def generated(reference):
        sampler = Sampler("ddim", 1, 1.0)
        return model.generate_latents(masked, reference, audio, sampler=sampler, noise=noise)

    @torch.no_grad()
    def predicted(reference):
        stored = {"latents": seen, "masked_latents": masked, "reference_latents": reference}
        batch = {name: latents.transpose(1, 2) for name, latents in stored.items()}
        generator = torch.Generator().manual_seed(0)
        return model.denoise({**batch, "audio": audio}, generator=generator).prediction

    mouth, beside = other_in(seen, (5, 7), (3, 5)), other_in(seen, (0, 2), (3, 5))
    for result in (generated, predicted):
        assert torch.equal(result(seen), result(mouth)) != reference_mouth
        assert not torch.equal(result(seen), result(beside))


@pytest.mark.parametrize(
    ("interval", "whole", "shallow"), [(1, [1, 2, 2, 1], 0), (2, [1, 2, 2], 1), (4, [1, 2], 3)]
)
def test_steps_outside_the_guided_interval_take_one_pass(
    model, faces, audio, interval, whole, shallow
):
    """The cache is valid until guidance begins, since it lacks the half without audio."""
    sampler = Sampler("ddim", 4, 1.5, guidance_interval=(0.25, 0.75), deepcache_interval=interval)
    clips: dict[str, list[int]] = {"mid_block": [], "conv_in": []}
    for name, counts in clips.items():
        getattr(model.unet, name).register_forward_pre_hook(
            lambda _, inputs, counts=counts: counts.append(len(inputs[0]) // NUM_FRAMES)
        )
    noise = torch.ones(1, 4, 1, SIDE // 4, SIDE // 4)
    chunk = faces[:, :NUM_FRAMES], audio[:, :NUM_FRAMES]
    model.generate(*chunk, sampler=sampler, noise=noise)
    assert clips["mid_block"] == whole
    assert sum(clips["conv_in"]) - sum(whole) == shallow
    assert sampler.passes() == (sum(whole), shallow)


def test_an_empty_guided_interval_is_no_guidance(model, faces, audio):
    arguments = {"noise": torch.ones(1, 4, 1, SIDE // 4, SIDE // 4)}
    none, never, always = (
        model.generate(faces, audio, sampler=sampler, **arguments)
        for sampler in (
            Sampler("ddim", 3, 1.0),
            Sampler("ddim", 3, 2.5, guidance_interval=(0.5, 0.5)),
            Sampler("ddim", 3, 2.5),
        )
    )
    assert torch.equal(none, never)
    assert not torch.allclose(none, always)


def test_a_cast_model_draws_nearly_the_same_and_gives_back_float32(model, faces, audio):
    arguments = {"sampler": Sampler("dpmpp", 4, 1.5), "noise": torch.ones(1, 4, 1, 8, 8)}
    exact = model.generate(faces, audio, **arguments)
    drawn = model.to("cpu", torch.bfloat16).generate(faces, audio, **arguments)
    assert drawn.dtype == torch.float32
    assert not torch.equal(drawn, exact)
    assert (drawn - exact).abs().mean() < 0.02


def test_generating_keeps_what_the_mask_keeps(model, faces, audio, generator):
    result = model.generate(faces, audio, sampler=Sampler("ddim", 1, 1.0), generator=generator)
    kept = (model.mask == 1).expand_as(faces)
    assert torch.equal(result[kept], faces[kept])
    painted = (model.mask == 0).expand_as(faces)
    assert not torch.allclose(result[painted], faces[painted])


def test_the_painted_pixels_of_the_source_are_not_seen_when_the_reference_is_another(
    model, faces, audio, generator
):
    hidden = torch.where(model.mask == 0, torch.zeros_like(faces), faces)
    arguments = {
        "sampler": Sampler("ddim", 2, 1.5),
        "reference": faces.flip(1),
        "noise": torch.randn(1, 4, 1, SIDE // 4, SIDE // 4, generator=generator),
    }
    seen = model.generate(faces, audio, **arguments)
    unseen = model.generate(hidden, audio, **arguments)
    painted = (model.mask == 0).expand_as(faces)
    torch.testing.assert_close(seen[painted], unseen[painted])


def test_denoising_cached_latents_equals_denoising_pixels(model, faces, audio):
    truth, reference = faces[:, :NUM_FRAMES], faces[:, NUM_FRAMES:]
    mask = model.mask.expand(1, NUM_FRAMES, 1, SIDE, SIDE)
    pixels = {"pixels": truth, "reference": reference, "mask": mask}
    cached = {
        name: model.encode(value).permute(0, 2, 1, 3, 4)
        for name, value in {
            "latents": truth,
            "masked_latents": truth * mask,
            "reference_latents": reference,
        }.items()
    }
    one, other = (
        model.denoise(
            {**batch, "audio": audio[:, :NUM_FRAMES]}, generator=torch.Generator().manual_seed(3)
        )
        for batch in (pixels, cached)
    )
    torch.testing.assert_close(one.prediction, other.prediction)
    torch.testing.assert_close(one.target, other.target)


def test_codec_scales_by_the_stored_mean_and_deviation(model, faces):
    codec, frames = model.codec, faces[0]
    with torch.no_grad():
        raw = codec.vae.net.encode(frames).latent_dist.mode()
    torch.testing.assert_close(codec.encode(frames)[:, 2], (raw[:, 2] - 0.3) / 2.0)
    with torch.no_grad():
        torch.testing.assert_close(
            codec.decode(codec.encode(frames)), codec.vae.net.decode(raw).sample
        )


def test_a_folder_gives_back_the_model(model, faces, audio, tmp_path):
    model.save_pretrained(tmp_path / "model")
    loaded = LipSyncModel.from_pretrained(tmp_path / "model")
    assert loaded.format == model.format
    for name, value in model.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value)
    arguments = {"sampler": Sampler("ddim", 2, 1.5)}
    torch.testing.assert_close(
        loaded.generate(faces, audio, generator=torch.Generator().manual_seed(1), **arguments),
        model.generate(faces, audio, generator=torch.Generator().manual_seed(1), **arguments),
    )


def test_new_motion_modules_change_nothing_at_first(model, faces, audio, tmp_path):
    model.save_pretrained(tmp_path)
    arguments = {"sampler": Sampler("ddim", 1, 1.0)}
    for motion in ("decoder", "all"):
        moving = LipSyncModel.with_motion(tmp_path, motion=motion)
        assert any(".motion_modules." in name for name in moving.unet.state_dict())
        moving.unet.eval()
        torch.testing.assert_close(
            moving.generate(faces, audio, generator=torch.Generator().manual_seed(1), **arguments),
            model.generate(faces, audio, generator=torch.Generator().manual_seed(1), **arguments),
        )


def test_a_folder_of_another_version_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        LipSyncModel.from_pretrained(tmp_path)


def test_a_missing_tensor_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.weight"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"conv_in\.weight"):
        LipSyncModel.from_pretrained(tmp_path)


def test_a_truncated_file_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged"):
        LipSyncModel.from_pretrained(tmp_path)


def test_no_folder_and_no_model_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        LipSyncModel.from_pretrained(tmp_path)


def test_a_unet_and_a_vae_that_do_not_fit(model):
    with pytest.raises(ValueError, match="13 channels"):
        LipSyncModel(
            unet=model.unet,
            codec=LatentCodec(AutoencoderKL(latent_channels=8)),
            audio_encoder=model.audio_encoder,
            process=model.process,
            model_format=model.format,
        )
