"""float16 with a loss scaler: steps that overflow are skipped, as at the start of any run.

Lightning does not support float16 on CPUs, but torch and its scaler do, so the plugin is built by
hand.
"""

from pathlib import Path

import pytest
import torch

from latentsync.training.callbacks.curves import read_curves
from smoke.test_resume import EXACT, SYNCNET, assert_resumes
from smoke.tiny import run

pytestmark = pytest.mark.filterwarnings(
    "ignore:Precision 16-mixed is not supported by the model",
    "ignore:The dirpath has changed from:UserWarning",
    # The schedule advances in steps that the scaler skips, as in the published training.
    "ignore:Detected call of .lr_scheduler:UserWarning",
)
HALF = "_target_: lightning.pytorch.plugins.MixedPrecision, precision: 16-mixed, device: cpu"
WHOLE = "{_target_: latentsync.training.callbacks.WholeCheckpoints}"


def scaled_by(scale: float, **scaler: float) -> tuple[str, ...]:
    more = "".join(f", {name}: {value}" for name, value in scaler.items())
    made = f"{{_target_: torch.amp.GradScaler, device: cpu, init_scale: {scale}{more}}}"
    return f"trainer.plugins=[{{{HALF}, scaler: {made}}}, {WHOLE}]", "trainer.precision=null"


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    path = run_dir / "checkpoints" / f"{step:07d}.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_scale_that_is_too_large_at_first_costs_steps_and_not_the_run(work: Path):
    run_dir = run(
        work, "demo/syncnet", "half", *SYNCNET, *scaled_by(2.0**40, backoff_factor=2.0**-14),
        "trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=1",
        "callbacks.checkpoint.save_top_k=-1",
    )  # fmt: skip
    curves = read_curves(run_dir / "csv")
    norms = [value for _, value in curves["train/gradient_norm"]]
    scales = [value for _, value in curves["train/loss_scale"]]
    finite = [torch.isfinite(torch.tensor(norm)).item() for norm in norms]
    assert finite == sorted(finite)
    assert not finite[0]
    assert finite[-1]
    # The scale is logged as used in the step: it drops after each skipped one.
    num_left_out = finite.count(False)
    assert scales == [2.0 ** (40 - 14 * min(step, num_left_out)) for step in range(6)]
    # No weight changed in skipped steps; in the others they are finite and changed.
    first, lost, end = (weights(run_dir, step) for step in (1, num_left_out, 6))
    assert all(torch.equal(first[name], lost[name]) for name in first)
    assert all(value.isfinite().all() for value in end.values())
    assert any(not torch.equal(first[name], end[name]) for name in first)


def test_a_scale_that_keeps_falling_stops_the_run_all_the_same(work: Path):
    with pytest.raises(ValueError, match=r"gradient is not finite .* 3 steps in a row"):
        run(
            work, "demo/syncnet", "half_lost", *SYNCNET,
            *scaled_by(2.0**100, backoff_factor=0.99), "callbacks.gradients.max_left_out=2",
            "trainer.max_steps=9",
        )  # fmt: skip


def test_the_scale_goes_on_where_it_was(work: Path):
    """It has grown twice by then, so a run that lost it would skip other steps."""
    scaled = scaled_by(2.0**8, growth_interval=2)
    assert_resumes(
        work, "demo/syncnet", "half_exact", (*SYNCNET, *scaled), at=[6], every=2,
        parts=(*EXACT, "MixedPrecision"),
    )  # fmt: skip
