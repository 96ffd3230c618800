"""The switches of a diffusion task, tested by their effects."""

from functools import partial

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from einops import rearrange

from latentsync.diffusion import DDPM
from latentsync.models import LatentCodec, LipSyncModel, MelAudioEncoder, ModelFormat, UNet
from latentsync.models.denoised import latents_of
from latentsync.training import DiffusionTask
from latentsync.training.tasks.diffusion import generate_latents

SIDE, NUM_FRAMES = 16, 2


def tiny_model(*, motion: str = "all") -> LipSyncModel:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )
    unet = UNet(
        in_channels=13,
        out_channels=4,
        block_out_channels=(8, 16),
        attention_levels=(False, True),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion=motion,
    )
    for value in unet.parameters():  # the last layers of motion modules start at zero
        torch.nn.init.normal_(value, std=0.1)
    return LipSyncModel(
        unet=unet,
        codec=LatentCodec(vae),
        audio_encoder=MelAudioEncoder(),
        process=DDPM(DDIMScheduler(clip_sample=False)),
        model_format=ModelFormat(resolution=SIDE),
    )


class Brightness:
    """A loss on decoded frames: their mean square."""

    reads = frozenset({"pixels"})

    def __call__(self, denoised, batch):
        assert len(denoised.pixels) == len(batch["pixels"])
        return denoised.pixels.square().mean()


class Mean:
    """The mean of the prediction, a loss that is valid at any timestep."""

    reads = frozenset({"latents"})

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, denoised, batch):
        self.seen.append(denoised.noisy)
        return denoised.prediction.mean()


def task_of(model: LipSyncModel, **switches) -> DiffusionTask:
    losses = switches.pop("losses", {"bright": Brightness()})
    weights = switches.pop("weights", {})
    return DiffusionTask(
        model,
        losses={
            name: {"weight": weights.get(name, 1.0), "loss": loss} for name, loss in losses.items()
        },
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
        **switches,
    )


