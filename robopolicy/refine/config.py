"""Settings of the refiners, as frozen dataclasses with named presets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from robopolicy.config import IqlConfig, PpoConfig
from robopolicy.errors import BadInput

RefineMethod = Literal["pa-rl", "ppo-gaussian", "diffusion-nft"]
REFINE_METHODS: tuple[RefineMethod, ...] = get_args(RefineMethod)


@dataclass(frozen=True)
class PaRlConfig:
    """PA-RL: better action chunks by a critic, distilled into the policy.

    Attributes:
        steps: chunks imagined in each environment.
        warmup: steps in which the critic learns and the policy stays as it is.
        envs: environments.
        candidates: chunks drawn from the policy at each state.
        keep: how many of them, the best by the critic, are improved further.
        ascents: gradient steps on each of these.
        ascent: length of a gradient step, in normalised action units (the range is 2 wide).
        radius: no number of a chunk moves farther than this from where the policy drew it.
        updates: critic updates per imagined chunk.
        recorded: share of each critic batch that is recorded; the rest is imagined.
        batch: transitions per update, of the critic and of the distillation.
        lr: learning rate of the critic.
        tau: Polyak rate of the target critics.
        recent: imagined chunks that are kept to learn from.
        distil_updates: distillation updates per imagined chunk.
        distil_lr: their learning rate.
        anchor: weight of the squared distance to the original policy's predictions.
    """

    steps: int = 200
    warmup: int = 20
    envs: int = 64
    candidates: int = 16
    keep: int = 4
    ascents: int = 5
    ascent: float = 0.05
    radius: float = 0.2
    updates: int = 8
    recorded: float = 0.5
    batch: int = 256
    lr: float = 1e-3
    tau: float = 0.005
    recent: int = 4096
    distil_updates: int = 4
    distil_lr: float = 3e-4
    anchor: float = 0.1


@dataclass(frozen=True)
class GaussianConfig:
    """PPO on a Gaussian policy that was distilled from the given one.

    Attributes:
        width: hidden units of the Gaussian policy.
        blocks: its residual blocks.
        distil_updates: updates of the distillation.
        distil_batch: states per update.
        distil_lr: peak learning rate.
        anchor: weight of the KL divergence to the distilled policy.
        ppo: settings of PPO; actions are normalised, so a bound of 1 is the action's range.
    """

    width: int = 256
    blocks: int = 1
    distil_updates: int = 1000
    distil_batch: int = 256
    distil_lr: float = 1e-3
    anchor: float = 0.002
    ppo: PpoConfig = field(default_factory=lambda: PpoConfig(bound=1.0, steps=80, lr=5e-5))


@dataclass(frozen=True)
class NftConfig:
    """DiffusionNFT: towards what went better than its group, away from what went worse.

    Attributes:
        steps: iterations.
        envs: episodes per iteration.
        group: episodes that share their start and are compared with each other.
        epochs: passes over the episodes of an iteration.
        batch: chunks per update.
        lr: learning rate.
        beta: how far the implicit positive and negative policies lie from the old one.
        advantage_limit: standard deviations of the group at which a return counts fully.
        keep_old: share of the old policy that stays in it after an iteration.
        anchor: weight of the squared distance to the original policy's predictions.
    """

    steps: int = 80
    envs: int = 256
    group: int = 16
    epochs: int = 1
    batch: int = 512
    lr: float = 3e-4
    beta: float = 1.0
    advantage_limit: float = 4.0
    keep_old: float = 0.5
    anchor: float = 0.1


@dataclass(frozen=True)
class RefineConfig:
    """How the weights of a policy are refined in imagination.

    Attributes:
        method: one of `REFINE_METHODS`.
        gamma: discount per chunk.
        hidden: width of each hidden layer of a critic.
        layers: its hidden layers.
        critics: members of PA-RL's ensemble: their mean ranks, the value learns from the lowest.
        trust: share of the plain policy's imagined successes that the doubt limit lets stand.
        doubt_free: doubt up to here costs nothing, as a share of the doubt limit.
        doubt_penalty: reward lost where doubt reaches the limit.
        doubt_cost: reward lost when an episode is cut short by doubt or divergence.
        eval_every: learner steps between evaluations.
        eval_episodes: imagined episodes per evaluation.
        iql: settings of implicit Q-learning, by which PA-RL's critics learn.
        pa_rl: settings of PA-RL.
        gaussian: settings of PPO on a Gaussian policy.
        nft: settings of DiffusionNFT.
    """

    method: RefineMethod = "pa-rl"
    gamma: float = 0.97
    hidden: int = 128
    layers: int = 2
    critics: int = 5
    trust: float = 0.5
    doubt_free: float = 0.7
    doubt_penalty: float = 0.2
    doubt_cost: float = 0.0
    eval_every: int = 10
    eval_episodes: int = 256
    iql: IqlConfig = field(default_factory=IqlConfig)
    pa_rl: PaRlConfig = field(default_factory=PaRlConfig)
    gaussian: GaussianConfig = field(default_factory=GaussianConfig)
    nft: NftConfig = field(default_factory=NftConfig)

    def __post_init__(self) -> None:
        if self.method not in REFINE_METHODS:
            raise BadInput("refine method", f"one of {REFINE_METHODS}", self.method)
        for name in ("gamma", "trust", "doubt_free"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(f"refine {name}", "a number between 0 and 1", getattr(self, name))
        if not 0 <= self.pa_rl.recorded < 1:
            raise BadInput("refine recorded", "in [0, 1)", self.pa_rl.recorded)
        for name in ("hidden", "layers", "critics", "eval_every", "eval_episodes"):
            if getattr(self, name) < 1:
                raise BadInput(f"refine {name}", "a positive integer", getattr(self, name))
        if not 1 <= self.pa_rl.keep <= self.pa_rl.candidates:
            raise BadInput("refine keep", f"1 to {self.pa_rl.candidates} candidates", self.pa_rl.keep)
        if self.nft.group < 2 or self.nft.envs % self.nft.group:
            raise BadInput("refine group", f"at least 2, a divisor of {self.nft.envs}", self.nft.group)
        if not 0 < self.nft.beta <= 1:
            raise BadInput("refine beta", "in (0, 1]", self.nft.beta)
        if not 0 <= self.nft.keep_old < 1:
            raise BadInput("refine keep_old", "in [0, 1)", self.nft.keep_old)
        for name in ("pa_rl", "gaussian", "nft"):
            if getattr(self, name).anchor < 0:
                raise BadInput(f"refine {name} anchor", "a number not below 0", getattr(self, name).anchor)

    @property
    def own(self) -> PaRlConfig | PpoConfig | NftConfig:
        """The settings that hold `steps` and `envs` of `method`."""
        return {"pa-rl": self.pa_rl, "ppo-gaussian": self.gaussian.ppo, "diffusion-nft": self.nft}[
            self.method
        ]

    def of(self, method: str, steps: int | None) -> RefineConfig:
        """The same settings for a method, with another number of steps if one is given."""
        config = replace(self, method=method)
        if steps is None:
            return config
        pa_rl, ppo, nft = (replace(x, steps=steps) for x in (self.pa_rl, self.gaussian.ppo, self.nft))
        return replace(config, pa_rl=pa_rl, gaussian=replace(self.gaussian, ppo=ppo), nft=nft)


REFINE_PRESETS = {
    "quick": RefineConfig(),
    "full": RefineConfig(
        eval_every=50,
        eval_episodes=512,
        critics=10,
        pa_rl=PaRlConfig(steps=2000, candidates=32, keep=10, ascents=10, recent=16_384),
        gaussian=GaussianConfig(distil_updates=5000, ppo=PpoConfig(bound=1.0, steps=400, envs=512, lr=5e-5)),
        nft=NftConfig(steps=500, envs=512),
    ),
    "tiny": RefineConfig(
        hidden=16,
        eval_every=2,
        eval_episodes=4,
        critics=2,
        pa_rl=PaRlConfig(
            steps=4,
            warmup=1,
            envs=4,
            candidates=4,
            keep=2,
            ascents=2,
            updates=1,
            batch=8,
            recent=40,
        ),
        gaussian=GaussianConfig(
            width=16, distil_updates=4, distil_batch=8, ppo=PpoConfig(bound=1.0, steps=4, envs=4, batch=16)
        ),
        nft=NftConfig(steps=4, envs=4, group=2, batch=16),
    ),
}
