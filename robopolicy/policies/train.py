"""Imitation: fits a chunk diffusion policy to demonstrations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_STATE,
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)
from torch import Generator, Tensor, nn

from robopolicy.checkpoint import PROGRESS, seal, tensor_hash
from robopolicy.config import PolicyConfig
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.windows import PolicyWindows
from robopolicy.devices import Devices, Log, scalar_log
from robopolicy.errors import BadInput
from robopolicy.nets.ema import Ema
from robopolicy.nets.mlp import sinusoid
from robopolicy.policies.adapter import CONFIG, MODEL
from robopolicy.policies.diffusion.configuration_chunk_diffusion import ChunkDiffusionConfig
from robopolicy.policies.diffusion.modeling_chunk_diffusion import ChunkDiffusionPolicy
from robopolicy.policies.diffusion.processor_chunk_diffusion import make_chunk_diffusion_pre_post_processors
from robopolicy.policies.load import ChunkPolicy, different_make, load_policy
from robopolicy.processes import leads
from robopolicy.seeding import torch_seed
from robopolicy.spec import Spec
from robopolicy.train import fit, load_optimizer_state, optimizer_state, seeded_init, warm_cosine

# Numbers by which the helper of `MemoryLearner` is told how long ago.
_LAG_SIZE = 16


class PolicyLearner:
    """Trains a chunk diffusion policy; a `robopolicy.train.Learner`.

    Args:
        policy: what is trained.
        data: what it is to imitate.
        config: settings.
        devices: where; this process alone if none.
    """

    def __init__(
        self, policy: ChunkPolicy, data: PolicyWindows, config: PolicyConfig, devices: Devices | None = None
    ):
        self.policy, self.config = policy, config
        self.devices = devices or Devices(config.precision)
        every = torch.arange(len(data))
        self.watch(data)
        self.actions = policy.normalize_actions(data.actions(every)).clamp(-1, 1).to(self.devices.device)
        self.is_pad = ~data.mask(every).bool().to(self.devices.device)
        self.trained = nn.ModuleDict({"net": policy.core, **self.helpers}).to(self.devices.device)
        self.ema = Ema(policy.core, config.ema_decay)
        if config.compiler:
            policy.core.denoiser.compile(backend=config.compiler)
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )

    def watch(self, data: PolicyWindows) -> None:
        """Keeps what the policy sees, ready for `loss`."""
        self.cond = self.policy.condition(data.obs(torch.arange(len(data)))).to(self.devices.device)

    @property
    def helpers(self) -> dict[str, nn.Module]:
        """What is trained beside the policy and thrown away in the end."""
        return {}

    def loss(self, generator: Generator) -> Tensor:
        """This process's part of the loss of a random batch; the parts of all are to be summed up."""
        each = self.config.batch_size
        total, own = each * self.devices.count, self.devices.own(each)
        rows = torch.randint(len(self.cond), (total,), generator=generator)
        return self.imitation(self.cond[rows[own]], rows, torch.arange(total)[own], generator)

    def imitation(self, cond: Tensor, windows: Tensor, own: Tensor, generator: Generator) -> Tensor:
        """The diffusion loss of those `windows` of a batch that are this process's `own`, as a share of all.

        Noise is drawn for the whole batch, so that it does not depend on how many share it.
        """
        core, pad = self.policy.core, self.is_pad[windows]
        noisy, steps, target = (x[own] for x in core.corrupt(self.actions[windows], generator))
        return core.errors(cond, noisy, steps, target, pad[own]) / ((~pad).sum() * core.action_dim)

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        with self.devices.autocast():
            loss = self.loss(generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warm_cosine(index / self.config.steps)
        self.optimizer.zero_grad()
        loss.backward()
        whole = loss.detach().clone()
        self.devices.add_up([p.grad for p in self.trained.parameters() if p.grad is not None] + [whole])
        nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.policy.core)
        return {"loss": float(whole)}

    def state(self) -> dict[str, Tensor]:
        own = self.trained.state_dict()
        return {**own, **self.ema.state("ema"), **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        own = {k: v for k, v in tensors.items() if not k.startswith(("ema.", "ema#", "optimizer."))}
        self.trained.load_state_dict(own)
        self.ema.load_state("ema", tensors)
        load_optimizer_state(self.optimizer, "optimizer", tensors)


class MemoryLearner(PolicyLearner):
    """Trains a policy with memory on whole episodes, by back-propagation through all calls in a row.

    The diffusion loss alone hardly teaches what to look for in the memory. A helper is asked what was seen a
    random number of calls ago, and can only know it from what the policy reads.
    """

    def watch(self, data: PolicyWindows) -> None:
        core, size = self.policy.core, data.spec.state_dim
        assert core.memory
        self.obs = self.policy.normalize(data.obs(torch.arange(len(data)))).to(self.devices.device)
        self.chains, self.there = data.chains()
        inputs = core.memory.read_size + _LAG_SIZE
        self.teller = nn.Sequential(nn.Linear(inputs, 128), nn.SiLU(), nn.Linear(128, size))

    @property
    def helpers(self) -> dict[str, nn.Module]:
        return {"teller": self.teller} if self.config.recall else {}

    def loss(self, generator: Generator) -> Tensor:
        each = self.config.batch_size
        total, own = each * self.devices.count, self.devices.own(each)
        rows = torch.randint(len(self.chains), (total,), generator=generator)
        there = self.there[rows]
        there = there[:, : int(there.sum(1).max())]
        windows = self.chains[rows, : there.shape[1]]
        mine = there[own]
        fresh = torch.zeros_like(mine)
        fresh[:, 0] = True
        obs = self.obs[windows[own]]
        reads = self.policy.core.recall(obs, fresh.to(obs.device), self.config.truncate)
        # Which of the batch's windows are of this process's rows.
        of_row = torch.arange(total)[:, None].expand(there.shape)[there]
        at = ((of_row >= own.start) & (of_row < own.stop)).nonzero()[:, 0]
        loss = self.imitation(reads[mine], windows[there], at, generator)
        if not self.config.recall:
            return loss
        call = torch.arange(there.shape[1]).expand(there.shape)
        past = (torch.rand(there.shape, generator=generator) * (call + 1)).long()
        lag, past = (call - past)[own][mine].to(obs.device), past[own, :, None].to(obs.device)
        seen = obs[:, :, -1].gather(1, past.expand(-1, -1, obs.shape[-1]))[mine]
        told = self.teller(torch.cat([reads[mine], sinusoid(lag, _LAG_SIZE)], -1)).float()
        return loss + self.config.recall * (told - seen).square().sum() / (there.sum() * seen.shape[-1])


def new_policy(spec: Spec, config: PolicyConfig, data: PolicyWindows, seed: int) -> ChunkPolicy:
    """An untrained policy with the statistics of `data`."""
    features = {
        OBS_STATE: PolicyFeature(FeatureType.STATE, (spec.proprio_dim,)),
        OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (spec.state_dim - spec.proprio_dim,)),
    }
    own = ChunkDiffusionConfig(
        n_obs_steps=spec.obs_steps,
        horizon=spec.chunk,
        n_action_steps=spec.chunk,
        input_features={k: v for k, v in features.items() if v.shape[0]},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (spec.action_dim,))},
        denoiser=config.denoiser,
        width=config.width,
        blocks=config.blocks,
        channels=config.channels,
        process=config.process,
        num_inference_steps=config.inference_steps,
        memory=config.memory,
        memory_width=config.memory_width,
        memory_slots=config.memory_slots,
        memory_layers=config.memory_layers,
        memory_gated=config.memory_gated,
        optimizer_lr=config.lr,
        optimizer_weight_decay=config.weight_decay,
        device="cpu",
        push_to_hub=False,
    )
    with seeded_init(torch_seed(seed, "policy-init")):
        core = ChunkDiffusionPolicy(own)
    return ChunkPolicy(spec, core, statistics(spec, data))


