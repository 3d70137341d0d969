"""Typed configurations from dotted keys, strict; one, or thousands that share most of their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema
from arvis_scale.config.hints import suggestion
from arvis_scale.config.keys import FREE_FORM, flat_keys, leaves_of
from arvis_scale.config.run import SCHEMA_VERSION, RunConfig


@dataclass(frozen=True)
class _Typed:
    """A value as its key has it, and the keys within it that are missing."""

    value: Any
    missing: tuple[str, ...] = ()


class ConfigBuilder:
    """Builds configurations that share the keys of one file.

    OmegaConf checks and converts every different value of a key once, and the typed values are put together here: a run
    of a sweep costs 0.3 ms instead of 6. Configurations share what they have in common; change none in place.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._given = flat_keys(values)
        self._typed: dict[tuple[str, str], _Typed] = {}

    def build(self, overrides: Mapping[str, Any], source: str) -> RunConfig:
        """Return the validated configuration with dotted-key `overrides` on top.

        `source` is what an error names: a file, or the run of a study.
        """
        run = self.assemble(overrides, source)
        run.validate()
        return run

    def assemble(self, overrides: Mapping[str, Any], source: str) -> RunConfig:
        """Return the same configuration, complete and typed, but not validated."""
        flat = {**self._given, **flat_keys(overrides)}
        if any("${" in str(value) for value in flat.values()):
            return _interpolated(flat, source)
        unset = set(_missing_by_default())
        leaves: dict[str, Any] = {}
        for key, value in flat.items():
            if key.startswith(f"{FREE_FORM}."):
                leaves[FREE_FORM] = _with_free_key(leaves.get(FREE_FORM, {}), key, value, source)
                continue
            typed = self._convert(key, value, source)
            unset.discard(key)
            unset.update(typed.missing)
            if not (typed.value is None and isinstance(value, Mapping)):  # an empty section says nothing
                leaves[key] = typed.value
        _refuse_missing(unset, source)
        run: RunConfig = _replaced(_defaults(), _nested(leaves))
        check_schema(source, run.schema_version, SCHEMA_VERSION)
        return run

    def _convert(self, key: str, value: Any, source: str) -> _Typed:
        place = (key, f"{type(value).__name__} {value!r}")
        if place not in self._typed:
            check_key(key, source)
            self._typed[place] = _typed(key, value, source)
        return self._typed[place]


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> RunConfig:
    """Return the validated configuration of nested `values` with dotted-key `overrides` on top.

    `source` is what an error names: a file, or the run of a study.
    """
    return ConfigBuilder(values).build(overrides, source)


@cache
def _schema() -> DictConfig:
    schema = OmegaConf.structured(RunConfig)
    assert isinstance(schema, DictConfig)
    return schema


@cache
def _defaults() -> RunConfig:
    return RunConfig()


@cache
def _known_keys() -> tuple[str, ...]:
    return tuple(leaves_of(_defaults()))  # without the sections themselves


@cache
def _missing_by_default() -> frozenset[str]:
    return frozenset(OmegaConf.missing_keys(_schema()))


@cache
def _sections() -> tuple[str, ...]:
    parts = [key.split(".")[:-1] for key in _known_keys()]
    return tuple(sorted({".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}))


@cache
def _scratch() -> DictConfig:
    return _schema().copy()


def _typed(key: str, value: Any, source: str) -> _Typed:
    # A copy of the schema costs as much as all else; scalars may be written over each other in one.
    is_scalar = not isinstance(value, Mapping | list) and value != MISSING and key != FREE_FORM
    config = _scratch() if is_scalar else _schema().copy()
    try:
        OmegaConf.update(config, key, value)
        if key in _sections():
            return _Typed(None)
        missing = () if is_scalar else sorted(OmegaConf.missing_keys(config) - (_missing_by_default() - {key}))
        return _Typed(None if missing else _plain(config, key), tuple(missing))
    except OmegaConfBaseException as error:
        raise ValueError(f"{source}: {key}={value!r}: {str(error).splitlines()[0]}") from error


def _plain(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def _with_free_key(before: Mapping[str, Any], key: str, value: Any, source: str) -> Any:
    config = _schema().copy()
    try:
        OmegaConf.update(config, FREE_FORM, before)
        OmegaConf.update(config, key, value)
        return _plain(config, FREE_FORM)
    except OmegaConfBaseException as error:
        raise ValueError(f"{source}: {key}={value!r}: {str(error).splitlines()[0]}") from error


def _interpolated(flat: Mapping[str, Any], source: str) -> RunConfig:
    """Build a configuration with values such as `${seed}`, which OmegaConf reads in the whole alone."""
    config = _schema().copy()
    for key, value in flat.items():
        check_key(key, source)
        try:
            OmegaConf.update(config, key, value)
        except OmegaConfBaseException as error:
            raise ValueError(f"{source}: {key}={value!r}: {str(error).splitlines()[0]}") from error
    _refuse_missing(OmegaConf.missing_keys(config), source)
    try:
        run = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ValueError(f"{source}: {error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(run, RunConfig)
    check_schema(source, run.schema_version, SCHEMA_VERSION)
    return run


def _refuse_missing(missing: set[str], source: str) -> None:
    if missing:
        names = sorted(missing)
        raise ValueError(f"{source}: {', '.join(names)} must be given (in the file or as {names[0]}=...)")


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, leaf = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return nested


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a copy of a dataclass with nested changes."""
    return replace(
        config,
        **{
            name: _replaced(current, value) if is_dataclass(current := getattr(config, name)) else value
            for name, value in changes.items()
        },
    )


def check_key(key: str, source: str) -> None:
    """Raise `ValueError` for a dotted key that no configuration has; it names `source` and the nearest key."""
    known = (*_known_keys(), *_sections())
    if key in known or key.startswith(f"{FREE_FORM}."):
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
