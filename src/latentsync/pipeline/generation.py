"""Chunks of faces and the audio of their slots => generated faces, blended where chunks overlap."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor

from latentsync.diffusion.sampler import Sampler
from latentsync.media.tokens import frame_tokens
from latentsync.models.color_matching import colour_cells
from latentsync.models.denoised import with_own_surroundings
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline.chunks import Chunk, Reference, Run, cut_chunks
from latentsync.pipeline.latent_cache import FaceLatents, LatentCache

Faces = UInt8[np.ndarray, "f r r 3"]
Face = Num[np.ndarray, "r r 3"]  # levels: uint8, or float not yet clipped to 0..255
Slots = Int[np.ndarray, " _"]

# (run, slots) => their faces; (run, slots) => their audio tokens
FacesOf = Callable[[int, Slots], Faces]
SoundOf = Callable[[int, Slots], Float[Tensor, "f s d"]]

WHOLE = 1 - 1e-4  # of the sum of weights of all chunks over a slot


def generate_chunks(
    chunks: Iterable[Chunk],
    faces_of: FacesOf,
    sound_of: SoundOf,
    *,
    model: LipSyncModel,
    sampler: Sampler,
    seed: int,
    batch: int = 1,
    latent_cache: LatentCache | None = None,
) -> Iterator[tuple[Chunk, Float[np.ndarray, "f r r 3"]]]:
    """Every chunk with its generated faces as levels, about in 0..255.

    All share one noise, as in the official pipeline. The network sees full chunks: a short one
    repeats its last frame. Exception: if latents are sampled, chunks stay short and use the
    generator in order. Outside the mask faces are then the input's, otherwise the VAE's. `batch`:
    chunks per call of the network. `latent_cache`: faces that it holds are never requested from
    `faces_of`.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = model.sample_noise(generator)
    if sampler.sample_latents:
        for chunk in chunks:
            pixels = model.generate(
                to_pixels(faces_of(chunk.run, chunk.slots)).to(model.device),
                sound_of(chunk.run, chunk.slots)[None].to(model.device),
                reference=to_pixels(faces_of(chunk.run, chunk.reference)).to(model.device),
                sampler=sampler,
                generator=generator,
                noise=noise,
            )
            yield chunk, to_levels(pixels)[0]
        return
    length = model.format.num_frames
    store = LatentStore(model, faces_of, keep_slots=4 * length, latent_cache=latent_cache)
    for group in in_groups(chunks, batch):
        faces = [(store.faces(w.run, w.slots), store.faces(w.run, w.reference)) for w in group]
        masked = stacked(pad(part_of(own, "masked"), length) for own, _ in faces)
        reference = stacked(pad(part_of(other, "seen"), length) for _, other in faces)
        sound = stacked(pad(sound_of(w.run, w.slots), length) for w in group)
        latents = model.generate_latents(
            rearrange(masked, "(b f) c x y -> b c f x y", f=length),
            rearrange(reference, "(b f) c x y -> b c f x y", f=length),
            rearrange(sound, "(b f) s d -> b f s d", f=length).to(model.device),
            sampler=sampler,
            noise=noise.expand(len(group), -1, -1, -1, -1),
        )
        for chunk, (own, _), generated in zip(group, faces, latents.split(1), strict=True):
            cells = part_of(own, "cells")[None]
            made = generated[:, :, : len(own)]
            if not model.format.reference_mouth:
                seen = rearrange(part_of(own, "seen"), "f c x y -> 1 c f x y")
                made = with_own_surroundings(made, seen, model.mask)
            shown = model.finish_painted(made, cells, sampler=sampler)
            yield chunk, to_levels(shown)[0]
    if latent_cache is not None:
        latent_cache.close()


class LatentStore:
    """Latents of faces by run and slot: each face is encoded once for all chunks that use it, or
    read from the cache of an earlier run.

    Stored in the UNet's dtype: more precision would be lost there anyway.
    """

    def __init__(
        self,
        model: LipSyncModel,
        faces_of: FacesOf,
        *,
        keep_slots: int,
        latent_cache: LatentCache | None = None,
    ) -> None:
        self.model = model
        self.faces_of = faces_of
        self.keep_slots = keep_slots
        self.latent_cache = latent_cache
        self.held: dict[tuple[int, int], FaceLatents] = {}

    def faces(self, run: int, slots: Slots) -> list[FaceLatents]:
        new = [slot for slot in np.unique(slots).tolist() if (run, slot) not in self.held]
        if self.latent_cache is not None:
            new = [slot for slot in new if not self._take(run, slot)]
        if new:
            self._encode(run, new)
        faces = [self.held[run, slot] for slot in slots.tolist()]
        oldest = int(slots.min()) - self.keep_slots
        for key in [key for key in self.held if key[1] < oldest]:
            del self.held[key]
        return faces

    def _take(self, run: int, slot: int) -> bool:
        assert self.latent_cache is not None
        face = self.latent_cache.read(run, slot)
        if face is None:
            return False
        device = self.model.device
        self.held[run, slot] = FaceLatents(
            face.masked.to(device), face.seen.to(device), face.cells.to(device)
        )
        return True

    def _encode(self, run: int, slots: list[int]) -> None:
        pixels = to_pixels(self.faces_of(run, np.array(slots))).to(self.model.device)
        cells = colour_cells(pixels, self.model.mask)[0]
        dtype = self.model.unet.dtype
        masked, seen = (
            rearrange(part, "1 c f x y -> f c x y").to(dtype)
            for part in self.model.encode_faces(pixels)
        )
        for place, slot in enumerate(slots):
            face = FaceLatents(masked[place], seen[place], cells[place])
            self.held[run, slot] = face
            if self.latent_cache is not None:
                self.latent_cache.add(run, slot, face)


