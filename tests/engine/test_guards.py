"""A bad step changes nothing, on the device alone; good steps are those of plain AdamW, bit for bit."""

import json

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from torch.utils._python_dispatch import TorchDispatchMode

from arvis_scale.config import GuardConfig, build_config, load_yaml, recipe_path
from arvis_scale.data.build import build_shards
from arvis_scale.data.loader import training_batches
from arvis_scale.data.selection import select_images
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.exit_status import GuardError
from arvis_scale.engine.guarding.guards import Guards
from arvis_scale.engine.guarding.incidents import LOSS_SPIKE, NON_FINITE, Incident, respond_to
from arvis_scale.engine.guarding.spikes import SpikeDetector
from arvis_scale.engine.run_folder import RunFolder

ALONE = Processes(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"), control=None)


class Training:
    """A linear regression whose losses are what the test says, with or without guards."""

    def __init__(self, config=None, factors=()):
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(7, 5))
        self.optimizer = AdamW([self.weight], lr=0.1, weight_decay=0.05, fused=True)
        self.step, self.loss = 0, torch.zeros(())
        self.guards = None
        if config is not None:
            losses = lambda: torch.stack([self.loss.detach(), torch.ones(())])  # noqa: E731
            self.guards = Guards(config, self.optimizer, ALONE, grad_norm=self.norm, losses=losses)
        for factor in factors:
            self.train_step(factor)

    def norm(self):
        return self.weight.grad.norm()

    def train_step(self, factor=1.0):
        generator = torch.Generator().manual_seed(self.step)
        inputs, targets = (torch.randn(3, size, generator=generator) for size in (7, 5))
        self.loss = (inputs @ self.weight - targets).square().mean() * factor
        self.optimizer.zero_grad()
        self.loss.backward()
        self.optimizer.step()
        self.step += 1
        if self.guards is not None:
            self.guards.end_step(self.step)

    def state(self):
        moments = self.optimizer.state[self.weight]
        return {"weight": self.weight.detach().clone(), **{name: value.clone() for name, value in moments.items()}}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("policy", ["raise", "skip-batch", "rewind"])
def test_without_an_incident_training_is_plain_training(policy):
    guarded = Training(
        GuardConfig(non_finite=policy, loss_spike=policy, spike_window=3, spike_deviations=1e3), [1.0] * 20
    )
    assert guarded.guards.read() == []
    assert_same(guarded.state(), Training(None, [1.0] * 20).state())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_skipped_batch_leaves_weights_moments_and_step_count_alone(bad):
    training = Training(GuardConfig(non_finite="skip-batch"), [1.0, 1.0])
    before = training.state()
    training.train_step(bad)
    assert not training.guards.kept
    assert_same(training.state(), before)
    training.train_step()
    assert training.guards.kept
    assert training.state()["step"] == 3
    (incident,) = training.guards.read()
    assert (incident.step, incident.batch, incident.reason, incident.policy) == (3, 2, NON_FINITE, "skip-batch")
    assert not np.isfinite(incident.loss)
    assert not np.isfinite(incident.grad_norm)
    assert training.guards.read() == []


def test_a_loss_that_is_not_finite_is_found_though_its_gradient_is():
    training = Training(GuardConfig(non_finite="skip-batch"))
    training.norm = lambda: torch.ones(())
    guards = Guards(
        GuardConfig(),
        training.optimizer,
        ALONE,
        grad_norm=lambda: torch.ones(()),
        losses=lambda: torch.tensor([torch.inf, 1.0]),
    )
    before = training.weight.detach().clone()
    training.train_step()
    guards.end_step(1)
    assert [incident.reason for incident in guards.read()] == [NON_FINITE]
    assert torch.equal(training.weight, before)


@pytest.mark.parametrize("policy", ["raise", "rewind"])
def test_after_a_step_that_ends_the_run_nothing_changes_until_the_host_has_looked(policy):
    training = Training(GuardConfig(non_finite=policy), [1.0, 1.0])
    before = training.state()
    for factor in (float("nan"), 1.0, float("inf"), 1.0):
        training.train_step(factor)
    assert_same(training.state(), before)
    assert [incident.step for incident in training.guards.read()] == [3]
    training.guards.load({})
    training.train_step()
    assert training.state()["step"] == 3


class CountReads(TorchDispatchMode):
    """Counts how often the host asks for a value of a tensor: on a GPU each of them waits for it."""

    num_reads = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.num_reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(keywords or {}))


def test_steps_are_judged_without_a_look_from_the_host():
    training = Training(
        GuardConfig(non_finite="skip-batch", loss_spike="skip-batch", spike_window=3, spike_deviations=1e3), [1.0] * 4
    )
    with CountReads() as reads:
        for factor in (1.0, float("nan"), 1e6):
            training.train_step(factor)
    assert reads.num_reads == 0
    with CountReads() as reads:
        bool(training.guards.kept)
    assert reads.num_reads == 1
    assert [incident.reason for incident in training.guards.read()] == [NON_FINITE, LOSS_SPIKE]


