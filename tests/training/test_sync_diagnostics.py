"""The diagnostics report the defect that was introduced, and only that."""

from dataclasses import replace

import pytest
import torch

from latentsync.data.diagnostics import Health
from latentsync.models import StableSyncNet
from latentsync.training.callbacks.sync_diagnostics import (
    Likeness,
    Overfit,
    find_causes,
    measure_likeness,
    overfit_one_batch,
)

SOUND = Health(
    num_clips=40, silent=[], same_sound=[], same_pictures=[], offsets={-1: 4, 0: 30, 1: 5},
    common_offset=0, together=5.0,
)  # fmt: skip
LEARNT = Overfit(num_steps=100, before=0.69, after=0.1)
WINDOWS = {
    "clip_index": torch.arange(8).repeat_interleave(4),
    "start": torch.tensor([0, 10, 20, 30]).repeat(8),
}


def test_sound_data_leads_to_patience():
    (advice,) = find_causes(SOUND, WINDOWS, LEARNT)
    assert "40 clips look sound, and one batch is learnt (BCE 0.100)" in advice


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        (replace(SOUND, silent=["a", *"bcdefg"]), "7 of 40 clips are silent (first: a)"),
        (replace(SOUND, same_sound=[["a", "b"]]), "2 of 40 clips share their sound"),
        (replace(SOUND, same_pictures=[["a", "b"]]), "2 of 40 clips share their picture"),
        (replace(SOUND, offsets={5: 30, 6: 5}, common_offset=5), "the sound is 5 frames late"),
        (replace(SOUND, offsets={-6: 30, 0: 5}, common_offset=-6), "the sound is 6 frames early"),
        (replace(SOUND, offsets=dict.fromkeys(range(-12, 13), 1)), "apart by another time"),
        (replace(SOUND, offsets={0: 3}, common_offset=-8, together=0.9), "8 frames early: look"),
    ],
)
def test_each_fault_of_the_data_is_named_alone(health: Health, sentence: str):
    (cause,) = find_causes(health, WINDOWS, LEARNT)
    assert sentence in cause


@pytest.mark.parametrize(
    "health",
    [
        # Like recorded clips: the offset of few can be determined, and a mouth opens a little
        # early.
        replace(SOUND, offsets={-12: 1, 0: 3, 2: 6, 3: 2, 11: 1}, common_offset=2, together=1.5),
        replace(SOUND, offsets={}, common_offset=0, together=1.3),
        # Short public clips: no better than the best of other sounds, but nowhere else than here.
        replace(SOUND, offsets={}, common_offset=1, together=0.88),
        replace(SOUND, num_clips=16, offsets={5: 1}, common_offset=9, together=0.8),
        replace(SOUND, num_clips=1, offsets={}, together=None),
    ],
)
def test_clips_that_tell_little_are_not_called_dubbed(health: Health):
    (advice,) = find_causes(health, WINDOWS, LEARNT)
    assert "look sound" in advice


def test_faults_of_the_batch_are_named():
    few = {name: value[:8] for name, value in WINDOWS.items()}
    (cause,) = find_causes(SOUND, few, LEARNT)
    assert "a batch has only 8 windows" in cause
    single = {"clip_index": torch.arange(32), "start": torch.zeros(32, dtype=torch.long)}
    (cause,) = find_causes(SOUND, single, LEARNT)
    assert "data.train.windows_per_clip=4" in cause


def test_a_batch_that_is_not_learnt_points_to_the_network():
    (cause,) = find_causes(SOUND, WINDOWS, Overfit(num_steps=100, before=0.694, after=0.69))
    assert "BCE 0.694 -> 0.690 in 100 steps" in cause


def test_a_network_that_says_the_same_of_everything_is_named(generator):
    different = torch.eye(8)
    assert measure_likeness(different, different) == Likeness(pictures=0.0, sounds=0.0)
    same = different[:1].repeat(8, 1)
    likeness = measure_likeness(same, different)
    (cause,) = find_causes(SOUND, WINDOWS, LEARNT, likeness=likeness)
    assert "every picture (mean cosine 1.000) one vector" in cause
    assert "sound" not in cause.split(":")[0]
    (advice,) = find_causes(SOUND, WINDOWS, LEARNT, likeness=Likeness(pictures=0.9, sounds=0.5))
    assert "look sound" in advice


def test_overfitting_learns_a_batch_and_leaves_the_network_and_the_generator_alone():
    torch.manual_seed(0)
    net = tiny_syncnet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = {
        "pixels": torch.rand(4, 16, 3, 64, 64) * 2 - 1,
        "mel": torch.randn(4, 1, 80, 52),
        "clip_index": torch.arange(4),
        "start": torch.zeros(4, dtype=torch.long),
    }
    state = torch.random.get_rng_state()
    result = overfit_one_batch(net, batch, num_steps=60, lr=3e-3)
    assert result.after < 0.3 < result.before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def tiny_syncnet() -> StableSyncNet:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from latentsync.cli.command import conf_dir, register_resolvers

    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=["experiment=demo/syncnet"])
    return instantiate(config.task.syncnet, _convert_="all")
