"""Options that name a file or folder: the text after = is taken literally as the name.

Hydra's grammar would turn some names into numbers, lists, sweeps or interpolations, or reject them.
So arguments of the command line, and cells of a job list, are rewritten before Hydra parses them:
names that the grammar would change are quoted. Text already in quotes is left to Hydra (there
${...} is an interpolation), and so are the few words that do not mean a name.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

Words = tuple[str, ...]

NO_WORDS: Words = ()
NONE: Words = ("null",)
SWITCH: Words = ("true", "false")

PATHS: dict[str, Words] = {
    "paths.data": NO_WORDS,
    "paths.experiments": NO_WORDS,
    "paths.demo_model": NO_WORDS,
}
FACES: dict[str, Words] = {
    "faces.cache_dir": NONE,
    "faces.detector_path": NONE,
    "faces.landmark_path": NONE,
}

# Every option that names a file or folder (* also matches dots), and words, case-insensitive, with
# a special meaning instead.
NAMING: dict[str, dict[str, Words]] = {
    "infer": {
        "video": NONE,
        "audio": NONE,
        "out": NO_WORDS,
        "ckpt": NO_WORDS,
        "published.whisper": NONE,
        "published.vae": NONE,
        "assign.*": NO_WORDS,
        "turns": NONE,
        "faces.speaker.weights": NONE,
        "faces.segmenter": NONE,
        "faces.yunet_path": NONE,
        "faces.sface_path": NONE,
        "plan": (*NONE, *SWITCH),
        "jobs": NONE,
        "folder": NO_WORDS,
        **FACES,
        **PATHS,
    },
    "prepare": {
        "input": NO_WORDS,
        "output": NO_WORDS,
        "work_dir": NONE,
        "vae": NO_WORDS,
        "audio_encoder.folder": NO_WORDS,
        "whisper": NONE,
        **FACES,
    },
    "train": {
        "name": NO_WORDS,
        "ckpt_path": NONE,
        "ckpt": NO_WORDS,
        "video": NO_WORDS,
        "paths.run_dir": NO_WORDS,
        "data.train_manifest": NO_WORDS,
        "data.val_manifest": NO_WORDS,
        "data.cache.folder": NONE,
        "data.*.with_latents": (*NONE, *SWITCH),
        "latents": (*NONE, *SWITCH),
        "vae": NONE,
        "whisper": NONE,
        "stage1": NONE,
        "syncnet": NONE,
        "tiny_vae": NONE,
        "audio_encoder.folder": NONE,
        "vgg": NONE,
        "videomae": NONE,
        "init_sd": NONE,
        "task.init": NONE,
        "task.init_sd": NONE,
        "task.tiny_vae": NONE,
        "task.*.folder": NONE,
        "task.*.path": NONE,
        "task.*.backbone_path": NONE,
        "task.*.pretrained_model_name_or_path": NONE,
        "callbacks.*.dirpath": NONE,
        "callbacks.*.folder": NONE,
        "callbacks.*.path": NONE,
        "callbacks.*.reader": NONE,
        "callbacks.evaluate.syncnet": NONE,
        "logger.*.save_dir": NONE,
        "trainer.default_root_dir": NONE,
        **PATHS,
    },
    "evaluate": {
        "ckpt": NO_WORDS,
        "pred": NONE,
        "ref": NONE,
        "against": NONE,
        "data.path": NONE,
        "method_folder": NONE,
        "out": NO_WORDS,
        "test_set": NO_WORDS,
        "raw": NO_WORDS,
        "input": NO_WORDS,
        "output": NO_WORDS,
        "evaluator.reader": NONE,
        "evaluator.syncnet": NONE,
        "evaluator.syncnet_v2": NONE,
        "evaluator.s3fd": NONE,
        "evaluator.sface": NONE,
        "evaluator.lr_asd": NONE,
        "evaluator.vgg": NONE,
        "metrics.*.path": NONE,
        "metrics.*.backbone": NONE,
        "audio_encoder.folder": NO_WORDS,
        "whisper": NONE,
        **FACES,
        **PATHS,
    },
    "synthesize": {"output": NO_WORDS},
}

WORD = re.compile(r"(?P<sign>\+{0,2})(?P<option>[^=\s+~-][^=]*)=(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
PIECE = re.compile(rf"(?:^|,)\s*({QUOTED.pattern}(?=\s*(?:,|$))|[^,]*)", re.DOTALL)
CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)
VOICES = re.compile(r"\s*\{(.*)\}\s*", re.DOTALL)
NEXT_VOICE = re.compile(r",\s*(?=(?:turn)?\d+\s*:)")
VOICE = re.compile(r"\s*((?:turn)?\d+)\s*:\s*(.*?)\s*", re.DOTALL)
# Options that take one name or a list of several; a folder called [a,b] is written '[a,b]'.
LISTS = ("data.train_manifest",)
LIST = re.compile(r"\s*\[([^\[\]]*)\]\s*", re.DOTALL)
# Names that Hydra's grammar leaves unchanged.
PLAIN = re.compile(
    r"(?!(?:null|true|false|inf|nan)$)(?:\.{0,2}/|\.?[a-z_])[\w./-]*", re.ASCII | re.I
)


@contextmanager
def names_as_typed(command: str) -> Iterator[None]:
    """Replace sys.argv by its quoted form for Hydra within the block."""
    typed = sys.argv
    sys.argv = [*typed[:1], *as_typed(typed[1:], command)]
    try:
        yield
    finally:
        sys.argv = typed


def as_typed(words: Sequence[str], command: str) -> list[str]:
    """The arguments with file and folder names quoted where Hydra would not read them literally.

    ValueError for an option without a name.
    """
    options = NAMING.get(command, {})
    sweeps = any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words)
    return [_word(word, options, sweeps=sweeps) for word in words]


def unquoted(value: str) -> str:
    """The name inside quotes added by `as_typed`; anything else unchanged."""
    if not QUOTED.fullmatch(value):
        return value
    read = OverridesParser.create().parse_override(f"name={value}").value()
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: found[1][::2] + "${", str(read))


def build(node: DictConfig, *, without: Collection[str] = (), **parts: object) -> Any:
    """Instantiate the node's `_target_` with its values, except those `without`, and with `parts`.

    Hydra's instantiate resolves a config twice, which would interpolate names that contain ${.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    if without or _holds_dollar(plain):
        assert isinstance(plain, dict), "a part is a mapping"
        kept = {name: value for name, value in plain.items() if name not in without}
        return instantiate(_escaped(kept), _convert_="all", **parts)
    return instantiate(node, _convert_="all", **parts)