def part_of(faces: Iterable[FaceLatents], name: str) -> Float[Tensor, "f *n"]:
    return torch.stack([getattr(face, name) for face in faces])


def in_groups(chunks: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Groups of up to `size` consecutive chunks."""
    for _, group in groupby(enumerate(chunks), lambda item: item[0] // size):
        yield [chunk for _, chunk in group]


class GeneratedFaces:
    """The generated face of any slot, blended from the chunks over it; request slots in ascending
    order."""

    def __init__(
        self,
        generated: Iterator[tuple[Chunk, Float[np.ndarray, "f r r 3"]]],
        *,
        rounded: bool = True,
    ) -> None:
        self.generated = generated
        self.rounded = rounded
        self.blends: dict[tuple[int, int], tuple[Float[np.ndarray, "r r 3"], float]] = {}
        self.done: dict[tuple[int, int], Face] = {}
        self.oldest = 0

    def at(self, run: int, slot: int) -> Face:
        """The face of a slot; slots dropped by `forget` are not available."""
        while (run, slot) not in self.done:
            chunk, faces = next(self.generated)
            self._add(chunk, faces)
        return self.done[run, slot]

    def forget(self, before: int) -> None:
        """Drop the faces of earlier slots, including those not generated yet."""
        self.oldest = before
        for key in [key for key in self.done if key[1] < before]:
            del self.done[key]

    def _add(self, chunk: Chunk, faces: Float[np.ndarray, "f r r 3"]) -> None:
        for slot, weight, face in zip(chunk.slots.tolist(), chunk.weights, faces, strict=True):
            key = (chunk.run, slot)
            if slot < self.oldest:
                continue
            if weight < WHOLE:
                before, share = self.blends.pop(key, (np.float32(0), 0.0))
                face, share = before + weight * face, share + float(weight)
                if share < WHOLE:
                    self.blends[key] = (face, share)
                    continue
            self.done[key] = rounded(face) if self.rounded else face


def reference_for(form: ModelFormat) -> Reference:
    """The reference faces that a model is given by default: its own, if it does not see their
    mouth."""
    return "previous" if form.reference_mouth else "self"


def generate_clip(
    faces: Faces,
    states: Float[Tensor, "n l d"],
    *,
    model: LipSyncModel,
    sampler: Sampler,
    seed: int,
    overlap: int = 0,
) -> Faces:
    """Lip-sync consecutive aligned faces at the model's rate to the sound that begins with them."""
    form = model.format
    run = Run(0, 0, 0, len(faces), np.ones(len(faces), dtype=np.float32))
    chunks = cut_chunks(
        [run], length=form.num_frames, overlap=overlap, reference=reference_for(form)
    )

    def sound_of(_: int, slots: Slots) -> Tensor:
        return tokens_of(states, slots, model)

    generated = generate_chunks(
        chunks, lambda _, slots: faces[slots], sound_of, model=model, sampler=sampler, seed=seed
    )
    keep = model.mask.cpu().numpy()[..., None]
    whole = (
        (chunk, (1 - keep) * levels + keep * faces[chunk.slots]) for chunk, levels in generated
    )
    blended = GeneratedFaces(whole)
    return np.stack([blended.at(0, slot) for slot in range(len(faces))])


def tokens_of(
    states: Float[Tensor, "n l d"], slots: Slots, model: LipSyncModel
) -> Float[Tensor, "f s d"]:
    """The audio tokens of slots of the model's grid."""
    form = model.format
    return frame_tokens(
        states,
        torch.from_numpy(np.asarray(slots, dtype=np.int64)),
        before=form.audio_before,
        after=form.audio_after,
        fps=form.fps,
        rate=model.audio_encoder.rate,
    )


def between(before: Face, after: Face, share: float) -> Face:
    """Interpolate linearly between the faces of two slots."""
    mixed = (1 - share) * before.astype(np.float32) + share * after.astype(np.float32)
    return rounded(mixed) if before.dtype == np.uint8 else mixed


def stacked(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat(list(parts))


def pad(items: Float[Tensor, "f *n"], length: int) -> Float[Tensor, "length *n"]:
    """Repeat the last item up to `length` items."""
    return torch.cat([items, items[-1:].expand(length - len(items), *items.shape[1:])])


def to_pixels(faces: Faces) -> Float[Tensor, "1 f 3 r r"]:
    """uint8 faces => pixels in [-1, 1]."""
    return rearrange(torch.from_numpy(faces), "f h w c -> 1 f c h w").float() / 127.5 - 1


def to_levels(pixels: Float[Tensor, "b f 3 r r"]) -> Float[np.ndarray, "b f r r 3"]:
    """Pixels, about in [-1, 1] => levels, about in 0..255."""
    return rearrange((pixels.float() + 1) * 127.5, "b f c h w -> b f h w c").cpu().numpy()


def rounded(levels: Float[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n 3"]:
    return np.rint(levels).clip(0, 255).astype(np.uint8)