def spikes_in(losses, window=20, deviations=8.0):
    detector = SpikeDetector(window, deviations, torch.device("cpu"))
    found = []
    for number, loss in enumerate(torch.as_tensor(losses)):
        is_spike = detector.is_spike(loss)
        detector.add(loss, ~is_spike)
        if is_spike:
            found.append(number)
    return found


def falling_losses(num_steps=400):
    noise = np.random.default_rng(0).normal(0, 0.02, num_steps)
    return 0.3 + 2.0 * np.exp(-np.arange(num_steps) / 60) + noise


def test_a_falling_noisy_loss_has_no_spike_and_each_of_three_is_found():
    losses = falling_losses()
    assert spikes_in(losses) == []
    losses[[100, 250, 251]] += [1.5, 0.5, 0.6]
    assert spikes_in(losses) == [100, 250, 251]


def test_a_loss_that_stays_high_stays_a_spike():
    losses = falling_losses()
    losses[300:] += 1.0
    assert spikes_in(losses) == list(range(300, 400))


def test_nothing_is_a_spike_before_the_window_is_full_or_where_the_loss_stands_still():
    assert spikes_in([1.0, 100.0, 1.0], window=3) == []
    assert spikes_in([1.0] * 10 + [1.0005], window=5) == []
    assert spikes_in([1.0] * 10 + [1.002], window=5) == [10]


def test_the_window_of_a_resumed_run_goes_on():
    losses = torch.as_tensor(falling_losses())
    whole = SpikeDetector(20, 8.0, torch.device("cpu"))
    for loss in losses[:50]:
        whole.add(loss, torch.tensor(True))
    resumed = SpikeDetector(20, 8.0, torch.device("cpu"))
    resumed.load(json.loads(json.dumps(whole.state())))
    assert resumed.state() == whole.state() == losses[30:50].tolist()
    shorter = SpikeDetector(5, 8.0, torch.device("cpu"))
    shorter.load(whole.state())
    assert shorter.state() == losses[45:50].tolist()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def run(digits, tmp_path):
    values = {"objective": "xtra", "name": "run", "output": str(tmp_path / "run"), "data.shards": str(digits)}
    values |= {"global_batch_size": 16, "micro_batch_size": 8, "unique_images": 50, "seed": 3}
    config = build_config(load_yaml(recipe_path("digits")), values, "test")
    return config, select_images(config.data, config.unique_images), RunFolder(config.output)


def incident(policy="skip-batch", step=8, number=1):
    return Incident(
        number=number,
        step=step,
        batch=step - 1,
        reason=NON_FINITE,
        policy=policy,
        loss=float("nan"),
        rank_losses=[0.5, float("inf")],
        grad_norm=float("nan"),
    )


def respond(run, *incidents):
    return respond_to(incidents, *run, is_first=True)


def test_an_incident_is_written_with_the_keys_of_the_samples_that_the_loader_gave(run):
    config, images, folder = run
    assert respond(run, incident()) is None
    (file,) = folder.incidents.iterdir()
    assert file.name == "step_00000008_batch_00000007.json"
    written = json.loads(file.read_text())
    assert (written["loss"], written["rank_losses"]) == ("nan", [0.5, "inf"])
    read = []
    for rank in range(2):
        batches = training_batches(
            images.train_split,
            images.order(config.seed, 16),
            image_size=32,
            crop_scale=(1.0, 1.0),
            crop_ratio=(1.0, 1.0),
            horizontal_flip=0.0,
            global_batch_size=16,
            micro_batch_size=8,
            rank=rank,
            world_size=2,
            num_workers=0,
            start_samples=7 * 16,
            num_samples=8 * 16,
        )
        (batch,) = batches
        read += batch["labels"].tolist()
    labels = {images.train_split.key(n): images.train_split.labels[n] for n in images.training_images()}
    assert [labels[key] for key in written["keys"]] == read


def test_each_policy_has_its_end(run):
    rewind = incident("rewind")
    assert respond(run, incident(step=6), rewind) is rewind
    with pytest.raises(GuardError, match=r"^step 8: loss or gradient that is not finite .*guards\.non_finite=") as stop:
        respond(run, incident("raise"))
    assert "\n" not in str(stop.value)
    run[0].guards.max_incidents = 3
    assert respond(run, incident(number=3)) is None
    with pytest.raises(GuardError, match=r"incident 4, more than guards\.max_incidents=3"):
        respond(run, incident(number=3), incident(step=9, number=4))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("non_finite", "skip"),
        ("loss_spike", "off"),
        ("spike_window", 2),
        ("spike_deviations", 0.0),
        ("watchdog_minutes", -1.0),
        ("time_limit_minutes", 0.0),
    ],
)
def test_a_setting_that_guards_nothing_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"guards.{key}="):
        GuardConfig(**{key: value}).validate()


def test_spikes_are_not_looked_for_with_an_optimizer_that_cannot_leave_an_update_out(digits):
    values = {"objective": "xtra", "name": "run", "output": "run", "data.shards": str(digits)}
    values |= {"optimizer.name": "muon", "optimizer.clip_grad_norm": "inf", "guards.loss_spike": "raise"}
    with pytest.raises(ValueError, match=r"guards\.loss_spike=raise .* optimizer\.name=muon"):
        build_config(load_yaml(recipe_path("digits")), values, "test")
