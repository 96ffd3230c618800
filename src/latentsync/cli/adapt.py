"""`python train.py experiment=demo/adapt video=me.mp4`: prepare the video, train the VAE, then the
UNet, and report; every result is kept, so that the same command goes on where it was stopped."""

import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from latentsync.cli.command import conf_dir
from latentsync.cli.debug import shrink_networks
from latentsync.cli.names import build, quote
from latentsync.cli.prepare import build_limits, build_stages
from latentsync.cli.train import train
from latentsync.data.clips import AudioStates, Clip, attach_states
from latentsync.data.manifest import read_manifest
from latentsync.evaluation.adapted import HeldOut, report_adaptation
from latentsync.faces import MeshDetector
from latentsync.files import printable, sha256_of
from latentsync.models import LipSyncModel, MelAudioEncoder
from latentsync.models.adapted import ADAPTED_TO
from latentsync.prepare import Demands, Part, encode_audio, encode_latents, prepare_clips
from latentsync.prepare.record import Record, locked
from latentsync.prepare.speaker import check_clips, check_persons, check_sound
from latentsync.prepare.stage import Resampled

log = logging.getLogger(__name__)

TRAINED, HELD_OUT = "train", "val"
TRAINED_BY = ("task", "data", "trainer")  # the parts of a config that make the weights


