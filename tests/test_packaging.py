"""What ships in the wheel beside Python: every package is listed, and so is every kind of file that they hold."""

import configparser
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PLACES = {"arvis_scale": "arvis_scale", "scaling_studies": "scaling_studies"}
MOVED = {"ds_configs": "arvis_scale.ds_configs", "slurm": "arvis_scale.slurm"}


def settings():
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return parser


def folders():
    """Yield every folder with Python in it and the package that it is."""
    for top, package in {**PLACES, **MOVED}.items():
        for init in (REPOSITORY / top).rglob("__init__.py"):
            inner = init.parent.relative_to(REPOSITORY / top).parts
            yield init.parent, ".".join([package, *inner])


def test_every_package_is_installed():
    listed = set(settings()["options"]["packages"].split())
    assert {package for _, package in folders()} == listed


def test_every_file_of_a_package_is_installed():
    patterns = [pattern.strip() for pattern in settings()["options.package_data"]["*"].split(",")]
    for folder, _ in folders():
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed":
                assert any(fnmatch(path.name, pattern) for pattern in patterns), path
