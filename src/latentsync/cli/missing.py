"""Required values that were not given: all of them at once, with a description of each."""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

MISSING = "???"
REFERENCE = re.compile(r"\$\{([^{}:$]+)\}")
EXPERIMENT = "experiment"


# The parts of a config that a command reads; commands not listed read all of them.
TRAINING = ("name", "paths", "data", "task", "trainer", "callbacks", "logger")
USED = {"train": (*TRAINING, "video", "ckpt", "adapt")}
# Values that are required only if something refers to them.
REFERRED_ONLY = ("whisper",)
USED_BY_STAGE = {
    "clips": ("input", "output", "prepare", "faces", "audio_encoder", "executor"),
    "latents": ("output", "vae"),
    "features": ("output", "audio_encoder"),
    "shards": ("output",),
}


class Incomplete(ValueError):
    """Required values were not given."""


def check_complete(config: DictConfig, command: str, *, conf: Path) -> None:
    """Raise Incomplete if a value is missing in what the command reads or refers to."""
    sentence = missing_sentence(config, command, conf=conf)
    if sentence is not None:
        raise Incomplete(sentence)


def missing_sentence(config: DictConfig, command: str, *, conf: Path) -> str | None:
    """All missing values with descriptions, or a list of experiments if none was chosen; None if
    complete."""
    used = USED.get(command, tuple(str(name) for name in config if name not in REFERRED_ONLY))
    if command == "prepare":
        used = USED_BY_STAGE.get(config.stage, ())
    missing = missing_values(config, used)
    experiment = chosen_experiment()
    if "name" in missing and "," in (given_experiment() or ""):
        return "name= must be given: a sweep of several experiments has one folder of that name"
    if "name" in missing and experiment is None and (conf / EXPERIMENT).is_dir():
        return f"{EXPERIMENT}= must be given; there are:\n{list_experiments(conf)}"
    return describe_missing(missing, conf=conf, experiment=experiment) if missing else None


def missing_values(config: DictConfig, used: Collection[str]) -> list[str]:
    """Dotted names of the required values that are missing, in the config's order."""
    plain = OmegaConf.to_container(config, resolve=False)
    values = dict(_leaves(plain))
    reached = [name for name in values if name.split(".")[0] in used]
    seen = set(reached)
    for name in reached:  # `reached` grows
        for other in _referred(name, values[name]):
            below = [each for each in values if each == other or each.startswith(f"{other}.")]
            reached += [each for each in below if each not in seen]
            seen.update(below)
    return [name for name in values if name in seen and values[name] == MISSING]


def describe_missing(names: Sequence[str], *, conf: Path, experiment: str | None) -> str:
    """One line with the names and their comments from the configs."""
    comments = _comments(conf, experiment)
    lines = []
    for name in names:
        comment = comments.get(name.split(".")[-1])
        lines.append(f"{name}= ({comment})" if comment else f"{name}=")
    who = f"experiment={experiment} needs " if experiment else ""
    return f"{who}{', '.join(lines)}{'' if who else ' must be given'}"


def chosen_experiment() -> str | None:
    """The value of experiment=, if the command has experiments."""
    if HydraConfig.initialized():
        return HydraConfig.get().runtime.choices.get(EXPERIMENT)
    return given_experiment()


def given_experiment() -> str | None:
    """The value of experiment= on the command line."""
    given = [word.split("=", 1)[1] for word in sys.argv[1:] if re.match(rf"\+*{EXPERIMENT}=", word)]
    return given[-1] if given else None


def list_experiments(conf: Path) -> str:
    """One line per experiment: its name and the first line of its comment."""
    found = experiments(conf)
    width = max(map(len, found), default=0)
    lines = [f"  {name:<{width}}  {_first_comment(path)}" for name, path in found.items()]
    return "\n".join(lines)


def experiments(conf: Path) -> dict[str, Path]:
    """Paths of the experiments by name, grouped by folder."""
    folder = conf / EXPERIMENT
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent, path.stem))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _first_comment(path: Path) -> str:
    comments = (
        line.removeprefix("#").strip()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#") and "@package" not in line
    )
    return next(comments, "")


def _leaves(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{prefix}{name}.")
    elif isinstance(node, list):
        for place, child in enumerate(node):
            yield from _leaves(child, f"{prefix}{place}.")
    else:
        yield prefix.removesuffix("."), node


def _referred(name: str, value: object) -> Iterator[str]:
    """Names of the values it interpolates; ${.x} and ${..x} are relative to its own position."""
    for found in REFERENCE.findall(value) if isinstance(value, str) else ():
        up = len(found) - len(found.lstrip("."))
        above = name.split(".")[:-up] if up else []
        yield ".".join([*above, found.lstrip(".")])


def _comments(conf: Path, experiment: str | None) -> dict[str, str]:
    """Comments of the missing values by name; the experiment takes precedence, then its bases, then
    other configs."""
    order = _lineage(conf / EXPERIMENT, experiment) if experiment else []
    rest = (path for path in sorted(conf.rglob("*.yaml")) if path.parent.name != EXPERIMENT)
    comments: dict[str, str] = {}
    for path in [*order, *rest]:
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*(\w+): \?\?\?\s+#\s*(.+)", line)
            if found:
                comments.setdefault(found[1], found[2].strip())
    return comments


def _lineage(folder: Path, name: str) -> list[Path]:
    """The file of an experiment, then those of the experiments it inherits from."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return []
    listed = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
    near = [each for each in listed if isinstance(each, str) and not each.startswith(("/", "_"))]
    above = Path(name).parent
    return [path, *(base for each in near for base in _lineage(folder, (above / each).as_posix()))]
