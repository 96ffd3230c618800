import pytest
import torch

from latentsync.losses import MaskedReconLoss, ReconLoss, check_losses, clear_clips, judges_clean
from latentsync.losses.perceptual import PerceptualLoss
from latentsync.losses.trepa import TrepaLoss
from losses.guesses import guess


def test_only_clips_up_to_the_timestep_remain_and_what_belongs_to_them(generator):
    target = torch.randn(4, 4, 2, 8, 8, generator=generator)
    denoised = guess(target, timesteps=[500, 501, 0, 999])
    assert torch.equal(denoised.pixels, target.permute(0, 2, 1, 3, 4)[:, :, :3])
    batch = {"mel": torch.arange(4).view(4, 1, 1, 1).float()}
    clear, shown, share = clear_clips(denoised, batch, 500)
    assert share == 0.5
    assert clear.timesteps.tolist() == [500, 0]
    assert torch.equal(clear.target, target[[0, 2]])
    # Decoded again for the remaining clips, although the whole batch had been decoded before.
    assert torch.equal(clear.pixels, denoised.pixels[[0, 2]])
    assert shown["mel"].flatten().tolist() == [0, 2]


class Mute:
    """A loss that does not declare what it reads."""

    def __call__(self, denoised, batch):
        return denoised.x0.mean()


class Clairvoyant(Mute):
    reads = frozenset({"latents", "future"})


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"a": {"weight": 1.0, "loss": Mute()}}, "Mute does not say what it reads"),
        ({"a": {"weight": 1.0, "loss": Clairvoyant()}}, "a reads future; there are latents"),
        ({"a": ReconLoss()}, r"losses\.a is .*ReconLoss.*weight: \.\.\., loss"),
        ({"a": {"loss": ReconLoss()}}, r"losses\.a is \['loss'\]"),
        ({"a": {"weight": 0, "loss": ReconLoss()}}, "nothing would train"),
        ({}, "nothing would train"),
    ],
)
def test_a_map_of_losses_that_cannot_train_is_refused(losses, said: str):
    with pytest.raises(ValueError, match=said):
        check_losses(losses)


def test_every_loss_says_what_it_reads():
    assert not judges_clean(ReconLoss())
    assert not judges_clean(MaskedReconLoss())
    assert {"pixels", "truth"} == PerceptualLoss.reads == TrepaLoss.reads
