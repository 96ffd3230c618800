"""Prepared clips as training items: frames in [-1, 1], masks, audio tokens, mel, latents."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped, UInt8
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from latentsync.data.alike import AlikeFrames
from latentsync.data.clips import AudioStates, Clip, attach_latents, attach_states, states_rate
from latentsync.data.items import Items
from latentsync.data.members import header_of
from latentsync.data.mixing import chained, column_of, sets_of
from latentsync.data.remote import RemoteSet
from latentsync.data.stores import ClipFrames, ClipFramesInMemory, mapped_tensors
from latentsync.data.synthetic import read_truth
from latentsync.data.windows import choose_reference_start, choose_starts, span
from latentsync.faces.mask import load_mask
from latentsync.media.mel import mel_window
from latentsync.media.tokens import frame_tokens

TRUTH_NAMES = ("open", "width", "round", "teeth")

# Raised by decoders and readers for files that are missing, truncated, too short or overwritten.
# Caught only around reading itself: raised elsewhere, they are bugs and stop the run.
UNREADABLE = (OSError, RuntimeError, SafetensorError, ValueError, IndexError, KeyError)


class Unreadable(Exception):
    """A file of a clip cannot be read; states which, and why."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the errors of readers into `Unreadable`."""
    try:
        yield
    except UNREADABLE as error:
        raise Unreadable(f"{path}: {error or type(error).__name__}") from error


Item = dict[str, Tensor]

log = logging.getLogger(__name__)


