"""What a run writes down about itself: speeds, traces, TensorBoard's pages."""

import gzip
import json
import math

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits, arvis_scale):
    """A run of eight steps that saves itself after the third, with steps 5 and 6 traced."""
    path = tmp_path_factory.mktemp("runs") / "logged"
    keys = {"objective": "xtra", "name": "logged", "output": path, "preset": "pico", "samples_seen": 8 * 32}
    keys |= {"data.shards": digits, "probe_data.shards": digits, "probe_data.train_images": 100}
    keys |= {"data.validation_images": 40, "global_batch_size": 32, "micro_batch_size": 16, "log.metrics_every": 2}
    keys |= {"checkpoints.every": 3, "profile.start": 5, "profile.steps": 2}
    done = arvis_scale("train", "digits", *(f"{key}={value}" for key, value in keys.items()))
    assert done.returncode == 0, done.stderr[-3000:]
    return RunFolder(path)


def test_speeds_of_every_logged_line_agree(folder):
    result = folder.read_result()
    lines = [line for line in read_metrics(folder.metrics) if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines:
        assert math.isclose(line["images_per_second"] * line["seconds_per_step"], 32, rel_tol=1e-9)
        flops = line["tflops_per_device"] * 1e12 / line["images_per_second_per_device"]
        assert math.isclose(flops * result["samples_seen"], result["train_flops"], rel_tol=1e-9)
        assert 0 < line["mfu"] < 1
        assert 0 < line["data_wait_fraction"] < 1
        assert line["memory_bytes"] > 100e6
    # The saves after steps 3 and 6 stand in the lines that follow them; the one after the last step in none.
    assert [line["checkpoint_seconds"] > 0 for line in lines] == [False, True, False, True]


def test_the_steps_asked_for_are_traced_with_their_phases(folder):
    (path,) = folder.profile.iterdir()
    assert path.name == "rank_00000.step_00000005.pt.trace.json.gz"
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert [name for name in names if name.startswith("ProfilerStep")] == ["ProfilerStep#5", "ProfilerStep#6"]
    for phase in ("data", "forward", "backward", "optimizer"):
        assert names.count(phase) == 4, phase  # two micro batches in each of two steps


def test_tensorboard_has_every_kind_of_page(folder):
    plugins = {}
    for events in (folder.tensorboard, folder.tensorboard_images):
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        for tag in accumulator.Tags()["tensors"]:
            plugins[tag] = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
    expected = {
        "loss/loss": "scalars",
        "loss/val_loss": "scalars",
        "optimizer/grad_norm": "scalars",
        "system/mfu": "scalars",
        "probe/linear_accuracy": "scalars",
        "pictures/attention_mask/raster": "images",
        "pictures/reconstruction": "images",
        "config/text_summary": "text",
        "_hparams_/session_start_info": "hparams",
        "_hparams_/session_end_info": "hparams",
    }
    assert expected.items() <= plugins.items()
