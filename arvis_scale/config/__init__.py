"""The typed configuration of one training run: dataclasses <- YAML <- key=value, strict.

A configuration is data: loading one never imports or executes anything it names. Unknown keys are refused with their
nearest neighbour, wrong types with the key and the value, contradictions (`RunConfig.validate`) before anything starts.
One file per section, each field's meaning and unit beside it; `run.RunConfig` holds them all.
"""

from arvis_scale.config.building import ConfigBuilder, build_config, check_key
from arvis_scale.config.checkpoints import CheckpointConfig
from arvis_scale.config.data import DataConfig, ProbeDataConfig
from arvis_scale.config.guards import GuardConfig
from arvis_scale.config.hints import suggestion
from arvis_scale.config.keys import flat_keys, leaves_of
from arvis_scale.config.loading import (
    load_config,
    load_yaml,
    parse_override,
    recipe_names,
    recipe_path,
    save_config,
)
from arvis_scale.config.log import LogConfig, ProfileConfig
from arvis_scale.config.optimizer import OptimizerConfig
from arvis_scale.config.parallel import STRATEGIES, ParallelConfig
from arvis_scale.config.run import OBJECTIVES, RunConfig
from arvis_scale.config.teacher import TeacherConfig

__all__ = [
    "OBJECTIVES",
    "STRATEGIES",
    "CheckpointConfig",
    "ConfigBuilder",
    "DataConfig",
    "GuardConfig",
    "LogConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "ProbeDataConfig",
    "ProfileConfig",
    "RunConfig",
    "TeacherConfig",
    "build_config",
    "check_key",
    "flat_keys",
    "leaves_of",
    "load_config",
    "load_yaml",
    "parse_override",
    "recipe_names",
    "recipe_path",
    "save_config",
    "suggestion",
]
