"""What `robopolicy.train.fit` trains a policy with: the diffusion loss, and what comes to it where a policy
remembers or is told what to do."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from robopolicy.config import PolicyConfig
from robopolicy.data.windows import PolicyWindows
from robopolicy.devices import Devices
from robopolicy.nets.ema import Ema
from robopolicy.nets.task import read
from robopolicy.nets.vision import as_floats
from robopolicy.policies.load import ChunkPolicy
from robopolicy.train import descend, load_optimizer_state, optimizer_state, warm_cosine

# Multiples of it, modulo 1, fill the unit interval evenly.
_GOLDEN = (5**0.5 - 1) / 2


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
        policy.core.to(self.devices.device)
        self.ema = Ema(policy.core, config.ema_decay)
        if config.compiler:
            policy.core.denoiser.compile(backend=config.compiler)
        self.optimizer = torch.optim.AdamW(
            policy.core.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )

    def watch(self, data: PolicyWindows) -> None:
        """Keeps what the policy sees, ready for `loss`."""
        self.data = data
        numbers = data.obs(torch.arange(len(data)), data.spec.numbers_dim)
        self.cond = self.policy.states(numbers).to(self.devices.device)

    def seen(self, rows: Tensor, generator: Generator) -> Tensor:
        """(B, *) what is seen in some windows, pictures included."""
        core = self.policy.core
        if not core.cameras:
            return self.cond[rows]
        return torch.cat([self.cond[rows], core.see(self.pictures(rows), generator).flatten(1)], -1)

    def pictures(self, rows: Tensor) -> list[Tensor]:
        """(B, T, 3, H, W) from 0 to 1 by camera, of some windows."""
        if self.data.spec.pictures:
            return self.policy.pictures(self.data.obs(rows).to(self.devices.device))
        return [as_floats(x.to(self.devices.device)) for x in self.data.pictures(rows)]

    def loss(self, generator: Generator) -> Tensor:
        """This process's part of the loss of a random batch; the parts of all are to be summed up."""
        each = self.config.batch_size
        total, own = each * self.devices.count, self.devices.own(each)
        rows = torch.randint(len(self.cond), (total,), generator=generator)
        cond = self.seen(rows[own], generator)
        return self.imitation(cond, rows, torch.arange(total)[own], generator)

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
        self.devices.add_up([p.grad for p in self.policy.core.parameters() if p.grad is not None] + [whole])
        descend(self.optimizer, self.policy.core.parameters())
        self.ema.update(self.policy.core)
        return {"loss": float(whole)}

    def state(self) -> dict[str, Tensor]:
        own = self.policy.core.state_dict()
        return {**own, **self.ema.state("ema"), **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        own = {k: v for k, v in tensors.items() if not k.startswith(("ema.", "ema#", "optimizer."))}
        self.policy.core.load_state_dict(own)
        self.ema.load_state("ema", tensors)
        load_optimizer_state(self.optimizer, "optimizer", tensors)


class MemoryLearner(PolicyLearner):
    """Trains a policy with memory on whole episodes, by back-propagation through all calls in a row."""

    def watch(self, data: PolicyWindows) -> None:
        self.data = data
        every = data.obs(torch.arange(len(data)), data.spec.numbers_dim)
        self.obs = self.policy.normalize(every).to(self.devices.device)
        self.chains, self.there = data.chains()

    def rows(self, windows: Tensor, generator: Generator) -> Tensor:
        """(B, C, T, E) what is seen in rows of windows (B, C); a row's pictures are all cropped alike."""
        numbers = self.obs[windows]
        if not self.policy.core.cameras:
            return numbers
        count, steps = len(windows), numbers.shape[1] * numbers.shape[2]
        shown = [x.reshape(count, steps, *x.shape[2:]) for x in self.pictures(windows.flatten())]
        return torch.cat([numbers, self.policy.core.see(shown, generator).view(*numbers.shape[:3], -1)], -1)

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
        obs = self.rows(windows[own], generator)
        reads = self.policy.core.recall(obs, fresh.to(obs.device), self.config.truncate)
        # Which of the batch's windows are of this process's rows.
        of_row = torch.arange(total)[:, None].expand(there.shape)[there]
        at = ((of_row >= own.start) & (of_row < own.stop)).nonzero()[:, 0]
        return self.imitation(reads[mine], windows[there], at, generator)


class TaskLearner(PolicyLearner):
    """Trains a policy that is told what to do, by sentences where there are any and else by what was reached.

    Both are aligned by a contrast (see `robopolicy.nets.task`); now and then nothing is told, so that
    guidance has something to start from (BESO, Reuss et al. 2023, section IV).
    """

    def watch(self, data: PolicyWindows) -> None:
        super().watch(data)
        device, config, self.episode = self.devices.device, self.config, data.episode
        self.start, self.goal = (self.policy.normalize(x).to(device) for x in data.changes())
        told = [e.instruction for e in data.episodes]
        self.sentences = read(told, config.text_encoder).to(device)
        # Spread evenly over the episodes, whatever their order means.
        spread = torch.arange(len(told)) * _GOLDEN % 1
        labelled = (spread < config.labelled) & torch.tensor([bool(t) for t in told])
        self.labelled = labelled[self.episode].nonzero()[:, 0]  # windows

    def loss(self, generator: Generator) -> Tensor:
        config, task = self.config, self.policy.core.task
        assert task
        each = config.batch_size
        total, own = each * self.devices.count, self.devices.own(each)
        rows = torch.randint(len(self.cond), (total,), generator=generator)
        # Half of the batch is told by sentences, however few of them there are (GRIF, section IV).
        by_words = (torch.arange(total) % 2 == 1) & bool(len(self.labelled))
        pool = self.labelled if len(self.labelled) else rows
        picked = pool[torch.randint(len(pool), (total,), generator=generator)]
        rows, hidden = torch.where(by_words, picked, rows), torch.rand(total, generator=generator)[own]
        by_words, episode = by_words[own], self.episode[rows[own]]
        changes = task.of_change(self.start[episode], self.goal[episode])
        words = task.of_words(self.sentences[episode])
        device = changes.device
        told = torch.where(by_words.to(device)[:, None], words, changes)
        told = told * (hidden >= config.untold).to(device)[:, None]
        cond = torch.cat([self.seen(rows[own], generator), told], -1)
        loss = self.imitation(cond, rows, torch.arange(total)[own], generator)
        pairs = torch.unique(episode[by_words])
        if len(pairs) < 2 or not config.align:
            return loss
        aligned = task.contrast(
            task.of_words(self.sentences[pairs]), task.of_change(self.start[pairs], self.goal[pairs])
        )
        return loss + config.align * aligned / self.devices.count


def make_learner(
    policy: ChunkPolicy, data: PolicyWindows, config: PolicyConfig, devices: Devices
) -> PolicyLearner:
    """The learner of this kind of policy."""
    kind = MemoryLearner if config.memory != "none" else TaskLearner if config.task_size else PolicyLearner
    return kind(policy, data, config, devices)
