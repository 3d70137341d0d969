"""A run's course stands in metrics.jsonl and in TensorBoard once, whatever a crash leaves behind."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from arvis_scale.config import load_config, save_config
from arvis_scale.engine.logs.metrics_log import MetricsLog, read_metrics
from arvis_scale.engine.run_folder import RunFolder

NUM_STEPS = 4
PICTURE = {"attention_mask/raster": torch.zeros(3, 8, 8)}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def config(folder):
    given = [f"output={folder.path}", "name=a", "objective=xtra", "data.shards=b", "samples_seen=256"]
    config = load_config("digits", given)
    save_config(config, folder.config)
    return config


def start(folder, step):
    return MetricsLog(folder, step=step, num_steps=NUM_STEPS, is_first=True)


def shown(folder):
    """Return what TensorBoard's own reader finds: entries by tag, tags without entries left out."""
    return {**entries(folder.tensorboard), **entries(folder.tensorboard_images)}


def entries(events):
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    found = {tag: accumulator.Tensors(tag) for tag in accumulator.Tags()["tensors"]}
    return {tag: points for tag, points in found.items() if points}


def points(folder, tag):
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in shown(folder)[tag]]


def test_cut_last_line_of_metrics_is_left_out_and_another_bad_line_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(file) == [{"step": 1, "loss": 2.0}]
    file.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    with pytest.raises(ValueError, match="metrics.jsonl line 1"):
        read_metrics(file)


def test_a_value_that_is_not_finite_is_null_and_no_point(folder):
    with start(folder, 0) as log:
        log.scalars(1, {"loss": float("inf"), "mfu": None, "lr": 0.5})
    assert json.loads(folder.metrics.read_text()) == {"step": 1, "loss": None, "mfu": None, "lr": 0.5}
    assert shown(folder).keys() == {"optimizer/lr"}


def test_resuming_drops_what_came_after_the_checkpoint(folder):
    with start(folder, 0) as log:
        for step in (1, 2, 3):
            log.scalars(step, {"loss": float(step)})
        log.images(3, PICTURE)
    with start(folder, 2) as log:
        log.scalars(4, {"loss": 4.0})
    expected = [(1, 1.0), (2, 2.0), (4, 4.0)]
    assert [(line["step"], line["loss"]) for line in read_metrics(folder.metrics)] == expected
    assert points(folder, "loss/loss") == expected
    assert "pictures/attention_mask/raster" not in shown(folder)


def test_a_run_that_begins_again_shows_nothing_of_before(folder, config):
    for loss in (1.0, 2.0):
        with start(folder, 0) as log:
            assert log.is_new
            log.begin(config, unique_images=7, images=PICTURE)
            log.scalars(1, {"loss": loss})
    assert read_metrics(folder.metrics) == [{"step": 1, "loss": 2.0}]
    assert points(folder, "loss/loss") == [(1, 2.0)]
    assert len(shown(folder)["pictures/attention_mask/raster"]) == 1
    assert len(shown(folder)["config/text_summary"]) == 1


def test_the_last_step_s_validation_is_done_again_and_stands_once(folder):
    with start(folder, 0) as log:
        log.scalars(NUM_STEPS, {"loss": 1.0})
        log.scalars(NUM_STEPS, {"val_loss": 0.75})
    with start(folder, NUM_STEPS) as log:
        log.scalars(NUM_STEPS, {"val_loss": 0.5})
    assert read_metrics(folder.metrics) == [{"step": NUM_STEPS, "loss": 1.0}, {"step": NUM_STEPS, "val_loss": 0.5}]
    assert points(folder, "loss/loss") == [(NUM_STEPS, 1.0)]
    assert points(folder, "loss/val_loss") == [(NUM_STEPS, 0.5)]


def test_pictures_have_a_folder_of_their_own(folder, config):
    with start(folder, 0) as log:
        log.begin(config, unique_images=7, images=PICTURE)
        log.scalars(1, {"loss": 1.0})
    assert entries(folder.tensorboard_images).keys() == {"pictures/attention_mask/raster"}
    assert entries(folder.tensorboard).keys() >= {"loss/loss", "config/text_summary"}
    assert "pictures/attention_mask/raster" not in entries(folder.tensorboard)


def test_what_the_run_is_is_shown_at_its_first_start_alone(folder, config):
    with start(folder, 2) as log:  # a branch: its own first start, but not step 0
        assert log.is_new
        log.begin(config, unique_images=7, images={})
    with start(folder, 2) as log:
        assert not log.is_new
    (text,) = shown(folder)["config/text_summary"]
    assert text.step == 2
    assert folder.config.read_text() in text.tensor_proto.string_val[0].decode()


def test_probes_are_shown_by_their_accuracy(folder):
    with start(folder, 0) as log:
        log.finish(NUM_STEPS, {"linear": {"accuracy": 0.5}, "linear_by_layer": [{"layer": 1, "accuracy": 0.25}]})
    assert points(folder, "probe/linear_accuracy") == [(NUM_STEPS, 0.5)]


def test_other_processes_write_nothing(folder, config):
    with MetricsLog(folder, step=0, num_steps=NUM_STEPS, is_first=False) as log:
        assert not log.is_new
        log.scalars(1, {"loss": 1.0})
        log.images(1, PICTURE)
        log.finish(1, {"linear": {"accuracy": 0.5}})
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml"]
