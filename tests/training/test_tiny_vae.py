"""A tiny VAE that replaces the model's in pixel losses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny

from latentsync.training.tasks.diffusion import decode_truth
from training.test_diffusion_task import NUM_FRAMES, SIDE, guess_of, task_of, tiny_model


class Difference:
    """A loss that compares pixels with the ground truth, like LPIPS and TREPA."""

    reads = frozenset({"pixels", "truth"})

    def __call__(self, denoised, batch):
        return (denoised.pixels - batch["pixels"]).square().mean()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "taesd")
    return tmp_path / "taesd"


@pytest.fixture
def batch(generator) -> dict[str, torch.Tensor]:
    """Like data=latents: without pixels."""
    shape = (4, NUM_FRAMES, 4, SIDE // 2, SIDE // 2)
    names = ("latents", "masked_latents", "reference_latents")
    latents = {name: torch.randn(shape, generator=generator) for name in names}
    return {**latents, "audio": torch.randn(4, NUM_FRAMES, 3, 16, generator=generator)}


def perfect(denoised, truth):
    """The prediction of a network that knows the noise."""
    return replace(denoised, prediction=denoised.target, x0=truth)


def test_it_decodes_and_the_whole_vae_does_not(folder, batch, monkeypatch):
    task = task_of(tiny_model(), losses={"difference": Difference()}, tiny_vae=folder)
    monkeypatch.setattr(task.model.codec.vae.net, "decode", None)
    denoised = guess_of(task, batch)
    value = task._values(denoised, batch)["difference"]
    tiny = AutoencoderTiny.from_pretrained(folder)
    truth = batch["latents"].transpose(1, 2)
    with torch.no_grad():
        drawn, wanted = (
            tiny.decode(latents.transpose(1, 2).flatten(0, 1)).sample
            for latents in (denoised.x0, truth)
        )
    assert value.item() == pytest.approx((drawn - wanted).square().mean().item(), rel=1e-3)
    value.backward()
    assert max(grad.grad.abs().max() for grad in task.unet.parameters()) > 0
    assert all(grad.grad is None for grad in task.tiny.vae.net.parameters())


def test_a_perfect_prediction_has_no_error_whatever_the_tiny_vae_cannot_draw(folder, batch):
    task = task_of(tiny_model(), losses={"difference": Difference()}, tiny_vae=folder)
    denoised = guess_of(task, batch)
    best = perfect(denoised, batch["latents"].transpose(1, 2))
    assert task._values(best, batch)["difference"].item() == pytest.approx(0, abs=1e-6)
    assert task._values(denoised, batch)["difference"].item() > 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_truth_is_found_again_in_the_target_of_every_kind(batch, kind):
    model = tiny_model()
    model.process.scheduler.register_to_config(prediction_type=kind)
    task = task_of(model)
    denoised = guess_of(task, batch)
    seen = []

    def decode(latents):
        seen.append(latents)
        return torch.zeros(4, NUM_FRAMES, 3, SIDE, SIDE)

    decode_truth(replace(denoised, decode=decode), model)
    # At t = 999 rounding errors are 14.6 times those of the noise.
    expected = batch["latents"].transpose(1, 2)
    torch.testing.assert_close(seen[0], expected, atol=1e-4, rtol=0)


def test_only_clear_clips_are_decoded(folder, batch):
    task = task_of(tiny_model(), losses={"difference": Difference()}, tiny_vae=folder)
    denoised = guess_of(task, batch)
    limit = int(denoised.timesteps.sort().values[2])
    kept = denoised.timesteps <= limit
    task.max_x0_timestep = limit
    value = task._values(denoised, batch)["difference"]
    decode = task.tiny.decode_clips
    truth = batch["latents"].transpose(1, 2)[kept]
    expected = (decode(denoised.x0[kept]) - decode(truth)).square().mean() * 3 / 4
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-3)


def test_latents_of_another_width_are_refused(tmp_path):
    vae = AutoencoderTiny(
        encoder_block_out_channels=(4,), decoder_block_out_channels=(4,),
        num_encoder_blocks=(1,), num_decoder_blocks=(1,),
    )  # fmt: skip
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="1 pixels wide; the model's have 4 and 2"):
        task_of(tiny_model(), tiny_vae=tmp_path)
