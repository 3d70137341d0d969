"""`arvis-scale demo` with shorter runs: everything from shards to the report, D-iGPT on two processes included."""

import json

import pytest

pytestmark = pytest.mark.processes


def test_demo_ends_with_a_report_of_every_run(tmp_path, arvis_scale):
    demo = arvis_scale("demo", "samples_seen=128", "--output", tmp_path / "demo")
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert f"report:      {tmp_path / 'demo' / 'report.html'}" in demo.stdout
    assert "sweep tensorboard" in demo.stdout

    runs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("demo/runs/*/result.json")}
    trained = [run for run in runs.values() if run["kind"] == "trained"]
    cells = {(run["objective"], run["preset"], run["unique_images"]) for run in trained}
    for objective in ("xtra", "aim"):
        sizes = {preset for name, preset, _ in cells if name == objective}
        images = {number for name, _, number in cells if name == objective}
        assert len(sizes) >= 3 and len(images) >= 4
        assert {(objective, size, number) for size in sizes for number in images} <= cells
    (digpt,) = [run for run in trained if run["objective"] == "digpt"]
    assert (digpt["strategy"], digpt["world_size"]) == ("zero3", 2)
    assert {run["kind"] for run in runs.values()} == {"trained", "untrained", "raw_pixels"}
    assert all(run["probes"]["linear"]["num_test"] == 797 for run in runs.values())

    fits = json.loads((tmp_path / "demo" / "fits.json").read_text())
    assert {curve["objective"] for curve in fits["curves"] if curve["status"] == "fitted"} == {"xtra", "aim"}
    page = (tmp_path / "demo" / "report.html").read_text()
    assert all(name in page for name in runs)
