"""Runs that cannot be compiled are refused before they start."""

import pytest

from arvis_scale.config import load_config
from arvis_scale.engine.parallel.compilation import check_compiler

COMPILED = ["name=a", "output=runs/a", "objective=xtra", "data.shards=shards/a", "parallel.compile=true"]


def test_without_a_compiler_a_compiled_run_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match=r"parallel.compile=true needs a C\+\+ compiler, and there is no no-such-compiler"
    ):
        check_compiler(load_config("digits", COMPILED))
    check_compiler(load_config("digits", [*COMPILED, "parallel.compile=false"]))


def test_a_pipeline_is_not_compiled():
    pipeline = ["parallel.strategy=pipeline", "parallel.stages=2", "parallel.processes=2"]
    with pytest.raises(ValueError, match="parallel.compile=true with parallel.strategy=pipeline"):
        load_config("digits", [*COMPILED, *pipeline])