class ClipDataset(Dataset):
    """Windows of clips, reproducible: the same seed and index give the same item.

    Item i shows clip i modulo the number of clips, or of the entries of `order`, which lists clips
    by number (see `mixed_order`); its window depends on (seed, i). The clips may come from several
    prepared sets of the same resolution, rate and kind of audio states.

    A clip that cannot be read is replaced by the next one, so that every batch is full and all
    processes do the same number of steps; the reason is logged once, and `skipped` counts it in the
    item.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        items: Items | None = None,
        *,
        order: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        self.items = items = items or Items()
        sets = sets_of(clips)
        if items.with_latents:
            sets = [attach_latents(each, items.with_latents) for each in sets]
        if isinstance(items.with_audio, AudioStates):
            sets = [attach_states(each, items.with_audio) for each in sets]
        self._firsts = [each[0] for each in sets]
        self.clips = chained(sets)
        self._order = order
        self.resolution = _checked_resolution(self.clips[0].resolution, items.resolution)
        self._frames = (ClipFramesInMemory if items.in_memory else ClipFrames)(
            self.resolution, reader=items.reader
        )
        fetched = any(isinstance(clip.store, RemoteSet) for clip in self._firsts)
        self._features = mapped_tensors(fetched=fetched)
        self._latents = mapped_tensors(fetched=fetched)
        self._truths: dict[str, Float[Tensor, "f 4"]] = {}
        self._unreadable: dict[int, str] = {}
        self._check()

    def __len__(self) -> int:
        num_items = self._num_entries * self.items.samples_per_clip
        return num_items if self.items.max_items is None else min(num_items, self.items.max_items)

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        for num_skipped in range(self._num_entries):
            candidate = (index + num_skipped) % len(self)
            clip_index = self._clip_of(candidate)
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

    @property
    def _num_entries(self) -> int:
        return len(self.clips) if self._order is None else len(self._order)

    def _clip_of(self, index: int) -> int:
        entry = index % self._num_entries
        return entry if self._order is None else int(self._order[entry])

    def _item(self, index: int) -> Item:
        clip_index = self._clip_of(index)
        clip = self.clips[clip_index]
        rng = np.random.default_rng((self.items.seed, index))
        length = span(self.items.num_frames, self.items.stride)
        starts = choose_starts(
            clip.num_frames,
            length,
            count=self.items.windows_per_clip,
            with_reference=self.items.with_reference and self._alike is None,
            rng=rng,
            gap=self.items.gap,
        )
        windows = []
        for start in starts:
            window = {"clip_index": torch.tensor(clip_index), "start": torch.tensor(start)}
            window |= self._window(clip, start)
            if self._alike is not None:
                window["reference_latents"] = self._alike_latents(clip_index, start, rng)
            elif self.items.with_reference:
                reference_start = choose_reference_start(
                    clip.num_frames,
                    length,
                    start=start,
                    rng=rng,
                    gap=self.items.gap,
                    turns=self._feature(clip, "turn").numpy() if self.items.same_pose else None,
                )
                window |= self._reference(clip, reference_start)
            windows.append(window)
        return windows[0] if self.items.windows_per_clip == 1 else default_collate(windows)

    def collate(self, items: Sequence[Item]) -> Item:
        """Collate items into a batch; several windows of a clip are adjacent."""
        batch = default_collate(list(items))
        if self.items.windows_per_clip == 1:
            return batch
        return {name: rearrange(value, "b w ... -> (b w) ...") for name, value in batch.items()}

    def unpack(self, batch: Item) -> Item:
        """Convert a batch of `packed` items, on any device, to pixels in [-1, 1] and a mask."""
        if not self.items.packed or "mask" in batch:
            return batch
        names = [name for name in ("pixels", "reference") if name in batch]
        shown: Item = {name: to_pixels(batch[name]) for name in names}
        starts = batch["start"]
        mask = (
            self._mask[:1].to(starts.device).expand(len(starts), self.items.num_frames, 1, -1, -1)
        )
        return {**batch, **shown, "mask": mask}

    def _window(self, clip: Clip, start: int) -> Item:
        window = {} if self.items.packed else {"mask": self._mask}
        indices = self._indices(start)
        if self.items.with_pixels:
            window["pixels"] = self._pixels_of(clip, indices)
        if self.items.with_latents:
            for name in ("latents", "masked_latents"):
                window[name] = self._latents_of(clip, name, indices)
        if self.items.with_audio:
            window["audio"] = frame_tokens(
                self._states(clip),
                torch.from_numpy(indices),
                before=self.items.audio_before,
                after=self.items.audio_after,
                fps=clip.fps,
                rate=self._states_rate,
            ).float()
        if self.items.with_mel:
            mel = self._feature(clip, "mel")
            mel = mel_window(mel, start, num_frames=self.items.num_frames, fps=clip.fps)
            window["mel"] = mel[None]
        if self.items.with_truth:
            window["truth"] = self._truth(clip.source)[clip.start_frame + indices]
        return window

    def _reference(self, clip: Clip, start: int) -> Item:
        reference = {}
        indices = self._indices(start)
        if self.items.with_pixels:
            reference["reference"] = self._pixels_of(clip, indices)
        if self.items.with_latents:
            reference["reference_latents"] = self._latents_of(clip, "latents", indices)
        return reference

    def _alike_latents(
        self, index: int, start: int, rng: np.random.Generator
    ) -> Float[Tensor, "f c x y"]:
        assert self._alike is not None
        chosen = self._alike.choose(index, self._indices(start), rng)
        if chosen is None:
            raise Unreadable(f"{self.clips[index].latents_path}: not all of its latents are there")
        return torch.cat(
            [
                self._latents_of(self.clips[other], "latents", np.array([frame]))
                for other, frame in chosen
            ]
        )

    def _pixels_of(self, clip: Clip, indices: np.ndarray) -> Shaped[Tensor, "f 3 h w"]:
        with reading(clip.path):
            frames = self._frames(clip, indices)
        return frames if self.items.packed else to_pixels(frames)

    def _latents_of(self, clip: Clip, name: str, indices: np.ndarray) -> Float[Tensor, "f c x y"]:
        assert clip.latents_path is not None
        with reading(clip.latents_path):
            return self._latents(clip.place(clip.latents_path))[name][indices].float()

    def _feature(self, clip: Clip, name: str) -> Tensor:
        with reading(clip.features_path):
            return self._features(clip.place(clip.features_path))[name]

    def _states(self, clip: Clip) -> Float[Tensor, "n l d"]:
        if clip.states_path is None:
            return self._feature(clip, "audio")
        with reading(clip.states_path):
            return self._features(clip.place(clip.states_path))["audio"]

    def _indices(self, start: int) -> np.ndarray:
        return start + self.items.stride * np.arange(self.items.num_frames)

    def _truth(self, source: str) -> Float[Tensor, "f 4"]:
        if source not in self._truths:
            truth = read_truth(Path(source))
            columns = [torch.from_numpy(np.asarray(truth[name])) for name in TRUTH_NAMES]
            self._truths[source] = torch.stack(columns, dim=-1).float()
        return self._truths[source]

    @cached_property
    def _alike(self) -> AlikeFrames | None:
        if self.items.reference_alike is None or not self.items.with_reference:
            return None
        assert self.items.gap is not None

        def masked(clip: Clip) -> Tensor | None:
            try:
                return self._latents_of(clip, "masked_latents", np.arange(clip.num_frames))
            except Unreadable:
                return None

        return AlikeFrames(self.clips, masked, count=self.items.reference_alike, gap=self.items.gap)

    @cached_property
    def _states_rate(self) -> float:
        rates = {states_rate(each) for each in sets_of(self.clips)}
        if len(rates) > 1:
            raise ValueError(
                f"the sets' audio states have {sorted(rates)} Hz: train on sets of one encoder"
            )
        return rates.pop()

    @cached_property
    def _mask(self) -> Float[Tensor, "f 1 h w"]:
        mask = torch.from_numpy(load_mask(self.items.mask, self.resolution)).float()
        return mask.expand(self.items.num_frames, 1, -1, -1)

    def _check(self) -> None:
        length = span(self.items.num_frames, self.items.stride)
        least = length if self.items.gap is None else self.items.gap[0]
        within = self.items.with_reference and self._alike is None
        needed = length + least if within else length
        lengths = enumerate(column_of(self.clips, "num_frames"))
        short = [index for index, length in lengths if length < needed]
        if short:
            first = self.clips[short[0]]
            raise ValueError(
                f"{len(short)} of {len(self.clips)} clips have fewer than the {needed} frames "
                f"that {self.items.num_frames} frames at stride {self.items.stride} "
                f"{'and their reference ' if within else ''}need (first: "
                f"{first.path}, {first.num_frames} frames): prepare longer ones"
            )
        for clip in self._firsts:
            if self.items.with_latents:
                self._check_mask(clip)
            if self.items.same_pose:
                self._check_turns(clip)

    def _check_turns(self, clip: Clip) -> None:
        turns = self._features(clip.place(clip.features_path)).get("turn")
        if turns is None or not turns.isfinite().any():
            raise ValueError(
                f"same_pose needs to know how far heads are turned, {clip.features_path} does not "
                "say: prepare this data set again, with the faces=mesh that finds the points for it"
            )

    def _check_mask(self, clip: Clip) -> None:
        assert clip.latents_path is not None
        noted = header_of(clip.place(clip.latents_path))[0]["mask"]
        if noted != self.items.mask:
            raise ValueError(
                f"{clip.latents_path.parent} was made with mask={noted}, this data set asks for "
                f"mask={self.items.mask}"
            )


def to_pixels(frames: UInt8[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """uint8 frames => pixels in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1)


def _checked_resolution(prepared: int, asked: int | None) -> int:
    if asked is not None and asked > prepared:
        raise ValueError(
            f"the clips were prepared at {prepared} pixels, resolution={asked} would enlarge "
            f"them: prepare them with resolution={asked}"
        )
    return asked or prepared
