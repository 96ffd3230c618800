"""python -m latentsync.cli.doctor experiment=syncnet ...: what prevents this SyncNet from learning?

Takes the same overrides as train.py. It overfits a copy of the network on one batch and checks
clips for silence, duplicates and offsets; nothing is trained. The findings are printed and written
to syncnet_doctor.md.
"""

import logging

import torch
from omegaconf import DictConfig

from latentsync.batch import Batch
from latentsync.cli.command import command
from latentsync.cli.debug import shrink_networks
from latentsync.cli.names import build
from latentsync.extras import needed_parts

with needed_parts():
    import lightning
    from lightning.pytorch.utilities import move_data_to_device

    from latentsync.data.datamodule import ClipDataModule
    from latentsync.training import SyncNetTask
from latentsync.training.callbacks import SyncDiagnostics

log = logging.getLogger(__name__)


@command("train")
def main(config: DictConfig) -> None:
    """Examine the data and the network of a SyncNet experiment before training."""
    examine(config)


def examine(config: DictConfig) -> list[str]:
    """The findings, one line each; on the GPU if there is one."""
    if config.get("tiny_networks", False):
        shrink_networks(config)
    if "doctor" not in config.callbacks:
        raise ValueError(f"{config.name} has no doctor: add callbacks=syncnet")
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data, task, doctor = (
        build(node) for node in (config.data, config.task, config.callbacks.doctor)
    )
    if not isinstance(task, SyncNetTask):
        raise ValueError(f"the doctor is for SyncNet, not {type(task).__name__}")
    assert isinstance(data, ClipDataModule)
    assert isinstance(doctor, SyncDiagnostics)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data.setup("fit")
    assert data.train_set is not None
    items = move_data_to_device(next(iter(data.train_dataloader())), device)
    batch: Batch = data.unpack(items)  # type: ignore[assignment]
    findings = doctor.examine(task.to(device), data.train_set, batch)
    doctor.path.parent.mkdir(parents=True, exist_ok=True)
    doctor.write([f"{config.name}, before training:", *findings])
    log.info("%s", "\n".join(f"- {line}" for line in findings))
    log.info("written to %s", doctor.path)
    return findings


if __name__ == "__main__":
    main()
