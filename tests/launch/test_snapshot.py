"""A submission's jobs run a copy of the code that submitted them."""

import json
import subprocess
import sys

import pytest

from arvis_scale.launch.executors import snapshot
from arvis_scale.launch.executors.snapshot import take_snapshot

WHERE = """
import arvis_scale, arvis_scale.engine.run_folder, scaling_studies
from importlib import resources
print(arvis_scale.__file__, scaling_studies.__file__, resources.files("arvis_scale.ds_configs") / "zero1.json",
      resources.files("arvis_scale.slurm.testcluster") / "cluster.sh", sep="\\n")
print(arvis_scale.engine.run_folder.git_commit())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return take_snapshot(tmp_path_factory.mktemp("a study's"))


def test_a_python_started_in_it_imports_from_it(folder):
    found = subprocess.run([sys.executable, "-c", WHERE], cwd=folder, capture_output=True, text=True, check=True)
    *files, commit = found.stdout.splitlines()
    for file in files:
        assert file.startswith(str(folder)), file
    assert (folder / "arvis_scale" / "ds_configs" / "zero1.json").is_file()
    assert commit == str(json.loads((folder / "snapshot.json").read_text())["git_commit"])


def test_the_same_code_is_copied_once(folder):
    before = folder.stat().st_mtime_ns
    assert take_snapshot(folder.parents[1]) == folder
    assert folder.stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_code_goes_to_another_folder(folder, tmp_path, monkeypatch):
    changed = tmp_path / "changed.py"
    changed.write_text("changed = True")
    files = {**snapshot._source_files(), "arvis_scale/changed.py": changed}
    monkeypatch.setattr(snapshot, "_source_files", lambda: files)
    other = take_snapshot(folder.parents[1])
    assert other != folder
    assert (other / "arvis_scale" / "changed.py").read_text() == "changed = True"


def test_nothing_but_the_code_is_copied(folder):
    names = {path.name for path in folder.rglob("*")}
    assert "__pycache__" not in names
    assert not [name for name in names if name.startswith(".")]