def statistics(spec: Spec, data: PolicyWindows) -> dict[str, dict[str, Tensor]]:
    """Mean and std of the states seen; the action's range is the Spec's."""
    last = data.obs(torch.arange(len(data)))[:, -1]
    mean, std = last.mean(0), last.std(0, correction=0).clamp_min(1e-3)
    n = spec.proprio_dim
    low, high = torch.from_numpy(spec.action_range)
    return {
        OBS_STATE: {"mean": mean[:n], "std": std[:n]},
        OBS_ENV_STATE: {"mean": mean[n:], "std": std[n:]},
        ACTION: {"min": low, "max": high},
    }


def train_policy(
    datasets: list[Path],
    out: Path,
    config: PolicyConfig,
    seed: int,
    init: Path | None = None,
    log: Log = "none",
) -> dict[str, Any]:
    """Trains a policy on demonstrations and seals it in `out`; resumes if interrupted.

    Args:
        datasets: folders of recorded episodes.
        out: folder of the policy.
        config: settings.
        seed: of every random draw.
        init: a policy to go on from: its weights and statistics.
        log: where scalars of each update are written to.

    Returns:
        Number of episodes and windows, and the loss curve.

    Raises:
        BadInput: if the data is unusable; nothing has been written.
        Interrupted: on Ctrl-C, after saving.
    """
    if not datasets:
        raise BadInput("dataset", "at least one dataset", "none")
    spec, _ = dataset_info(datasets[0])
    for folder in datasets[1:]:
        spec.require(dataset_info(folder)[0], str(folder))
    episodes = load_episodes(datasets)
    data = PolicyWindows(episodes, spec)
    policy = new_policy(spec, config, data, seed)
    if init is not None:
        policy = _continued(policy, init)
    devices = Devices(config.precision)
    with seeded_init(torch_seed(seed, "policy-helpers")):
        learner = (MemoryLearner if config.memory != "none" else PolicyLearner)(policy, data, config, devices)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        **dataclasses.asdict(config),
        "data": tensor_hash({"states": data.states, "actions": data.steps}),
        "init": policy.hash() if init else "",
    }
    curve = fit(
        learner,
        config.steps,
        torch_seed(seed, "policy"),
        "policy",
        out / PROGRESS,
        settings,
        on_step=scalar_log(log, out, settings),
        quiet=not leads(),
        saves=leads(),
    )
    policy.core.load_state_dict(learner.ema.average)
    if leads():
        save_policy(policy.cpu(), out)
    devices.wait()
    return {"episodes": len(episodes), "windows": len(data), "curve": curve}


