"""The average of weights follows its law, counter included."""

import pytest
import torch
from torch import nn

from robopolicy.nets.ema import Ema


def module(value: float) -> nn.Module:
    net = nn.Linear(1, 1)
    for p in net.parameters():
        nn.init.constant_(p, value)
    return net


def test_average_of_constant_weights_is_those_weights():
    net = module(0.7)
    ema = Ema(net, 0.9)
    for _ in range(5):
        ema.update(net)
    assert all(torch.allclose(v, torch.tensor(0.7)) for v in ema.average.values())


def test_average_warms_up_and_then_keeps_its_decay():
    ema, average = Ema(module(0.0), 0.5), 0.0
    for i in range(30):
        ema.update(module(float(i)))
        decay = min(0.5, (1 + i) / (10 + i))
        average = decay * average + (1 - decay) * i
        assert ema.average["weight"].item() == pytest.approx(average, rel=1e-5)


def test_average_is_not_the_module_itself():
    net = module(0.0)
    ema = Ema(net, 0.9)
    nn.init.ones_(net.weight)
    assert ema.average["weight"].item() == 0


def test_restored_average_goes_on_where_it_was():
    ema, other = Ema(module(0.0), 0.99), Ema(module(5.0), 0.99)
    for i in range(7):
        ema.update(module(float(i)))
    other.load_state("ema", ema.state("ema"))
    for e in (ema, other):
        e.update(module(9.0))
    assert other.count == 8
    assert torch.equal(ema.average["weight"], other.average["weight"])
