"""Rows of an evaluation: metrics over the clips of one condition."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torchmetrics import Metric

from latentsync.metrics.base import INPUTS, ClipMetric, Figure, NeedsFile, Sample
from latentsync.metrics.sync import NOT_VALID

Track = Float[np.ndarray, " _"]


@dataclass(frozen=True, slots=True)
class ClipValues:
    """The figures of one clip by metric and key, those that have a meaning for one clip.

    `opening`: the mouth's that was wanted, and that came; `curve`: the mean cosine at each shift.
    """

    clip: str
    speaker: str
    values: Mapping[str, Mapping[str, float]]
    opening: tuple[Track, Track] | None = None
    curve: Track | None = None


class Row:
    """The metrics of the clips of one condition.

    Each metric counts only the clips that have all inputs it needs.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = {name: metric.clone() for name, metric in metrics.items()}
        self.clips: list[ClipValues] = []
        self.not_valid: set[str] = set()

    @property
    def num_clips(self) -> int:
        return len(self.clips)

    def add(self, sample: Sample, *, clip: str, speaker: str) -> dict[str, float]:
        """Add one clip; returns its figures. Clips of one speaker resemble each other."""
        values = {}
        for name, metric in self.metrics.items():
            needs = needs_of(metric)
            if sample.keys() >= needs and why_not_ready(metric) is None:
                given = {name: sample[name] for name in needs}
                values[name] = _update(metric, given)
        self.clips.append(ClipValues(clip, speaker, values, _opening_of(sample), _curve_of(sample)))
        return {key: value for each in values.values() for key, value in each.items()}

    def invalidate(self, name: str) -> None:
        """Mark a metric's figures as meaningless here."""
        self.not_valid.add(name)

    def summary(self) -> dict[str, float | str]:
        """All available figures by key."""
        result: dict[str, float | str] = {"num_clips": self.num_clips}
        for name, metric in self.metrics.items():
            if metric.update_called:
                values = metric.compute()
                result |= dict.fromkeys(values, NOT_VALID) if name in self.not_valid else values
        return result

    def curve(self) -> Track | None:
        """The mean cosine at each shift over the clips; None where there is none that is valid."""
        valid = [clip.curve for clip in self.clips if clip.curve is not None]
        if not valid or self.not_valid:
            return None
        known = torch.from_numpy(np.stack(valid))
        return known.nanmean(dim=0).numpy()

    def clip_values(self) -> Iterator[tuple[ClipValues, dict[str, float]]]:
        """Each clip with its figures by key, without those that are meaningless here."""
        for clip in self.clips:
            valid = (values for name, values in clip.values.items() if name not in self.not_valid)
            yield clip, {key: value for values in valid for key, value in values.items()}


def _opening_of(sample: Sample) -> tuple[Track, Track] | None:
    for came, wanted in (("reading", "driving"), ("landmarks", "driving_landmarks")):
        if came in sample and wanted in sample:
            length = min(len(sample[came]), len(sample[wanted]))
            one, other = (sample[name][:length, 0].double().numpy() for name in (wanted, came))
            return one, other
    return None


def _curve_of(sample: Sample) -> Track | None:
    cosines = sample.get("sync_cosines")
    return None if cosines is None else cosines.double().nanmean(dim=0).numpy()


def _update(metric: Metric, given: Sample) -> dict[str, float]:
    """Add a clip to a metric; returns those of its figures that a single clip has."""
    alone = {figure.key for figure in figures_of({"": metric}) if figure.average is not None}
    if not alone:
        metric.update(**given)
        return {}
    # Computes the clip by itself and merges it into the others.
    return {key: value for key, value in metric(**given).items() if key in alone}


def needs_of(metric: Metric) -> frozenset[str]:
    """The inputs a metric needs; `check_metrics` ensures that it declares them."""
    assert isinstance(metric, ClipMetric)
    return metric.needs


def why_not_ready(metric: Metric) -> str | None:
    """What has to be fetched for a metric, if anything."""
    return metric.not_ready if isinstance(metric, NeedsFile) else None


def figures_of(metrics: Mapping[str, Metric]) -> list[Figure]:
    """The figures of all metrics, in order."""
    return [
        figure
        for metric in metrics.values()
        if isinstance(metric, ClipMetric)
        for figure in metric.figures
    ]


def check_metrics(metrics: Mapping[str, object]) -> None:
    """ValueError for an object that is no metric of ours, an unknown input, or a duplicate key."""
    owners: dict[str, str] = {}
    for name, metric in metrics.items():
        if not isinstance(metric, Metric) or not isinstance(metric, ClipMetric):
            raise ValueError(
                f"metrics.{name} is a {type(metric).__name__}: a metric is a torchmetrics.Metric "
                "that says its figures and what it needs (latentsync.metrics.base)"
            )
        unknown = sorted(metric.needs - INPUTS.keys())
        if unknown:
            raise ValueError(
                f"metrics.{name} needs {', '.join(unknown)}, which no clip is given with; there "
                f"are {', '.join(INPUTS)}"
            )
        for figure in metric.figures:
            owner = owners.setdefault(figure.key, name)
            if owner != name:
                raise ValueError(f"metrics.{owner} and metrics.{name} both have {figure.key!r}")


def why_not_measured(metrics: Mapping[str, Metric], missing: Mapping[str, str]) -> dict[str, str]:
    """The metrics that no clip can be measured by, with reasons.

    `missing`: inputs that are never available, with reasons.
    """
    reasons = {}
    for name, metric in metrics.items():
        lacking = [need for need in INPUTS if need in needs_of(metric) and need in missing]
        wanted = why_not_ready(metric)
        if wanted is not None:
            reasons[name] = f"needs a network: {wanted}"
        elif lacking:
            reasons[name] = f"needs {_each(lacking)}: {missing[lacking[0]]}"
    return reasons


def _each(names: Iterable[str]) -> str:
    return " and ".join(names)
