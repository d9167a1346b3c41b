"""Gradient updates per second of DSRL against the reference's structure, on one core, in one run.

    python -m benchmarks.updates [FILE]

The reference DSRL is made of Stable-Baselines3's SAC, and runs the policy within every update where critics
are noise-aliased. Both sides have the same networks (LayerNorm included), sizes of observation and action,
batch, twin critics, tuned temperature and transitions, and draw their own batches. They take turns, so that
whatever else the machine does slows both. "matrix products" is what no implementation in this precision can
go below.

What made ours faster: the critics as one batched product, fused Adam, gradients only towards the actor where
the critics' would be thrown away, all batches of a step drawn at once. What did not: `torch.compile` of an
update (half as fast). Three times the peer's rate would leave 0.2 ms for all but matrix products.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure
from torch import Generator, Tensor, nn

from benchmarks.reference_na import ReferenceNa
from benchmarks.speed import made_up
from robopolicy.checkpoint import write_json
from robopolicy.config import POLICY_PRESETS, STEER_PRESETS, WORLD_PRESETS
from robopolicy.data.windows import PolicyWindows
from robopolicy.policies.train import new_policy
from robopolicy.results import hardware, versions
from robopolicy.steering.dsrl import Dsrl
from robopolicy.steering.dsrl_na import DsrlNa
from robopolicy.steering.networks import Mlp
from robopolicy.steering.replay import Batch
from sim.tasks import LIFT
from world_models.imagined_env import ImaginedEnv
from world_models.state import StateWorldModel

RESULTS = Path(__file__).parent / "results" / "updates.json"
_CONFIG = STEER_PRESETS["quick"]
_ROUNDS, _TURN, _TRANSITIONS = 15, 120, 5000


class NormReLU(nn.Sequential):
    """What `robopolicy.steering.networks.Mlp` has between its layers, where its peer has an activation."""

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm(_CONFIG.hidden, elementwise_affine=False), nn.ReLU())


class Sizes(gymnasium.Env):
    """Only spaces: nothing is ever done in it."""

    def __init__(self, features: int, latent: int):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (features,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (latent,), np.float32)


def main() -> None:
    """Measures all sides by turns, prints the ratios and writes the results file."""
    torch.set_num_threads(1)
    generator = Generator().manual_seed(0)
    ours, aliased = our_side(Dsrl, generator), our_side(DsrlNa, generator)
    sizes = ours.steerer.features.size, ours.actor.size, aliased.actions.size
    data, chunks = (transitions(_TRANSITIONS, sizes[0], n, generator) for n in sizes[1:])
    ours.replay.add(data)
    aliased.replay.add(chunks)
    own = _CONFIG.dsrl
    theirs, reference = their_side(data), their_aliased_side(aliased, data, chunks)
    products = matrix_products(ours)
    sides: dict[str, Callable[[], Any]] = {
        "robopolicy dsrl": lambda: [ours.learn(generator) for _ in range(_TURN // own.updates)],
        "stable_baselines3 dsrl": lambda: theirs.train(_TURN, own.batch),
        "matrix products of dsrl": lambda: [products() for _ in range(_TURN)],
        "robopolicy dsrl-na": lambda: [aliased.learn(generator) for _ in range(_TURN // own.updates)],
        "stable_baselines3 dsrl-na": lambda: reference.train(_TURN, own.batch),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + _ROUNDS):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            if turn:  # the first warms up
                rates[name].append(_TURN / (time.perf_counter() - began))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    ratios = {m: medians[f"robopolicy {m}"] / medians[f"stable_baselines3 {m}"] for m in ("dsrl", "dsrl-na")}
    possible = medians["matrix products of dsrl"] / medians["stable_baselines3 dsrl"]
    result = {
        "schema": 1,
        "updates_per_s": {name: round(rate, 1) for name, rate in medians.items()},
        "ratio": {method: round(ratio, 2) for method, ratio in ratios.items()},
        "ratio_of_matrix_products_alone": round(possible, 2),
        "config": {
            "features": sizes[0],
            "latent": sizes[1],
            "actions": sizes[2],
            "hidden": [_CONFIG.hidden] * _CONFIG.layers,
            "batch": own.batch,
            "rounds": _ROUNDS,
            "updates_per_round": _TURN,
        },
        "versions": versions() | {"stable_baselines3": version("stable-baselines3")},
        "hardware": hardware(),
    }
    write_json(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS, result)
    for name, rate in medians.items():
        print(f"{name}: {rate:,.0f} updates/s")
    print(f"{result['ratio']}; matrix products alone would be {possible:.2f}x")


def transitions(count: int, features: int, latent: int, generator: Generator) -> Batch:
    """Made-up ones: how long an update takes does not depend on them."""
    return Batch(
        features=torch.randn(count, features, generator=generator),
        latent=2 * torch.rand(count, latent, generator=generator) - 1,
        reward=torch.rand(count, generator=generator),
        following=torch.randn(count, features, generator=generator),
        discount=torch.full((count,), _CONFIG.gamma),
    )


def our_side[T: (Dsrl, DsrlNa)](learner: type[T], generator: Generator) -> T:
    """DSRL for Lift's sizes, with untrained models; only the policy is ever asked, by `DsrlNa`."""
    episode = made_up()
    policy = new_policy(LIFT, POLICY_PRESETS["quick"], PolicyWindows([episode], LIFT), 0)
    starts = np.repeat(episode.states[None, :1], LIFT.obs_steps, 1)
    env = ImaginedEnv(StateWorldModel(LIFT, WORLD_PRESETS["quick"]), starts, 1)
    # gymnasium means something else by `spec`, so its type hides ours.
    return learner(policy, cast(Any, env), [episode], _CONFIG, generator)