@pytest.fixture
def batch(generator) -> dict[str, torch.Tensor]:
    shape = (4, NUM_FRAMES, 3, SIDE, SIDE)
    mask = torch.ones(4, NUM_FRAMES, 1, SIDE, SIDE)
    mask[..., SIDE // 2 :, :] = 0
    return {
        "pixels": torch.rand(shape, generator=generator) * 2 - 1,
        "reference": torch.rand(shape, generator=generator) * 2 - 1,
        "mask": mask,
        "audio": torch.randn(4, NUM_FRAMES, 3, 16, generator=generator),
    }


def guess_of(task: DiffusionTask, batch):
    return task.model.denoise(batch, generator=torch.Generator().manual_seed(1))


def kept_bytes(task: DiffusionTask, batch) -> tuple[int, list[torch.Tensor]]:
    """Bytes that the forward pass saves for the backward pass, and the resulting gradients."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.losses["bright"](guess_of(task, batch), batch)
    loss.backward()
    return kept, [value.grad for value in task.unet.parameters()]


def test_checkpointing_keeps_less_and_changes_no_gradient(batch):
    plain = task_of(tiny_model())
    spared = task_of(tiny_model(), gradient_checkpointing=True)
    kept, gradients = kept_bytes(plain, batch)
    kept_less, same_gradients = kept_bytes(spared, batch)
    assert kept_less < kept / 2
    torch.testing.assert_close(same_gradients, gradients)


def test_clips_noised_too_far_count_as_nothing_in_losses_of_decoded_frames(batch):
    task = task_of(tiny_model())
    denoised = guess_of(task, batch)
    limit = int(denoised.timesteps.sort().values[2])
    kept = denoised.timesteps <= limit
    assert kept.sum() == 3
    task.max_x0_timestep = limit
    expected = denoised.pixels[kept].square().mean() * 3 / 4
    torch.testing.assert_close(task._values(denoised, batch)["bright"], expected)
    task.max_x0_timestep = -1
    none = task._values(denoised, batch)["bright"]
    none.backward()
    assert none.item() == 0
    assert all(value.grad.abs().sum() == 0 for value in task.unet.parameters())


def test_losses_of_the_prediction_see_every_clip(batch):
    task = task_of(tiny_model(), losses={"all": Mean()})
    denoised = guess_of(task, batch)
    task.max_x0_timestep = -1
    assert task._values(denoised, batch)["all"] == denoised.prediction.mean()


def test_drawn_latents_are_the_posterior_mean_plus_its_deviation_times_noise(batch):
    model = tiny_model()
    drawn = generate_latents(model, batch, torch.Generator().manual_seed(3))
    pixels = batch["pixels"]
    faces = torch.cat([pixels, pixels * batch["mask"], batch["reference"]]).flatten(0, 1)
    with torch.no_grad():
        posterior = model.codec.vae.net.encode(faces).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
    expected = (posterior.mean + posterior.std * noise) * model.codec.vae.net.config.scaling_factor
    expected = expected.unflatten(0, (3, 4, NUM_FRAMES))
    names = ("latents", "masked_latents", "reference_latents")
    for name, latents in zip(names, expected, strict=True):
        torch.testing.assert_close(drawn[name], latents)


def test_lora_trains_its_own_matrices_only_and_merges_to_the_same_function(batch):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    from latentsync.training.lora import Lora

    whole = tiny_model()
    task = task_of(tiny_model(), adapter=Lora(rank=2, alpha=4))
    trained = {name for name, value in task.unet.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    # A new adapter changes nothing.
    before = guess_of(task, batch).prediction
    torch.testing.assert_close(before, guess_of(task_of(whole), batch).prediction)

    optimizer = task.configure_optimizers()["optimizer"]
    for _ in range(3):
        optimizer.zero_grad()
        task.losses["bright"](guess_of(task, batch), batch).backward()
        optimizer.step()
    after = guess_of(task, batch).prediction
    assert not torch.allclose(after, before)
    task.adapter.merge(task.model.unet)
    torch.testing.assert_close(guess_of(task, batch).prediction, after)
    state, old = task.unet.state_dict(), whole.unet.state_dict()
    assert set(state) == set(old)
    changed = {name for name in state if not torch.allclose(state[name], old[name], atol=1e-7)}
    assert changed
    assert all(".attn" in name and ".to_" in name for name in changed)


def test_lora_goes_with_parts_that_train_whole(batch):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    from latentsync.training.lora import Lora

    task = task_of(tiny_model(), adapter=Lora(rank=2), trainable=["motion_modules."])
    trained = {name for name, value in task.unet.named_parameters() if value.requires_grad}
    assert any("motion_modules." in name and "lora_" not in name for name in trained)
    assert all("motion_modules." in name or "lora_" in name for name in trained)


class Sharpness:
    """A loss on decoded frames whose gradient must not be requested."""

    reads = frozenset({"pixels"})

    def __init__(self) -> None:
        self.had_gradient: list[bool] = []

    def __call__(self, denoised, batch):
        self.had_gradient.append(denoised.pixels.requires_grad)
        return denoised.pixels.diff(dim=-1).square().mean()


@pytest.mark.parametrize("order", [("bright", "sharp"), ("sharp", "bright")])
@pytest.mark.parametrize("most", [None, 500])
def test_a_loss_of_weight_0_is_reported_and_costs_no_backward(batch, order, most):
    judges = {"bright": Brightness(), "sharp": Sharpness()}
    task = task_of(
        tiny_model(), losses={name: judges[name] for name in order},
        weights={"sharp": 0}, max_x0_timestep=most,
    )  # fmt: skip
    alone = task_of(tiny_model(), max_x0_timestep=most)
    values = task._values(guess_of(task, batch), batch)
    assert list(values) == list(order)
    assert values["sharp"] > 0
    assert not values["sharp"].requires_grad
    assert judges["sharp"].had_gradient == [False]
    values["bright"].backward()
    alone._values(guess_of(alone, batch), batch)["bright"].backward()
    for name, value in task.unet.named_parameters():
        torch.testing.assert_close(value.grad, dict(alone.unet.named_parameters())[name].grad)


def test_losses_that_all_weigh_nothing_are_refused():
    with pytest.raises(ValueError, match=r"weight 0.*bright.*0\.0"):
        task_of(tiny_model(), weights={"bright": 0.0})


def test_weights_of_another_shape_are_told_in_one_short_line(tmp_path):
    tiny_model(motion="none").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"task\.init=.*do not fit.*Choose") as told:
        task_of(tiny_model(), init=tmp_path)
    assert len(str(told.value)) < 1200


def test_a_rank_of_nothing_is_refused():
    pytest.importorskip("peft", reason="the extra lora is not installed")
    from latentsync.training.lora import Lora

    with pytest.raises(ValueError, match="1 or more, got 0"):
        Lora(rank=0)


def test_without_audio_means_silence_for_the_share_that_was_asked_for(batch):
    task = task_of(tiny_model(), audio_dropout=0.3)
    many = {**batch, "audio": torch.ones(4000, NUM_FRAMES, 3, 1)}
    silent = task._drop_audio(many, torch.Generator().manual_seed(0))["audio"] == 0
    # Whole clips, and a fraction of 0.3 within three standard deviations for 4000.
    assert torch.equal(silent.all(dim=(1, 2, 3)), silent.any(dim=(1, 2, 3)))
    assert silent.float().mean().item() == pytest.approx(0.3, abs=3 * (0.21 / 4000) ** 0.5)
    never = task_of(tiny_model(), audio_dropout=0.0)
    assert torch.equal(never._drop_audio(batch, torch.Generator())["audio"], batch["audio"])


def test_a_share_that_is_none_is_refused():
    for name in ("audio_dropout", "face_dropout"):
        with pytest.raises(ValueError, match=f"{name} is a share of the clips, 0 to 1, got 50"):
            task_of(tiny_model(), **{name: 50})


def test_what_is_dropped_is_what_guidance_moves_away_from(batch):
    """A clip with dropped audio and one of zeros, as in guidance, are the same to the UNet."""
    task = task_of(tiny_model(), audio_dropout=1.0)
    dropped = task._drop_audio(batch, torch.Generator())
    null = {**batch, "audio": torch.zeros_like(batch["audio"])}
    assert torch.equal(guess_of(task, dropped).prediction, guess_of(task, null).prediction)
    assert not torch.equal(guess_of(task, batch).prediction, guess_of(task, null).prediction)


def test_a_face_that_is_left_out_tells_nothing_and_the_rest_of_the_clip_stays(batch):
    task = task_of(tiny_model(), face_dropout=0.5)
    many = {name: value.repeat_interleave(200, dim=0) for name, value in batch.items()}
    given = task._drop_faces(many, torch.Generator().manual_seed(0))
    hidden = given["masked_latents"] == 0
    assert torch.equal(hidden.all(dim=(1, 2, 3, 4)), hidden.any(dim=(1, 2, 3, 4)))
    assert hidden.float().mean().item() == pytest.approx(0.5, abs=3 * (0.25 / len(hidden)) ** 0.5)
    whole = latents_of(many, task.model.encode)
    for name, latents in zip(("latents", "reference_latents"), whole[::2], strict=True):
        assert torch.equal(given[name], rearrange(latents, "b c f x y -> b f c x y"))


def test_training_without_faces_is_blind_to_them_and_validation_is_not(batch, monkeypatch):
    blind, seeing = (
        task_of(tiny_model(), losses={"mean": Mean()}, face_dropout=share) for share in (1.0, 0.0)
    )
    names = ("latents", "masked_latents", "reference_latents")
    latents = (
        rearrange(each, "b c f x y -> b f c x y") for each in latents_of(batch, blind.model.encode)
    )
    stored = {**batch, **dict(zip(names, latents, strict=True))}
    faces = [stored, {**stored, "masked_latents": stored["masked_latents"] + 1}]
    logged: list[float] = []
    for task in (blind, seeing):
        monkeypatch.setattr(task, "log", lambda name, value, **kwargs: logged.append(value.item()))
        monkeypatch.setattr(task, "log_dict", lambda *args, **kwargs: None)
    for step in (blind.training_step, seeing.training_step, blind.validation_step):
        for each in faces:
            step(each, 0)
    pairs = zip(logged[::2], logged[1::2], strict=True)
    assert [one == other for one, other in pairs] == [True, False, False]


def test_batches_whose_gradients_are_accumulated_get_noise_of_their_own(batch, monkeypatch):
    mean = Mean()
    task = task_of(tiny_model(), losses={"mean": mean})
    for name in ("log", "log_dict"):
        monkeypatch.setattr(task, name, lambda *args, **kwargs: None)
    assert task.global_step == 0
    for batch_idx in (0, 1, 0):
        task.training_step(batch, batch_idx)
    first, other, again = mean.seen
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Noisiness(Mean):
    """Keeps the timesteps it was asked about."""

    def __call__(self, denoised, batch):
        self.seen.append(denoised.timesteps.sort().values)
        return denoised.prediction.mean()


def test_a_shift_trains_on_more_noise_and_validates_as_before(batch, monkeypatch):
    seen = {}
    for shift in (1.0, 5.0):
        noisiness = Noisiness()
        task = task_of(tiny_model(), losses={"mean": noisiness}, timestep_shift=shift)
        for name in ("log", "log_dict"):
            monkeypatch.setattr(task, name, lambda *args, **kwargs: None)
        task.training_step(batch, 0)
        task.validation_step(batch, 0)
        seen[shift] = noisiness.seen
    (uniform, validated), (shifted, validated_too) = seen.values()
    share = (uniform + 0.5) / 1000
    torch.testing.assert_close(shifted.float(), 1000 * 5 * share / (1 + 4 * share), atol=4, rtol=0)
    assert torch.equal(validated, validated_too)
