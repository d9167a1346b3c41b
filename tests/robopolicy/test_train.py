"""The training loop: resumed training is the same training, to the bit."""

import os
import signal

import pytest
import torch
from torch import nn

from robopolicy.devices import SCALARS
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.train import fit, load_optimizer_state, optimizer_state, seeded_init, warm_cosine

STEPS = 20


class Toy:
    """Regression with AdamW; `spoil` makes the loss of that step not finite."""

    def __init__(self, spoil: int = -1):
        with seeded_init(1):
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.spoil, self.seen = spoil, []

    def step(self, index, generator):
        x = torch.randn(16, 3, generator=generator)
        loss = (self.net(x) - x.sum(1, keepdim=True)).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seen.append(index)
        return {"loss": float("nan") if index == self.spoil else float(loss.detach())}

    def state(self):
        net = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        return net | optimizer_state(self.optimizer, "optimizer")

    def load_state(self, tensors):
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_state(self.optimizer, "optimizer", tensors)


def ctrl_c_at(step):
    """An `on_step` that presses Ctrl-C."""
    return lambda i, _: os.kill(os.getpid(), signal.SIGINT) if i == step else None


def same(a: Toy, b: Toy) -> bool:
    x, y = a.state(), b.state()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("at", [0, 7, STEPS - 2])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, at):
    straight = Toy()
    fit(straight, STEPS, 5, "toy", quiet=True)
    progress = tmp_path / "progress.safetensors"
    with pytest.raises(Interrupted, match=f"after step {at + 1} of {STEPS}"):
        fit(Toy(), STEPS, 5, "toy", progress, {"a": 1}, on_step=ctrl_c_at(at), quiet=True)
    resumed = Toy()
    fit(resumed, STEPS, 5, "toy", progress, {"a": 1}, quiet=True)
    assert resumed.seen == list(range(at + 1, STEPS))
    assert same(straight, resumed)


def test_several_interruptions_change_nothing(tmp_path):
    straight = Toy()
    fit(straight, STEPS, 5, "toy", quiet=True)
    for at in (2, 9, 15):
        with pytest.raises(Interrupted):
            fit(Toy(), STEPS, 5, "toy", tmp_path / "p", on_step=ctrl_c_at(at), quiet=True)
    resumed = Toy()
    fit(resumed, STEPS, 5, "toy", tmp_path / "p", quiet=True)
    assert same(straight, resumed)


def test_a_kill_loses_only_what_came_after_the_last_save(tmp_path):
    straight = Toy()
    fit(straight, STEPS, 5, "toy", quiet=True)

    class Killed(BaseException):
        pass

    def kill(i, _):
        if i == 12:
            raise Killed

    seconds = iter(range(1000))
    with pytest.raises(Killed):
        fit(
            Toy(), STEPS, 5, "toy", tmp_path / "p",
            save_every_s=5, clock=lambda: next(seconds), on_step=kill, quiet=True,
        )  # fmt: skip
    resumed = Toy()
    fit(resumed, STEPS, 5, "toy", tmp_path / "p", quiet=True)
    assert 0 < resumed.seen[0] <= 12
    assert same(straight, resumed)


def test_ctrl_c_works_again_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        fit(Toy(), STEPS, 5, "toy", tmp_path / "p", on_step=ctrl_c_at(0), quiet=True)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_seed_is_another_training():
    a, b = Toy(), Toy()
    fit(a, STEPS, 5, "toy", quiet=True)
    fit(b, STEPS, 6, "toy", quiet=True)
    assert not same(a, b)


@pytest.mark.parametrize(
    ("steps", "seed", "config"), [(STEPS + 1, 5, {"a": 1}), (STEPS, 6, {"a": 1}), (STEPS, 5, {"a": 2})]
)
def test_progress_of_another_configuration_is_refused(tmp_path, steps, seed, config):
    with pytest.raises(Interrupted):
        fit(Toy(), STEPS, 5, "toy", tmp_path / "p", {"a": 1}, on_step=ctrl_c_at(3), quiet=True)
    with pytest.raises(BadInput, match="same configuration"):
        fit(Toy(), steps, seed, "toy", tmp_path / "p", config, quiet=True)


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_progress(tmp_path):
    with pytest.raises(Interrupted):
        fit(Toy(), STEPS, 5, "toy", tmp_path / "p", on_step=ctrl_c_at(3), quiet=True)
    kept = (tmp_path / "p").read_bytes()
    with pytest.raises(RoboPolicyError, match="loss is nan at step 8"):
        fit(Toy(spoil=8), STEPS, 5, "toy", tmp_path / "p", quiet=True)
    assert (tmp_path / "p").read_bytes() == kept


def test_rows_are_a_curve():
    rows = fit(Toy(), 250, 5, "toy", quiet=True)
    assert [r["step"] for r in rows][-2:] == [248, 249]
    assert len(rows) == 126
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_scalars_of_a_loop_are_its_rows_where_the_environment_asks_for_them(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv(SCALARS, str(tmp_path))
    rows = fit(Toy(), STEPS, 0, "world model 1/3")
    found = EventAccumulator(str(tmp_path / "world-model-1-3"))
    found.Reload()
    written = [(s.step, s.value) for s in found.Scalars("loss")]
    assert written == [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows]


def test_initial_weights_leave_the_global_stream_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with seeded_init(1):
        a = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded_init(1):
        assert torch.equal(torch.rand(2), a)


def test_warm_cosine_warms_up_and_falls_to_zero():
    rates = [warm_cosine(i / 100) for i in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[5] == pytest.approx(1)
    assert rates[-1] == pytest.approx(0)