def their_side(data: Batch) -> SAC:
    """SAC with the same settings, its replay filled with `data`."""
    own = _CONFIG.dsrl
    peer = SAC(
        "MlpPolicy",
        Sizes(data.features.shape[1], data.latent.shape[1]),
        learning_rate=own.lr,
        buffer_size=own.capacity,
        batch_size=own.batch,
        tau=own.tau,
        gamma=_CONFIG.gamma,
        ent_coef=f"auto_{own.alpha}",
        policy_kwargs={"net_arch": [_CONFIG.hidden] * _CONFIG.layers, "activation_fn": NormReLU},
        device="cpu",
        seed=0,
    )
    peer.set_logger(configure(None, []))
    for f, u, r, n, _ in zip(*(x.numpy() for x in data), strict=True):
        peer.replay_buffer.add(f[None], n[None], u[None], r[None], np.zeros(1, bool), [{}])  # pyright: ignore
    return peer


def their_aliased_side(ours: DsrlNa, data: Batch, chunks: Batch) -> ReferenceNa:
    """The reference's structure, with the very policy that `ours` runs."""
    obs = torch.zeros(_CONFIG.dsrl.batch, *ours.steerer.features.shape)

    def run_policy(latent: Tensor) -> Tensor:
        return ours.actions(ours.decode(obs, ours.actor.expand(latent)))

    return ReferenceNa(their_side(data), their_side(chunks), run_policy)


def matrix_products(ours: Dsrl) -> Callable[[], None]:
    """The matrix products of one update, forward and back, and nothing else."""
    critics, actor, batch = ours.critics.net, ours.actor.net, _CONFIG.dsrl.batch
    made: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(net: Mlp, weights: bool, inputs: int) -> None:
        """Forward; gradients of the weights; of what enters the layers from number `inputs` on."""
        for i, w in enumerate(net.weights):
            members, a, b = w.shape
            here, there, weight = (torch.randn(members, *s) for s in ((batch, a), (batch, b), (a, b)))
            made.append((here, weight, there))
            if weights:
                made.append((here.mT, there.clone(), weight.clone()))
            if i >= inputs:
                made.append((there.clone(), weight.mT, here.clone()))

    none = len(critics.weights)
    add(actor, False, none)  # noise at what followed
    add(critics, False, none)  # its value
    add(critics, True, 1)
    add(actor, True, 1)
    add(critics, False, 0)  # through the critics to the actor

    def work() -> None:
        for left, right, out in made:
            torch.bmm(left, right, out=out)

    return work


if __name__ == "__main__":
    main()
