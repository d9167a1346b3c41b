"""`robopolicy serve` as a process: what a robot's nodes talk to."""

import signal
import subprocess
import sys
import threading

import numpy as np
import torch

from robopolicy.policies.load import load_policy
from robopolicy.seeding import stream
from robopolicy.wire import dial
from world_models.load import load_state_world


def test_serve_with_foresight_answers_until_it_is_told_to_end(here, tmp_path):
    address, command = str(tmp_path / "socket"), [sys.executable, "-m", "robopolicy.cli", "serve"]
    given = ["--policy", "policy", "--foresight", "world", "--address", address]
    with subprocess.Popen([*command, *given], cwd=here, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        policy, world = load_policy(here / "policy"), load_state_world(here / "world")
        obs = np.tile(policy.spec.state_range.mean(0), (policy.spec.obs_steps, 1)).astype(np.float32)
        with dial(address, threading.Event()) as client:
            assert client.request("hello")["joins"] is True
            client.request("reset", seed=1)
            first = client.request("act", obs=obs, step=0)["chunk"]
            second = client.request("join", obs=obs, step=2, since=2, late=3)["chunk"]
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    assert np.array_equal(second[:3], first[2:5])
    rng, dims = stream(1, "policy-noise"), policy.spec
    drawn = [rng.standard_normal((1, dims.chunk, dims.action_dim)).astype(np.float32) for _ in range(2)]
    meanwhile = np.concatenate([first[2:5], np.repeat(first[4:5], dims.chunk - 3, 0)])
    seen, chance = torch.from_numpy(obs)[None], torch.zeros(1, dims.chunk, dims.state_dim)
    course = world.predict(seen, torch.from_numpy(meanwhile)[None], chance).states[:, :3]
    there = torch.cat([seen, course], 1)[:, -dims.obs_steps :]
    plan, _ = policy.sample(there, {}, torch.from_numpy(drawn[1]))
    assert np.allclose(second[3:], plan[0, :-3], atol=1e-5)
