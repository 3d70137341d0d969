"""The options stay plain data that a typed configuration can embed."""

from __future__ import annotations

import subprocess
import sys

from omegaconf import OmegaConf

from arvis_scale.models.options import AimOptions, DigptOptions, XtraOptions


def test_options_are_structured_configs() -> None:
    for options in (XtraOptions, AimOptions, DigptOptions):
        assert OmegaConf.to_object(OmegaConf.structured(options)) == options()


def test_options_and_presets_import_no_torch() -> None:
    code = "import sys, arvis_scale.models.options, arvis_scale.models.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
