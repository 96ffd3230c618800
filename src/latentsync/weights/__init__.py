"""Published weight files <-> our networks and model folders: key tables, loaded strictly.

The command line is `python -m latentsync.weights --help`.
"""

from latentsync.weights.folders import export_model, import_official, model_folder
from latentsync.weights.importing import import_network
from latentsync.weights.lr_asd import load_official_lr_asd
from latentsync.weights.s3fd import load_official_s3fd
from latentsync.weights.syncnet import (
    export_official_syncnet,
    load_official_syncnet,
    syncnet_config,
)
from latentsync.weights.syncnet_v2 import load_official_syncnet_v2
from latentsync.weights.unet import (
    export_official_unet,
    load_official_unet,
    official_unet_keys,
    official_unet_state,
    take_from_sd,
    unet_config,
    unet_from_sd,
    unet_key,
)
from latentsync.weights.vae import load_official_vae, vae_config
from latentsync.weights.whisper import load_official_whisper

__all__ = [
    "export_model",
    "export_official_syncnet",
    "export_official_unet",
    "import_network",
    "import_official",
    "load_official_lr_asd",
    "load_official_s3fd",
    "load_official_syncnet",
    "load_official_syncnet_v2",
    "load_official_unet",
    "load_official_vae",
    "load_official_whisper",
    "model_folder",
    "official_unet_keys",
    "official_unet_state",
    "syncnet_config",
    "take_from_sd",
    "unet_config",
    "unet_from_sd",
    "unet_key",
    "vae_config",
]
