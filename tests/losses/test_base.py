import torch

from latentsync.losses import clear_clips
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
    # Decoded anew, of the clips that remain, though the whole batch was decoded before.
    assert torch.equal(clear.pixels, denoised.pixels[[0, 2]])
    assert shown["mel"].flatten().tolist() == [0, 2]
