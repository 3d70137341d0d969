"""The HPARAMS page of a sweep: a line per trained run, a column per key in which they differ, and what they reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from arvis_scale.engine.logs.metric_names import PROBE_ACCURACY, VAL_LOSS

# These come first, the page shows five columns; others follow where the runs differ in them.
_FIRST = ("objective", "preset", "unique_images", "samples_seen", "optimizer.learning_rate", "seed")
# What changes none of a run's numbers, or is another name for it.
_LEFT_OUT = (
    "schema_version",
    "name",
    "output",
    "micro_batch_size",
    "parallel.",
    "checkpoints.",
    "log.",
    "guards.",
    "profile.",
    "data.num_workers",
    "parent",
)
_METRICS = {PROBE_ACCURACY: "linear probe accuracy", VAL_LOSS: "validation loss"}
# Dotted keys of the runs' configurations, in the page's order: the words that a column holds, or None for numbers.
Columns = dict[str, list[str] | None]


def hparam_columns(configs: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the page's columns: objective, preset and every other key in which the runs differ."""
    keys = {key for config in configs for key in config if not key.startswith(_LEFT_OUT)}
    values = {key: _values(key, configs) for key in keys}
    others = sorted(key for key in keys if key not in _FIRST)
    shown = [
        key for key in (*_FIRST, *others) if len(values.get(key, ())) > (0 if key in ("objective", "preset") else 1)
    ]
    return {key: None if _is_number(values[key]) else sorted(map(str, values[key])) for key in shown}


def experiment(columns: Columns) -> Summary:
    """Return the summary that defines the page's columns."""
    infos = []
    for key, words in columns.items():
        info = api_pb2.HParamInfo(name=key, display_name=key.removeprefix("optimizer."), differs=True)
        info.type = api_pb2.DATA_TYPE_FLOAT64 if words is None else api_pb2.DATA_TYPE_STRING
        if words is not None:
            info.domain_discrete.extend(words)
        infos.append(info)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for tag, name in _METRICS.items()
    ]
    table = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    return _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=table))


def session_start(config: Mapping[str, Any], columns: Columns, name: str) -> Summary:
    """Return the summary that makes a run a line of the page."""
    values = {
        key: config[key] if words is None else str(config[key])
        for key, words in columns.items()
        if config.get(key) is not None
    }
    # Runs with equal values, as two of one study can be in these columns, stay lines of their own.
    return hparams_pb(values, trial_id=name)


def session_end() -> Summary:
    """Return the summary that says that a run completed."""
    ended = SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended))


def _summary(tag: str, data: HParamsPluginData) -> Summary:
    described = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])


def _values(key: str, configs: Sequence[Mapping[str, Any]]) -> set[bool | float | str]:
    return {config[key] for config in configs if isinstance(config.get(key), bool | int | float | str)}


def _is_number(values: set[bool | float | str]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
