"""Bad steps as the run folder keeps them, and what their policy asks of the run."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from arvis_scale.atomic import write_json
from arvis_scale.config import RunConfig
from arvis_scale.data.selection import Selection
from arvis_scale.engine.exit_status import GuardError
from arvis_scale.engine.run_folder import RunFolder

SCHEMA_VERSION = 1
NON_FINITE = "loss or gradient that is not finite"
LOSS_SPIKE = "loss spike"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Incident:
    """A step that a guard found bad, and whose update was left out."""

    # How many there have been in the run with it.
    number: int
    # Optimizer step, counted from 1, and the global batch it read, counted from 0 (docs/guards.md).
    step: int
    batch: int
    # `NON_FINITE` or `LOSS_SPIKE`, and the policy it is under.
    reason: str
    policy: str
    # Mean over the global batch, and each process's own mean; NaN where a process learns no losses.
    loss: float
    rank_losses: list[float]
    # Global norm before clipping.
    grad_norm: float


def batch_keys(config: RunConfig, images: Selection, batch: int) -> list[str]:
    """Return the keys of the samples of global batch `batch`, in the order they are read; of a stream, none."""
    if config.data.streaming:
        return []
    positions = np.arange(batch * config.global_batch_size, (batch + 1) * config.global_batch_size, dtype=np.int64)
    samples = images.order(config.seed, config.global_batch_size).samples(positions)
    return [images.train_split.key(sample) for sample in samples.tolist()]


def respond_to(
    incidents: Sequence[Incident], config: RunConfig, images: Selection, folder: RunFolder, *, is_first: bool
) -> Incident | None:
    """Write `incidents` to the run folder and log them; return the one after which the run is to be rewound, if any.

    Raises `GuardError` for one whose policy ends the run, and for the one after `guards.max_incidents`. Every process
    calls it with the same incidents and ends in the same way; the first one writes.
    """
    for incident in incidents:
        if is_first:
            _write(incident, config, images, folder)
            _logger.warning("%s", _describe(incident))
        if incident.policy == "raise":
            raise GuardError(f"{_describe(incident)}; {_advice(incident, folder)}")
        if incident.number > config.guards.max_incidents:
            raise GuardError(
                f"{_describe(incident)}; it is incident {incident.number}, more than guards.max_incidents="
                f"{config.guards.max_incidents}; {_advice(incident, folder)}"
            )
        if incident.policy == "rewind":
            return incident
    return None


def no_checkpoint_before(incident: Incident, folder: RunFolder) -> GuardError:
    """Return the error that ends a run which would rewind to before its first checkpoint."""
    return GuardError(
        f"{_describe(incident)}; but there is no checkpoint yet; lower checkpoints.every, or begin anew with a lower "
        f"optimizer.learning_rate; its samples are in {folder.incidents}"
    )


def _write(incident: Incident, config: RunConfig, images: Selection, folder: RunFolder) -> None:
    name = f"step_{incident.step:08d}_batch_{incident.batch:08d}.json"
    values = {key: _for_json(value) for key, value in asdict(incident).items()}
    keys = batch_keys(config, images, incident.batch)
    write_json(folder.incidents / name, {"schema_version": SCHEMA_VERSION, **values, "keys": keys})


def _for_json(value: object) -> object:
    """Return `value` with the numbers that JSON lacks as words: "nan", "inf"."""
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _describe(incident: Incident) -> str:
    done = {"raise": "its update was left out", "skip-batch": "its update was left out", "rewind": "rewinding"}
    return (
        f"step {incident.step}: {incident.reason} (loss {incident.loss:.4g}, gradient norm {incident.grad_norm:.4g}, "
        f"global batch {incident.batch}); {done[incident.policy]}"
    )


def _advice(incident: Incident, folder: RunFolder) -> str:
    key = "non_finite" if incident.reason == NON_FINITE else "loss_spike"
    return (
        f"look at its samples ({folder.incidents}), then start again from the last checkpoint with guards.{key}="
        f"skip-batch or rewind, or begin anew with a lower optimizer.learning_rate"
    )