def _holds_dollar(node: object) -> bool:
    if isinstance(node, dict | list):
        return any(map(_holds_dollar, node.values() if isinstance(node, dict) else node))
    return isinstance(node, str) and "${" in node


def _escaped(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _escaped(child) for name, child in node.items()}
    if isinstance(node, list):
        return [_escaped(child) for child in node]
    return escape(escape(node)) if isinstance(node, str) else node


def _word(word: str, options: Mapping[str, Words], *, sweeps: bool) -> str:
    parts = WORD.fullmatch(word)
    if parts is None:
        return word
    sign, option, value = parts["sign"], parts["option"], parts["value"]
    if option == "data" and "data.path" in options:
        option = "data.path"  # conf/data is a group, which data= would choose from
    if option == "assign" and "assign.*" in options:
        return f"++assign={_voices(value)}"  # persons become config keys when named
    meant = next((words for name, words in options.items() if fnmatchcase(option, name)), None)
    if meant is None:
        return word
    if option.startswith("assign."):
        sign = "++"
    listed = LIST.fullmatch(value) if option in LISTS else None
    pieces = [piece.strip() for piece in PIECE.findall(listed[1])] if listed else []
    if len(pieces) > 1 and all(pieces):
        return f"{sign}{option}=[{','.join(_name(option, piece, meant) for piece in pieces)}]"
    if sweeps and not QUOTED.fullmatch(value):
        # Hydra drops the quotes inside choice(): '1' would become a number again.
        chosen = CHOICE.fullmatch(value)
        pieces = [piece.strip() for piece in PIECE.findall(chosen[1] if chosen else value)]
        return f"{sign}{option}=" + ",".join(_name(option, piece, meant) for piece in pieces)
    return f"{sign}{option}={_name(option, value, meant)}"


def _voices(value: str) -> str:
    """`{0: a.wav, 1: b.wav}` with its names quoted; any other form is left to Hydra."""
    inside = VOICES.fullmatch(value)
    pairs = [VOICE.fullmatch(pair) for pair in NEXT_VOICE.split(inside[1])] if inside else []
    if not pairs or not all(pairs):
        return value
    named = (f"{pair[1]}: {_name('assign', pair[2], NO_WORDS)}" for pair in pairs if pair)
    return f"{{{', '.join(named)}}}"


def _name(option: str, text: str, words: Words) -> str:
    if not text:
        none = f", or {option}=null for none" if "null" in words else ""
        raise ValueError(f"{option}= is empty: give the name of a file or folder{none}")
    if text.lower() in words or PLAIN.fullmatch(text) or QUOTED.fullmatch(text):
        return text
    return quote(text)


def quote(text: str) -> str:
    """Quote the text such that Hydra and OmegaConf read it back unchanged."""
    if text == "???":
        text = "./???"  # the same file; OmegaConf reads ??? as a missing value
    return QuotedString(escape(text), Quote.single).with_quotes()


def escape(text: str) -> str:
    """Escape the text such that OmegaConf does not interpolate it."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