def adapt(config: DictConfig) -> float | None:
    """Adapt a model to the speaker of a video; returns the objective of the UNet's training."""
    video = Path(config.video)
    if not video.is_file():
        raise FileNotFoundError(f"video={video}: there is no such file")
    if config.ckpt is None:
        raise ValueError("ckpt= must be given: the folder of the model to begin with")
    run_dir = Path(config.paths.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with locked(run_dir):
        speaker = {"video": printable(video.name), "sha256": sha256_of(video)}
        options = OmegaConf.to_container(config.adapt, resolve=True)
        assert isinstance(options, dict)
        kept = {name: options[name] for name in ("held_out", "prepare", "vae")}
        record = Record.open(run_dir, {**speaker, "model": str(config.ckpt), **kept})
        return Adaptation(config, video, run_dir, record, speaker).run()


@dataclass
class Adaptation:
    """The steps, each of which is recorded when its result is whole."""

    config: DictConfig
    video: Path
    run_dir: Path
    record: Record
    speaker: dict[str, str]
    objective: float | None = None

    def run(self) -> float | None:
        unet = {"max_steps": self.config.trainer.max_steps}
        after = {"stage2_steps": self.stage2_steps} if self.stage2_steps else {}
        samples = {"samples": " ".join(sampler_words(self.config.adapt))}
        steps = [
            ("clips", self.make_clips, {}),
            ("vae", self.train_vae, {}),
            ("latents", self.make_latents, {}),
            ("unet", self.train_unet, unet),
            *([("stage2", self.train_stage2, unet | after)] if after else []),
            ("report", self.make_report, unet | after | samples),
        ]
        for number, (name, make, parameters) in enumerate(steps, start=1):
            title = f"step {number} of {len(steps)}, {name}"
            if self.record.rows.get(name) == {"item": name, **parameters}:
                log.info("%s: kept from before", title)
                self._say_other_options(name, title)
                continue
            log.info("%s: begins", title)
            if not make():
                return None
            self.record.add(name, parameters)
        return self.objective

    def _say_other_options(self, name: str, title: str) -> None:
        """Warn of options by which a finished training would be another one today."""
        trainings = {"unet": (self.run_dir, self.config), "stage2": (self.stage2, None)}
        if name not in trainings:
            return
        folder, config = trainings[name]
        config = config or self.stage2_config()
        others = other_options(folder / "config.yaml", config, within=self.run_dir)
        if others:
            log.warning(
                "%s: it was trained with other options, %s; to train with today's take another "
                "paths.run_dir=",
                title, ", ".join(others),
            )  # fmt: skip

    @cached_property
    def model(self) -> LipSyncModel:
        """The model to begin with."""
        return LipSyncModel.from_pretrained(self.config.ckpt)

    @cached_property
    def preparation(self) -> DictConfig:
        """The config of prepare.py that makes clips of the model's form."""
        form = self.model.format
        return composed(
            "prepare",
            *words_of(self.config.adapt.prepare),
            f"resolution={form.resolution}",
            f"aligner={form.aligner}",
            f"prepare.fps={form.fps}",
        )

    def make_clips(self) -> bool:
        demands: Demands = build(self.config.adapt.demands)
        check_sound(self.video, demands)
        check_persons(self.video, build(self.preparation.faces), demands)
        raw = self.run_dir / "source"
        raw.mkdir(exist_ok=True)
        link = raw / self.video.name
        if not link.exists():
            link.symlink_to(self.video.resolve())
        share = 1 - self.config.adapt.held_out
        for part, start, end in ((TRAINED, 0.0, share), (HELD_OUT, share, 1.0)):
            self._prepare(raw, self.run_dir / "data" / part, start, end)
        clips = [clip for part in (TRAINED, HELD_OUT) for clip in self.clips(part)]
        seconds = check_clips(clips, self.video, demands)
        log.info("%.0f s of speech in %d clips", seconds, len(clips))
        return True

    def _prepare(self, raw: Path, output: Path, start: float, end: float) -> None:
        stages = build_stages(self.preparation)
        after = next(place for place, stage in enumerate(stages) if stage.makes is Resampled) + 1
        part = Part(fps=self.model.format.fps, start=start, end=end)
        outcomes = prepare_clips(
            raw,
            output,
            stages=[*stages[:after], part, *stages[after:]],
            limits=build_limits(self.preparation),
        )
        if not any(outcome.clips for outcome in outcomes):
            raise ValueError(
                f"no face can be learned from in the part from {start:g} to {end:g} of "
                f"{self.video}: {output}/dropped.jsonl says why; give a recording in which the "
                "speaker is seen all the time"
            )
        if self.model.audio_encoder.states_name != MelAudioEncoder.states_name:
            encode_audio(output, self.model.audio_encoder, progress=True)

    def clips(self, part: str) -> Sequence[Clip]:
        return read_manifest(self.run_dir / "data" / part)

    def heard(self, part: str) -> Sequence[Clip]:
        """The clips, with the states that the model listens to."""
        return attach_states(self.clips(part), AudioStates(self.model.audio_encoder.states_name))

    def train_vae(self) -> bool:
        """Whether the VAE's training came to its end."""
        folder = self.run_dir / "vae"
        train(self._training(self.config.adapt.vae, folder))
        return is_model(folder / "model")

    def _training(self, options: DictConfig, folder: Path, *words: str) -> DictConfig:
        """The config of train.py that trains on the clips in `folder`, or goes on there."""
        if self.config.get("tiny_networks", False):
            words = (*words, "+debug=tiny")
        return composed(
            "train",
            *words_of(options),
            *words,
            f"seed={self.config.seed}",
            f"paths.run_dir={named(folder)}",
            *(
                f"data.{part}_manifest={named(self.run_dir / 'data' / part)}"
                for part in (TRAINED, HELD_OUT)
            ),
            "ckpt_path=auto",
        )

    def make_latents(self) -> bool:
        for part in (TRAINED, HELD_OUT):
            encode_latents(
                self.run_dir / "data" / part,
                Path(self.config.vae),
                mask=self.model.format.mask,
                progress=True,
            )
        return True

    def train_unet(self) -> bool:
        """Whether the UNet's training came to its end."""
        config = self.config
        config.ckpt_path = config.ckpt_path or "auto"
        with open_dict(config):
            config.task.model.adapted_to = self.speaker
        self.objective = train(config)
        return is_model(self.run_dir / "model")

    @property
    def stage2_steps(self) -> int:
        return int(self.config.adapt.stage2["trainer.max_steps"])

    @property
    def stage2(self) -> Path:
        """Its run folder: a UNet that was trained on has another one."""
        return self.run_dir / f"stage2_after_{self.config.trainer.max_steps}"

    @property
    def adapted(self) -> Path:
        """The folder of the model that the last training made."""
        return (self.stage2 if self.stage2_steps else self.run_dir) / "model"

    def train_stage2(self) -> bool:
        """Whether the training of motion modules came to its end."""
        self.objective = train(self.stage2_config())
        return is_model(self.stage2 / "model")

    def stage2_config(self) -> DictConfig:
        stage1 = f"stage1={named(self.run_dir / 'model')}"
        return self._training(self.config.adapt.stage2, self.stage2, stage1)

    def make_report(self) -> bool:
        held_out = HeldOut.of(self.heard(HELD_OUT), self.heard(TRAINED))
        words = sampler_words(self.config.adapt)
        sampler = build(composed("infer", *words).sampler)
        report_adaptation(
            self.run_dir / "report",
            held_out,
            before=self.model,
            after=LipSyncModel.from_pretrained(self.adapted),
            sampler=sampler,
            detector=MeshDetector(),
            seed=self.config.seed,
        )
        log.info(
            "the adapted model: python infer.py %s %s ...",
            shlex.quote(f"ckpt={printable(self.adapted)}"), " ".join(words),
        )  # fmt: skip
        log.info("what was learned: %s", printable(self.run_dir / "report" / "report.html"))
        return True


def sampler_words(asked: DictConfig) -> list[str]:
    """The words of infer.py by which the report's samples are made."""
    options = [f"sampler.{name}={value}" for name, value in asked.sampler.items()]
    return [f"preset={asked.preset}", *options]


def other_options(made_with: Path, config: DictConfig, *, within: Path) -> list[str]:
    """What a training's recorded config says otherwise than today's, as `name=today (was ...)`.
    Its folder lies `within` another, which may have been moved since."""
    if not made_with.is_file():
        return []
    today = config.copy()
    if today.get("tiny_networks", False):
        shrink_networks(today)
    recorded = OmegaConf.load(made_with)
    assert isinstance(recorded, DictConfig)
    levels = len(made_with.parent.relative_to(within).parts)
    moved_from = [Path(recorded.paths.run_dir), *Path(recorded.paths.run_dir).parents][levels]
    before, now = parts_of(recorded, moved_from), parts_of(today, within)
    return list(differences(before, now))


def parts_of(config: DictConfig, folder: Path) -> dict[str, object]:
    """What makes the weights, with paths relative to the folder."""
    parts = {part: OmegaConf.to_container(config[part], resolve=True) for part in TRAINED_BY}
    written = json.dumps(parts).replace(json.dumps(str(folder))[1:-1], ".")
    found: dict[str, object] = json.loads(written)
    return found


def differences(before: object, now: object, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if key != ADAPTED_TO:  # only set where a training begins
                yield from differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif before != now:
        yield f"{name}={now} (was {before})"


def is_model(folder: Path) -> bool:
    """Whether a training came to its end, and exported what it trained."""
    return (folder / "config.json").is_file()


def words_of(options: DictConfig) -> list[str]:
    """Options by name => overrides; texts are taken literally."""
    plain = OmegaConf.to_container(options, resolve=True)
    assert isinstance(plain, dict)
    return [
        f"{name!s}={quote(value) if isinstance(value, str) else json.dumps(value)}"
        for name, value in plain.items()
    ]


def composed(name: str, *words: str) -> DictConfig:
    """A command's config from words, within the run of another command or without one."""
    if GlobalHydra.instance().is_initialized():
        return compose(name, overrides=list(words))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, overrides=list(words))


def named(path: Path) -> str:
    return quote(str(path))
