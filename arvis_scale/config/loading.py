"""A configuration from YAML files and `key=value`, strict, and back to YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema, write_text
from arvis_scale.config.hints import suggestion
from arvis_scale.config.run import SCHEMA_VERSION, RunConfig


def recipe_path(name_or_path: str) -> Path:
    """Return the YAML file that `name_or_path` means: a path, or the name of a recipe that ships with the package."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"{path} does not exist; name a YAML file or a recipe ({', '.join(recipe_names())})")
        return path
    if name_or_path not in recipe_names():
        raise ValueError(
            f"{name_or_path!r} is neither a YAML file nor a recipe{suggestion(name_or_path, recipe_names())}"
            f" (recipes: {', '.join(recipe_names())})"
        )
    return Path(str(resources.files("arvis_scale.recipes"))) / f"{name_or_path}.yaml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = Path(str(resources.files("arvis_scale.recipes")))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; `ValueError` names the file when it is not one."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no keys; expected a YAML mapping")
    return value


def parse_override(override: str) -> tuple[str, Any]:
    """Split `key=value`, the value read as YAML (`1e-3` as a number too, which YAML 1.1 alone would not do)."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"{override!r} is not of the form key=value")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: {text!r} is not a YAML value; quote it, as in {key}='\"...\"'") from error
    assert isinstance(value, dict), "a mapping was given"
    return key, value["value"]


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> RunConfig:
    """Return the validated configuration of nested `values` with dotted-key `overrides` on top.

    `source` is what an error names: a file, or the run of a study.
    """
    schema = OmegaConf.structured(RunConfig)
    flat = dict(_flatten(values))
    flat.update(overrides)
    for key in flat:
        _check_key(key, schema, source)
    config = OmegaConf.create(schema)
    for key, value in flat.items():
        try:
            OmegaConf.update(config, key, value)
        except OmegaConfBaseException as error:
            raise ValueError(f"{source}: {key}={value!r}: {str(error).splitlines()[0]}") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)} must be given (in the file or as {missing[0]}=...)")
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    check_schema(source, run.schema_version, SCHEMA_VERSION)
    run.validate()
    return run


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a YAML file or recipe with `key=value` overrides on top."""
    path = recipe_path(name_or_path)
    return build_config(load_yaml(path), dict(map(parse_override, overrides)), str(path))


def save_config(config: RunConfig, path: Path) -> None:
    """Write every key of `config` as YAML, so that the file alone repeats the run."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted keys and leaf values. `parallel.deepspeed` is free-form and stays one leaf."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted != "parallel.deepspeed":
            flat.extend(_flatten(value, f"{dotted}."))
        else:
            flat.append((dotted, value))
    return flat


def _known_keys(schema: DictConfig, prefix: str = "") -> list[str]:
    known: list[str] = []
    for key in map(str, schema):
        node = schema._get_node(key)
        known.append(f"{prefix}{key}")
        if isinstance(node, DictConfig) and f"{prefix}{key}" != "parallel.deepspeed":
            known.extend(_known_keys(node, f"{prefix}{key}."))
    return known


def _check_key(key: str, schema: DictConfig, source: str) -> None:
    known = _known_keys(schema)
    if key in known or key.startswith("parallel.deepspeed."):
        return
    section, _, leaf = key.rpartition(".")
    # People put a key into the wrong section, or misspell it within the right one.
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    siblings = [other.rpartition(".")[2] for other in known if section and other.rpartition(".")[0] == section]
    if same_leaf:
        hint = f"; did you mean {same_leaf[0]!r}?"
    elif siblings:
        hint = suggestion(leaf, siblings) or f"; {section} has {', '.join(siblings)}"
    else:
        hint = suggestion(key, known)
    raise ValueError(f"{source}: unknown key {key!r}{hint}")
