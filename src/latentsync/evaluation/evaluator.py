"""The networks that measure faces and sound, and what they make of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from latentsync.evaluation.landmarks import find_faces, read_lips
from latentsync.evaluation.lse import LseScorer
from latentsync.evaluation.single_thread import single_thread
from latentsync.evaluation.sync_embeddings import (
    Heard,
    Sound,
    count_windows,
    embed_pictures,
    embed_sound,
    lower_halves,
)
from latentsync.faces import Face, FaceDetector, load_mask
from latentsync.faces.detectors.base import IdentityEmbedder
from latentsync.metrics.base import Sample
from latentsync.metrics.blocks import pixel_blocks, to_planes
from latentsync.metrics.sync import shift_cosines
from latentsync.models.model_config import ModelFormat
from latentsync.models.mouth_reader import MouthReader
from latentsync.models.speaker_scorers import LRASDScorer
from latentsync.models.syncnet import StableSyncNet

Faces = UInt8[np.ndarray, "f r r 3"]

FETCH_SYNCNET_V2 = (
    "give the path of syncnet_v2.model, from the authors' page or from the folder auxiliary of "
    "ByteDance/LatentSync-1.6"
)

FETCH_LR_ASD = "give the path of pretrain_AVA.model, from the folder weight of Junhua-Liao/LR-ASD"


@dataclass(frozen=True, slots=True)
class Voice:
    """The audio of a clip: its file, the networks' inputs, and the ground truth of the mouth."""

    path: Path
    states: Float[Tensor, "n l d"]
    mel: Float[Tensor, "80 t"]
    truth: Float[Tensor, "f 4"]
    silent: Bool[Tensor, " f"]


@dataclass(frozen=True, slots=True)
class Evaluator:
    """The networks that measure, none of which was part of a generator's loss; each is optional."""

    model_format: ModelFormat
    reader: MouthReader | None
    syncnet: StableSyncNet | None
    detector: FaceDetector | None
    sync_stride: int = 4
    lse: LseScorer | None = None
    identity: IdentityEmbedder | None = None
    """Of faces; None: that of the detector, if it has one."""
    speaker: LRASDScorer | None = None

    @property
    def embedder(self) -> IdentityEmbedder | None:
        """What tells people apart."""
        own = None if self.detector is None else self.detector.identity
        return self.identity or own

    @property
    def trained_on(self) -> str | None:
        """The kind of faces the SyncNet was trained on, if its folder shows it."""
        return None if self.syncnet is None else self.syncnet.config.trained_on

    def missing(self) -> dict[str, str]:
        """The metric inputs that none of its networks provides, with reasons."""
        fetch = "give SFace's file as evaluator.sface, or faces=yunet, which fetches it"
        given = {
            "identity": (fetch, self.embedder),
            "other_identity": (fetch, self.embedder),
            "reading": ("evaluator.reader is null", self.reader),
            "sync_cosines": ("evaluator.syncnet is null", self.syncnet),
            "landmarks": ("evaluator.mesh is false", self.detector),
            "lips": ("evaluator.mesh is false", self.detector),
            "speaker_scores": (f"evaluator.lr_asd is null: {FETCH_LR_ASD}", self.speaker),
            "lse_curves": (f"evaluator.syncnet_v2 is null: {FETCH_SYNCNET_V2}", self.lse),
        }
        return {name: why for name, (why, network) in given.items() if network is None}

    def look(self, faces: Faces, voice: Voice, *, own: Voice | None) -> Sample:
        """Mouth and sync of the faces against a voice; `own` is the face's original voice."""
        num_frames = min(len(faces), len(voice.truth))
        sample = {"driving": voice.truth[:num_frames], "silent": voice.silent[:num_frames]}
        if own is not None:
            sample["own"] = own.truth[:num_frames]
        if self.reader is not None:
            sample["reading"] = self.read(faces[:num_frames])
        if self.syncnet is not None:
            sample["sync_cosines"] = self.sync_cosines(faces[:num_frames], voice.mel)
        return sample

    def compare(self, faces: Faces, original: Faces, *, same_speech: bool) -> Sample:
        """Pictures against the original faces, which are the truth only for the same speech."""
        form = self.model_format
        mask = torch.from_numpy(load_mask(form.mask, form.resolution)).float()
        sample = {
            "pixels": to_planes(faces),
            "original": to_planes(original[: len(faces)]),
            # Masks have soft edges. All frames share one mask in memory.
            "painted": (mask < 0.5).float().expand(1, len(faces), 1, -1, -1),
            "kept": (mask > 0.999).float().expand(1, len(faces), 1, -1, -1),
        }
        return sample | {"truth": sample["original"]} if same_speech else sample

    @torch.no_grad()
    @single_thread()
    def read(self, faces: Faces) -> Float[Tensor, "f 4"]:
        """The four mouth traits of every face."""
        assert self.reader is not None
        boxes = [self.reader.box_of(some[0]) for some in pixel_blocks(faces)]
        return self.reader.read_box(torch.cat(boxes).to(self.reader.device)).cpu()

    def sync_cosines(self, faces: Faces, mel: Float[Tensor, "80 t"]) -> Float[Tensor, "n k"]:
        """Cosines of consecutive faces with the audio that starts with them, at every shift."""
        heard = self.embed(faces, mel)
        return self.cosines(heard.vision, heard.sound)

    def can_hear(self, num_frames: int) -> bool:
        """Whether there is a SyncNet, and frames enough for one of its windows."""
        return self.syncnet is not None and num_frames >= self.syncnet.config.num_frames

    @single_thread()
    def embed(
        self, faces: Faces, mel: Float[Tensor, "80 t"], *, sound: Sound | None = None
    ) -> Heard:
        """What SyncNet sees and hears of a clip; `sound`: the latter, if it is known."""
        assert self.syncnet is not None
        pictures = lower_halves(self.syncnet, faces)
        known = self.hear(mel, len(faces)) if sound is None else sound
        return Heard(pictures, self.see(pictures), known)

    @single_thread()
    def see(self, pictures: Float[Tensor, "f 3 half r"]) -> Float[Tensor, "n d"]:
        """SyncNet's embeddings of every `sync_stride`-th window of pictures."""
        assert self.syncnet is not None
        return embed_pictures(self.syncnet, pictures, stride=self.sync_stride)

    @single_thread()
    def hear(self, mel: Float[Tensor, "80 t"], num_frames: int) -> Sound:
        """SyncNet's embeddings of the sound of every window of so many frames."""
        assert self.syncnet is not None
        num_windows = count_windows(self.syncnet, num_frames)
        return embed_sound(self.syncnet, mel, num_windows, fps=self.model_format.fps)

    def cosines(
        self, vision: Float[Tensor, "n d"], sound: Float[Tensor, "m d"]
    ) -> Float[Tensor, "n k"]:
        """Cosines of every window that `see` embedded with the sound at every shift."""
        starts = torch.arange(len(vision)) * self.sync_stride
        return shift_cosines(vision, sound, starts)

    def find(self, faces: Faces) -> list[Face | None] | None:
        """The face in every aligned face by landmarks; None without a detector."""
        return None if self.detector is None else find_faces(faces, self.detector)

    def lips(self, faces: Faces) -> Float[Tensor, "f 40 2"] | None:
        """The lips of every face by landmarks; None without a detector."""
        return None if self.detector is None else read_lips(faces, self.detector)
