"""Prepared clips as items for training: frames in [-1, 1], masks, audio tokens, mel, latents."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from latentsync.data.clips import AudioStates, Clip, attach_latents, attach_states, states_rate
from latentsync.data.stores import ClipFrames, ClipFramesInMemory, mapped_tensors, read_metadata
from latentsync.data.synthetic import read_truth
from latentsync.data.windows import Gap, choose_reference_start, choose_starts, span
from latentsync.faces.mask import load_mask
from latentsync.media.mel import mel_window
from latentsync.models.audio.encoders import frame_tokens

TRUTH_NAMES = ("open", "width", "round", "teeth")

# What decoders and readers raise for files that are missing, cut off, too short or overwritten.
# Only around the reading itself: the same from elsewhere is a bug, and stops the run.
UNREADABLE = (OSError, RuntimeError, SafetensorError, ValueError, IndexError, KeyError)


class Unreadable(Exception):
    """A file of a clip cannot be read; says which, and why."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what readers raise into `Unreadable`."""
    try:
        yield
    except UNREADABLE as error:
        raise Unreadable(f"{path}: {error or type(error).__name__}") from error


Item = dict[str, Tensor]

log = logging.getLogger(__name__)


class ClipDataset(Dataset):
    """Windows of clips. Index means index: the same seed and index give the same item.

    Item i shows clip i modulo the number of clips; which window of it depends on (seed, i). So
    `samples_per_clip` is how many different draws an epoch takes from each clip. With
    `windows_per_clip` > 1 every value has that many windows as its first axis.

    `reference_gap`: the least and the most frames between the first frames of a window and of its
    reference. None is the official rule, no frame shared; larger least values keep the mouth of the
    window further from what the network may copy. With `same_pose` the reference is one of those
    whose head is turned most like the window's, see `choose_reference_start`.

    `packed`: items hold frames as uint8 and no mask, a quarter of the bytes and less on the way to
    the device; `unpack` makes of a batch of them what it is without. `ClipDataModule` does both.

    `reader` decodes the clips, `pyav` or `decord`.

    `with_audio`: an `AudioStates` names the encoder whose states an item holds; True takes those
    that the set was prepared with.

    A clip that cannot be read is passed over for the next one, so that every batch is full and
    no process runs out of steps; the reason is logged once and `skipped` counts it in the item.
    """

    def __init__(  # noqa: PLR0913  (what an item holds is chosen value by value)
        self,
        clips: Sequence[Clip],
        *,
        num_frames: int = 16,
        stride: int = 1,
        windows_per_clip: int = 1,
        samples_per_clip: int = 1,
        with_pixels: bool = True,
        with_reference: bool = True,
        reference_gap: Sequence[int] | None = None,
        same_pose: bool = False,
        with_latents: bool | str | Path = False,
        with_mel: bool = True,
        with_audio: bool | AudioStates = True,
        with_truth: bool = False,
        audio_before: int = 4,
        audio_after: int = 6,
        mask: str = "mask",
        resolution: int | None = None,
        in_memory: bool = False,
        reader: str = "pyav",
        packed: bool = False,
        seed: int = 0,
    ) -> None:
        if with_mel and stride != 1:
            raise ValueError(f"mel needs consecutive frames: stride is {stride}, make it 1")
        self.clips = attach_latents(clips, with_latents) if with_latents else list(clips)
        self.num_frames = num_frames
        self.stride = stride
        self.windows_per_clip = windows_per_clip
        self.samples_per_clip = samples_per_clip
        self.with_pixels = with_pixels
        self.with_reference = with_reference
        self.reference_gap = _checked_gap(reference_gap)
        self.same_pose = same_pose
        self.with_latents = bool(with_latents)
        self.with_mel = with_mel
        if isinstance(with_audio, AudioStates):
            self.clips = attach_states(self.clips, with_audio)
        self.with_audio = bool(with_audio)
        self.with_truth = with_truth
        self.audio_before = audio_before
        self.audio_after = audio_after
        self.mask_name = mask
        self.resolution = _checked_resolution(self.clips[0].resolution, resolution)
        self.packed = packed
        self.seed = seed
        self._frames = (ClipFramesInMemory if in_memory else ClipFrames)(
            self.resolution, reader=reader
        )
        fetched = self.clips[0].store is not None
        self._features = mapped_tensors(fetched=fetched)
        self._latents = mapped_tensors(fetched=fetched)
        self._truths: dict[str, Float[Tensor, "f 4"]] = {}
        self._unreadable: dict[int, str] = {}
        self._check()

    def __len__(self) -> int:
        return len(self.clips) * self.samples_per_clip

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        for num_skipped in range(len(self.clips)):
            candidate = (index + num_skipped) % len(self)
            clip_index = candidate % len(self.clips)
            if clip_index in self._unreadable:
                continue
            try:
                item = self._item(candidate)
            except Unreadable as error:
                self._pass_over(clip_index, error)
                continue
            skipped = torch.zeros_like(item["clip_index"])
            skipped.view(-1)[0] = num_skipped
            return item | {"skipped": skipped}
        raise ValueError(
            f"none of the {len(self.clips)} clips can be read: prepare this data set again (last: "
            f"{self._unreadable[clip_index]})"
        )

    def _pass_over(self, clip_index: int, error: Unreadable) -> None:
        self._unreadable[clip_index] = f"{self.clips[clip_index].path}: {error}"
        log.warning("skipped a clip that cannot be read: %s", self._unreadable[clip_index])

    def _item(self, index: int) -> Item:
        clip_index = index % len(self.clips)
        clip = self.clips[clip_index]
        rng = np.random.default_rng((self.seed, index))
        length = span(self.num_frames, self.stride)
        starts = choose_starts(
            clip.num_frames,
            length,
            count=self.windows_per_clip,
            with_reference=self.with_reference,
            rng=rng,
            gap=self.reference_gap,
        )
        windows = []
        for start in starts:
            window = {"clip_index": torch.tensor(clip_index), "start": torch.tensor(start)}
            window |= self._window(clip, start)
            if self.with_reference:
                reference_start = choose_reference_start(
                    clip.num_frames,
                    length,
                    start=start,
                    rng=rng,
                    gap=self.reference_gap,
                    turns=self._feature(clip, "turn").numpy() if self.same_pose else None,
                )
                window |= self._reference(clip, reference_start)
            windows.append(window)
        return windows[0] if self.windows_per_clip == 1 else default_collate(windows)

    def collate(self, items: Sequence[Item]) -> Item:
        """Items as one batch; several windows of a clip stand beside each other."""
        batch = default_collate(list(items))
        if self.windows_per_clip == 1:
            return batch
        return {name: rearrange(value, "b w ... -> (b w) ...") for name, value in batch.items()}

    def unpack(self, batch: Item) -> Item:
        """A batch of `packed` items on any device => pixels in [-1, 1], and its mask, there."""
        if not self.packed or "mask" in batch:
            return batch
        names = [name for name in ("pixels", "reference") if name in batch]
        shown: Item = {name: to_pixels(batch[name]) for name in names}
        starts = batch["start"]
        mask = self._mask[:1].to(starts.device).expand(len(starts), self.num_frames, 1, -1, -1)
        return {**batch, **shown, "mask": mask}

    def _window(self, clip: Clip, start: int) -> Item:
        window = {} if self.packed else {"mask": self._mask}
        indices = self._indices(start)
        if self.with_pixels:
            window["pixels"] = self._pixels_of(clip, indices)
        if self.with_latents:
            for name in ("latents", "masked_latents"):
                window[name] = self._latents_of(clip, name, indices)
        if self.with_audio:
            window["audio"] = frame_tokens(
                self._states(clip),
                torch.from_numpy(indices),
                before=self.audio_before,
                after=self.audio_after,
                fps=clip.fps,
                rate=self._states_rate,
            ).float()
        if self.with_mel:
            mel = self._feature(clip, "mel")
            mel = mel_window(mel, start, num_frames=self.num_frames, fps=clip.fps)
            window["mel"] = mel[None]
        if self.with_truth:
            window["truth"] = self._truth(clip.source)[clip.start_frame + indices]
        return window

    def _reference(self, clip: Clip, start: int) -> Item:
        reference = {}
        indices = self._indices(start)
        if self.with_pixels:
            reference["reference"] = self._pixels_of(clip, indices)
        if self.with_latents:
            reference["reference_latents"] = self._latents_of(clip, "latents", indices)
        return reference

    def _pixels_of(self, clip: Clip, indices: np.ndarray) -> Shaped[Tensor, "f 3 h w"]:
        with reading(clip.path):
            frames = self._frames(clip, indices)
        return frames if self.packed else to_pixels(frames)

    def _latents_of(self, clip: Clip, name: str, indices: np.ndarray) -> Float[Tensor, "f c x y"]:
        assert clip.latents_path is not None
        with reading(clip.latents_path):
            clip.bring(clip.latents_path)
            return self._latents(clip.latents_path)[name][indices].float()

    def _feature(self, clip: Clip, name: str) -> Tensor:
        with reading(clip.features_path):
            clip.bring(clip.features_path)
            return self._features(clip.features_path)[name]

    def _states(self, clip: Clip) -> Float[Tensor, "n l d"]:
        if clip.states_path is None:
            return self._feature(clip, "audio")
        with reading(clip.states_path):
            clip.bring(clip.states_path)
            return self._features(clip.states_path)["audio"]

    def _indices(self, start: int) -> np.ndarray:
        return start + self.stride * np.arange(self.num_frames)

    def _truth(self, source: str) -> Float[Tensor, "f 4"]:
        if source not in self._truths:
            truth = read_truth(Path(source))
            columns = [torch.from_numpy(np.asarray(truth[name])) for name in TRUTH_NAMES]
            self._truths[source] = torch.stack(columns, dim=-1).float()
        return self._truths[source]

    @cached_property
    def _states_rate(self) -> float:
        return states_rate(self.clips)

    @cached_property
    def _mask(self) -> Float[Tensor, "f 1 h w"]:
        mask = torch.from_numpy(load_mask(self.mask_name, self.resolution)).float()
        return mask.expand(self.num_frames, 1, -1, -1)

    def _check(self) -> None:
        length = span(self.num_frames, self.stride)
        least = length if self.reference_gap is None else self.reference_gap[0]
        needed = length + least if self.with_reference else length
        short = [clip for clip in self.clips if clip.num_frames < needed]
        if short:
            raise ValueError(
                f"{len(short)} of {len(self.clips)} clips have fewer than the {needed} frames "
                f"that {self.num_frames} frames at stride {self.stride} "
                f"{'and their reference ' if self.with_reference else ''}need (first: "
                f"{short[0].path}, {short[0].num_frames} frames): prepare longer ones"
            )
        if self.with_latents:
            self.clips[0].bring(self.clips[0].latents_path)
            self._check_mask(self.clips[0].latents_path)
        if self.same_pose:
            self.clips[0].bring(self.clips[0].features_path)
            self._check_turns(self.clips[0].features_path)

    def _check_turns(self, features_path: Path) -> None:
        turns = self._features(features_path).get("turn")
        if turns is None or not turns.isfinite().any():
            raise ValueError(
                f"same_pose needs to know how far heads are turned, {features_path} does not say: "
                "prepare this data set again, with the faces=mesh that finds the points for it"
            )

    def _check_mask(self, latents_path: Path | None) -> None:
        assert latents_path is not None
        noted = read_metadata(latents_path)["mask"]
        if noted != self.mask_name:
            raise ValueError(
                f"{latents_path.parent} was made with mask={noted}, this data set asks for "
                f"mask={self.mask_name}"
            )


def to_pixels(frames: UInt8[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """uint8 frames => pixels in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1)


def _checked_gap(gap: Sequence[int] | None) -> Gap | None:
    if gap is None:
        return None
    least, most = gap
    if not 0 <= least <= most:
        raise ValueError(f"reference_gap must be [least, most], 0 <= least <= most, got {[*gap]}")
    return least, most


def _checked_resolution(prepared: int, asked: int | None) -> int:
    if asked is not None and asked > prepared:
        raise ValueError(
            f"the clips were prepared at {prepared} pixels, resolution={asked} would enlarge "
            f"them: prepare them with resolution={asked}"
        )
    return asked or prepared
