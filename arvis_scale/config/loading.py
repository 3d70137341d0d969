"""A configuration from YAML files and `key=value`, strict, and back to YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from arvis_scale.atomic import write_text
from arvis_scale.config.building import build_config
from arvis_scale.config.hints import suggestion
from arvis_scale.config.run import RunConfig

# libyaml's, where PyYAML was built with it, write and read ten times as fast.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
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


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a YAML file or recipe with `key=value` overrides on top."""
    path = recipe_path(name_or_path)
    return build_config(load_yaml(path), dict(map(parse_override, overrides)), str(path))


def save_config(config: RunConfig, path: Path) -> None:
    """Write every key of `config` as YAML, so that the file alone repeats the run."""
    write_text(path, yaml.dump(asdict(config), Dumper=_DUMPER, sort_keys=False, allow_unicode=True))
