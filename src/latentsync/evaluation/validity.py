"""Leaves out the figures of judges that were not made for such faces."""

import logging
from collections.abc import Callable, Mapping

from torchmetrics import Metric

from latentsync.evaluation.aggregate import Row
from latentsync.metrics import lse, speaker, sync

log = logging.getLogger(__name__)


def leave_out_invalid_sync(
    rows: Mapping[str, Row], truth: Row, *, trained_on: str | None
) -> str | None:
    """Invalidate the sync figures of all rows if SyncNet fails on the truth; returns the reason."""

    def why(metric: Metric) -> str | None:
        if not isinstance(metric, sync.SyncFigures):
            return None
        return sync.why_invalid(metric.scores(), trained_on=trained_on)

    return _leave_out(rows, truth, "the sync figures are", why)


def leave_out_invalid_lse(rows: Mapping[str, Row], truth: Row) -> str | None:
    """The same for SyncNet v2, which was trained on filmed people."""

    def why(metric: Metric) -> str | None:
        return lse.why_invalid(metric.offsets()) if isinstance(metric, lse.LseFigures) else None

    return _leave_out(rows, truth, "LSE is", why)


def leave_out_invalid_speaker(
    rows: Mapping[str, Row], truth: Row, *, synthetic: bool
) -> str | None:
    """The same for the active-speaker network, which was trained on films."""

    def why(metric: Metric) -> str | None:
        if not isinstance(metric, speaker.ActiveSpeaker) or not metric.update_called:
            return None
        return speaker.why_invalid(metric.scores(), synthetic=synthetic)

    return _leave_out(rows, truth, "the speaker alarm is", why)


def _leave_out(
    rows: Mapping[str, Row], truth: Row, what: str, why: Callable[[Metric], str | None]
) -> str | None:
    for name, metric in truth.metrics.items():
        invalid = why(metric)
        if invalid is not None:
            for row in rows.values():
                row.invalidate(name)
            log.warning("%s left out: %s", what, invalid)
            return invalid
    return None