def _continued(fresh: ChunkPolicy, init: Path) -> ChunkPolicy:
    """The policy in `init`, ready to be trained, if it is of the same make as `fresh`."""
    policy = load_policy(init, fresh.spec)
    fresh.spec.require(policy.spec, "init")
    if not isinstance(policy, ChunkPolicy):
        raise BadInput("init", "a policy that robopolicy trained", init)
    if differing := different_make(policy, fresh):
        before, after = (", ".join(f"{k} {both[i]}" for k, both in differing.items()) for i in (0, 1))
        raise BadInput("init", after, before)
    return policy.requires_grad_(True).train()


def save_policy(policy: ChunkPolicy, out: Path) -> None:
    """Writes the LeRobot checkpoint (config, weights, processors) and seals it."""
    out.mkdir(parents=True, exist_ok=True)
    policy.core.save_pretrained(out)
    n = policy.spec.proprio_dim
    stats = {
        OBS_STATE: {"mean": policy.mean[:n], "std": policy.std[:n]},
        OBS_ENV_STATE: {"mean": policy.mean[n:], "std": policy.std[n:]},
        ACTION: {"min": policy.low, "max": policy.high},
    }
    before, after = make_chunk_diffusion_pre_post_processors(policy.core.config, stats)
    before.save_pretrained(out, config_filename=f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json")
    after.save_pretrained(out, config_filename=f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json")
    names = ("policy_preprocessor", "policy_postprocessor")
    processors = [p.name for p in out.iterdir() if p.name.startswith(names)]
    seal(out, "policy", policy.spec, [CONFIG, MODEL, *processors])
