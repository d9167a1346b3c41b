"""Where imagination is wrong and says so: the doubt guard; where there is no imagination: the simulator."""

import dataclasses

import pytest
import torch
from steering_toy import LEARNING, ToyEnv, ToyPolicy, recorded

from robopolicy.steering.imagination import RealEnv, Slots
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.steer import imagined_success, steer


def test_real_environment_never_doubts_and_counts_its_steps(tmp_path):
    real, exam = RealEnv(ToyEnv(4)), RealEnv(ToyEnv(4))
    config = dataclasses.replace(LEARNING, dsrl=dataclasses.replace(LEARNING.dsrl, steps=5, envs=4))
    validate = imagined_success(exam, ToyPolicy(), 8, 0)
    result = steer(ToyPolicy(), lambda n: real, recorded(20), tmp_path, config, 0, validate)
    assert all(row["doubt"] == 0 == row["lost"] for row in result["rows"])
    # At most 5 learner steps x 4 slots x 2 actions per chunk.
    assert 20 < real.steps <= 40
    assert exam.steps > real.steps


def test_real_environment_resumed_starts_all_episodes_anew_and_keeps_its_count():
    def slots():
        return Slots(RealEnv(ToyEnv(3)), ToyPolicy())

    first, second = slots(), slots()
    first.restart(torch.Generator().manual_seed(0))
    first.act(torch.zeros(3, 2, 2))
    assert not first.ended.any()
    second.load_state(first.state())
    assert second.ended.all()
    assert second.env.state()["steps"] == 6
    second.restart(torch.Generator().manual_seed(1))
    assert second.act(torch.zeros(3, 2, 2)).active.all()


@pytest.mark.parametrize("method", ["dsrl", "dsrl-na"])
def test_warm_start_alone_already_beats_the_plain_policy(method, tmp_path):
    own = dataclasses.replace(LEARNING.dsrl, steps=1, envs=1)
    warm = dataclasses.replace(LEARNING, method=method, warm_start=300, dsrl=own)
    cold = dataclasses.replace(warm, warm_start=0)
    episodes = recorded(200, UniformNoise(1.5, repeat=True))
    validate = imagined_success(ToyEnv(32), ToyPolicy(), 64, 0)
    rates = {
        name: steer(ToyPolicy(), ToyEnv, episodes, tmp_path / name, config, 0, validate)
        for name, config in (("warm", warm), ("cold", cold))
    }
    assert rates["warm"]["best"]["rate"] > rates["cold"]["best"]["rate"] + 0.2
    assert rates["warm"]["best"]["rate"] > rates["warm"]["prior"]["rate"] + 0.2
