"""The presets of `infer.py preset=`, from the same files."""

from dataclasses import dataclass

import yaml

from latentsync import shipped_dir
from latentsync.diffusion.sampler import Sampler
from latentsync.pipeline import Encoding

# As in conf/preset/, from careful to quick.
PRESETS = ("official", "best", "balanced", "fast", "draft")
FIRST_PRESET = "balanced"


@dataclass(frozen=True, slots=True)
class Preset:
    """What a file of conf/preset/ says."""

    name: str
    sampler: Sampler
    overlap: int
    measure: bool
    encoding: Encoding


def read_presets() -> dict[str, Preset]:
    """The presets of `infer.py preset=`, from the same files."""
    conf = shipped_dir("conf", "conf")

    def read(name: str) -> dict:
        return yaml.safe_load((conf / f"{name}.yaml").read_text(encoding="utf-8"))

    first = read("infer")
    presets = {}
    for name in PRESETS:
        own = read(f"preset/{name}")
        group = next(line for line in own["defaults"] if "override /sampler" in line)
        solver = read(f"sampler/{group['override /sampler']}")
        solver.pop("_target_")
        encoding = {**first["encoding"], **own.get("encoding", {})}
        presets[name] = Preset(
            name,
            Sampler(**solver),
            overlap=own.get("overlap", first["overlap"]),
            measure=own.get("measure", first["measure"]),
            encoding=Encoding(crf=own.get("crf", first["crf"]), **encoding),
        )
    return presets
