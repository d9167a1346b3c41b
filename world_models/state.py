"""A world model over physical states: next states, success and doubt for a whole chunk.

A chunk is imagined a few steps at a time. The change of the state over these steps is

    robot     linear mean + scale * v
    objects   0 if it stays where it is, else linear mean + scale * v
    (v, moves) = mean of an ensemble of regressors + basis * latent

The linear mean (closed-form ridge) explains free motion, the regressors what contact does to it. What they
leave open, such as whether a grasp slips, is sampled: EDM diffusion of the `latent` coordinates of the
errors that the regressors make on episodes they were not trained with (residual diffusion as in CorrDiff,
Mardani et al. 2023, arXiv 2309.15214). An object that nobody touches stays exactly where it is, however long
imagination goes on. Doubt is how much the regressors, each of which has seen other episodes, disagree.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robopolicy.config import WorldConfig
from robopolicy.protocols import Prediction
from robopolicy.spec import Spec
from world_models.denoiser import Denoiser, GaussianErrors, euler_sample, karras_levels
from world_models.features import Geometry
from world_models.regressor import Regressor


class Guess(NamedTuple):
    """What the regressors say; k steps, F objects.

    Attributes:
        cond: (B, C) normalised features.
        members: (E, B, k*D + k*(F+2P)) what each says.
        mean: (B, k*D + k*(F+2P)) their mean.
        spread: (B,) how much the states that they lead to differ, in units of each number's spread.
    """

    cond: Tensor
    members: Tensor
    mean: Tensor
    spread: Tensor


class StateWorldModel(nn.Module):
    """Regressors, diffusion of their errors, a success head and doubt; implements `WorldModel`.

    Args:
        spec: what the numbers mean.
        config: sizes and sampler.
    """

    feature_mean: Tensor
    feature_std: Tensor
    linear: Tensor
    scale: Tensor
    still: Tensor
    basis: Tensor
    usual_spread: Tensor
    success_mean: Tensor
    success_std: Tensor
    state_std: Tensor
    seen_low: Tensor
    seen_high: Tensor
    state_low: Tensor
    state_high: Tensor
    doubt_scale: Tensor

    def __init__(self, spec: Spec, config: WorldConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.steps = max(k for k in range(1, config.stride + 1) if spec.chunk % k == 0)
        self.geometry = Geometry(spec, self.steps)
        self.objects = [spec.slice_of(f.name) for f in spec.objects]
        self.points = [i for i, f in enumerate(spec.objects) if f.role == "point"]
        self.hand = next((spec.slice_of(f.name) for f in spec.proprio if f.role == "point"), None)
        self.levels = karras_levels(config.sample_steps)
        cond, values, flags = self.geometry.dim, self.steps * spec.state_dim, self.steps * self.flags
        self.latent = min(config.latent, values)
        self.members = nn.ModuleList(
            Regressor(cond, values, flags, config.width, config.blocks) for _ in range(config.members)
        )
        errors = GaussianErrors if config.residual == "gaussian" else Denoiser
        self.denoiser = errors(self.latent, cond + values + flags + 1, config.width, config.blocks)
        seen = spec.state_dim + len(self.geometry.relation_names)
        self.success_head = nn.Sequential(
            nn.Linear(seen, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )
        for name, size in {
            "feature_mean": (cond,),
            "feature_std": (cond,),
            "linear": (cond + 1, values),
            "scale": (values,),
            "still": (len(self.objects),),
            "basis": (self.latent, values + flags),
            "usual_spread": (1,),
            "success_mean": (seen,),
            "success_std": (seen,),
            "state_std": (spec.state_dim,),
            "seen_low": (spec.state_dim,),
            "seen_high": (spec.state_dim,),
            "state_low": (spec.state_dim,),
            "state_high": (spec.state_dim,),
            "doubt_scale": (1,),
        }.items():
            self.register_buffer(name, torch.ones(size))

    def condition(self, obs: Tensor, actions: Tensor) -> Tensor:
        """(B, C) normalised features of observations (B, T, D) and k actions (B, k, A)."""
        features = self.geometry(obs, actions, self.seen_low, self.seen_high)
        return (features - self.feature_mean) / self.feature_std

    def free(self, cond: Tensor) -> Tensor:
        """(B, k, D) linear mean of the change of everything that moves."""
        return torch.addmm(self.linear[-1], cond, self.linear[:-1]).view(len(cond), self.steps, -1)

    def drift(self, cond: Tensor) -> Tensor:
        """(B, k, D) change of a state whose numbers all keep the velocity they came with."""
        dim, past = self.spec.state_dim, self.spec.obs_steps - 1
        if not past:
            return cond.new_zeros(len(cond), self.steps, dim)
        part = slice(dim * past, dim * (past + 1))  # the last change, see `Geometry`
        velocity = cond[:, part] * self.feature_std[part] + self.feature_mean[part]
        return velocity[:, None] * torch.arange(1, self.steps + 1)[:, None]

    @property
    def flags(self) -> int:
        """How many flags a step has: whether each object moves, whether each point coasts or is carried."""
        return len(self.objects) + 2 * len(self.points)

    def courses(self, change: Tensor, cond: Tensor) -> Tensor:
        """(B, k, 2P, 3) how points would change that coast, then those that the hand carries.

        Args:
            change: (B, k, D), of which only the hand's is looked at.
            cond: (B, C).
        """
        drift = self.drift(cond)
        coasting = [drift[..., self.objects[i]] for i in self.points]
        carried = [change[..., self.hand] if self.hand else drift[..., self.objects[i]] for i in self.points]
        return torch.stack([*coasting, *carried], 2) if self.points else change[..., None, :0]

    def events(self, change: Tensor, cond: Tensor) -> Tensor:
        """(B, k, F+2P) bool flags of a change (B, k, D).

        An object moves if it changes by more than the tremor of one at rest. A point that moves coasts if it
        keeps its velocity, and is carried if it goes where the hand goes, to a share of that tremor.
        """
        flags = [change[..., part].norm(dim=-1) > self.still[i] for i, part in enumerate(self.objects)]
        courses, count = self.courses(change, cond), len(self.points)
        for at in range(2 * count):
            i, share = self.points[at % count], self.config.coast if at < count else self.config.carry
            away = (change[..., self.objects[i]] - courses[:, :, at]).norm(dim=-1)
            flags.append(flags[i] & (away <= share * self.still[i]))
        return torch.stack(flags, -1) if flags else change[..., :0] > 0

    def driven(self, events: Tensor) -> Tensor:
        """(B, k, F) bool: an object moves, and neither coasts nor is carried."""
        count, points = len(self.objects), len(self.points)
        moves = events[..., :count].clone()
        for at in range(2 * points):
            moves[..., self.points[at % points]] &= ~events[..., count + at]
        return moves

    def encode(self, change: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """What the regressors learn for changes (B, k, D) and where it is known, (B, k*D + k*(F+2P)) each."""
        events = self.events(change, cond)
        driven, known = self.driven(events), torch.ones_like(change)
        for i, part in enumerate(self.objects):
            known[..., part] = driven[..., i : i + 1].float()
        values = (change - self.free(cond)).flatten(1) / self.scale * known.flatten(1)
        asked = torch.ones_like(events)
        asked[..., len(self.objects) :] = events[..., self.points * 2]  # how it moves, if it does
        asked, flags = asked.float().flatten(1), events.float().flatten(1) * 2 - 1
        return torch.cat([values, flags * asked], 1), torch.cat([known.flatten(1), asked], 1)

    def decode(self, target: Tensor, cond: Tensor) -> Tensor:
        """Changes (B, k, D) that values and flags (B, k*D + k*(F+2P)) stand for; the inverse of `encode`."""
        n, count = len(self.scale), len(self.objects)
        change = self.free(cond) + (target[:, :n] * self.scale).view(len(cond), self.steps, -1)
        events = (target[:, n:] > 0).view(len(cond), self.steps, self.flags)
        courses, points = self.courses(change, cond), len(self.points)
        for at in range(2 * points):
            part, follows = self.objects[self.points[at % points]], events[..., count + at, None]
            change[..., part] = torch.where(follows, courses[:, :, at], change[..., part])
        for i, part in enumerate(self.objects):
            change[..., part] = change[..., part] * events[..., i, None]
        return change

    def guess(self, obs: Tensor, actions: Tensor) -> Guess:
        """What the regressors expect of k actions (B, k, A)."""
        cond = self.condition(obs, actions)
        members = torch.stack([m(cond) for m in self.members])
        if len(members) == 1:
            return Guess(cond, members, members[0], torch.zeros(len(cond)))
        changes = torch.stack([self.decode(m, cond) for m in members])
        variance = (changes - changes.mean(0)).pow(2).sum(0) / (len(changes) - 1)
        spread = (variance / self.state_std**2).mean((-1, -2)).sqrt()
        return Guess(cond, members, members.mean(0), spread)

    def denoiser_condition(self, guess: Guess) -> Tensor:
        """(B, C + k*D + k*(F+2P) + 1) what the errors of a guess depend on."""
        return torch.cat([guess.cond, guess.mean, (guess.spread / self.usual_spread).log1p()[:, None]], 1)

    @torch.no_grad()
    def predict(self, obs: Tensor, actions: Tensor, noise: Tensor) -> Prediction:
        """Imagines one chunk; see `robopolicy.protocols.WorldModel`."""
        parts, spreads = [], []
        for now, chance in zip(actions.split(self.steps, 1), noise.split(self.steps, 1), strict=True):
            guess = self.guess(obs, now)
            target = guess.mean + self._latent(guess, chance.flatten(1)[:, : self.latent]) @ self.basis
            parts.append(self._bounded(obs[:, -1:] + self.decode(target, guess.cond)))
            spreads.append(guess.spread)
            obs = torch.cat([obs, parts[-1]], 1)[:, -self.spec.obs_steps :]
        states = torch.cat(parts, 1)
        doubt = torch.stack(spreads).pow(2).mean(0).sqrt() / self.doubt_scale
        return Prediction(states, self.success_logit(states).sigmoid(), doubt)

    @torch.no_grad()
    def predict_linear(self, obs: Tensor, actions: Tensor) -> Tensor:
        """(B, K, D) states if the robot moved linearly and no object at all: what learning is measured by."""
        parts = []
        for now in actions.split(self.steps, 1):
            change = self.free(self.condition(obs, now))
            change[..., self.spec.proprio_dim :] = 0
            parts.append(self._bounded(obs[:, -1:] + change))
            obs = torch.cat([obs, parts[-1]], 1)[:, -self.spec.obs_steps :]
        return torch.cat(parts, 1)

    def _bounded(self, states: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(states, self.state_high), self.state_low)

    def _latent(self, guess: Guess, noise: Tensor) -> Tensor:
        net = self.denoiser
        if self.config.residual == "none":
            return torch.zeros_like(noise)
        if isinstance(net, GaussianErrors):
            return net.sample(noise, self.denoiser_condition(guess))
        given = net.cond(self.denoiser_condition(guess))
        return euler_sample(lambda x, s: net.clean(x, s, given), noise, self.levels)

    def success_logit(self, states: Tensor) -> Tensor:
        """(...,) log-odds that the task is achieved in `states` (..., D)."""
        return self.success_head(self.success_inputs(states)).squeeze(-1)

    def success_inputs(self, states: Tensor) -> Tensor:
        """(..., S) normalised: the state and how its points lie to each other."""
        x = torch.cat([states, self.geometry.relations(states)], -1)
        return (x - self.success_mean) / self.success_std
