"""Settings of every stage, as frozen dataclasses with named presets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from robopolicy.errors import BadInput


@dataclass(frozen=True)
class PolicyConfig:
    """A chunk diffusion policy.

    Attributes:
        denoiser: "mlp" (fastest on a CPU), "unet" or "transformer".
        width: hidden units of the mlp, token size of the transformer.
        blocks: residual blocks of the mlp, layers of the transformer.
        channels: widths of the U-Net's resolutions.
        process: "ddim", "beso" (a score model that needs few steps) or "flow" (flow matching).
        inference_steps: of sampling.
        memory: what is carried from chunk to chunk: "none", "sega", or for comparison "lstm" or "stacked".
        memory_width: size of a token of SEGA, hidden units of the LSTM.
        memory_slots: of SEGA; of "stacked", how many chunks back.
        memory_layers: of SEGA.
        memory_gated: False overwrites SEGA's memory at every call.
        truncate: calls after which no gradient flows back through the memory; 0 for never.
        task_size: numbers by which the policy is told what to do; 0 if it is not.
        text_encoder: of Hugging Face, by folder or name; a small one of our own if empty.
        untold: share of the windows in which nothing is told.
        labelled: share of the episodes whose sentences are learned from.
        align: weight of the contrast between sentences and what was reached; where measured, it did harm.
        guidance: how much what it is told counts in sampling; 1 as it was trained.
        vision: how pictures are read, where there are any: "small" (for a CPU), "resnet18" or "vit".
        steps: updates.
        batch_size: windows per update; with memory, rows of them: whole episodes.
        lr: peak learning rate.
        weight_decay: of AdamW.
        ema_decay: largest decay of the averaged weights.
        precision: of the networks in training; "bf16" is for graphics processors.
        compiler: backend of torch.compile for the denoiser, such as "inductor"; none if empty.
    """

    denoiser: Literal["mlp", "unet", "transformer"] = "mlp"
    width: int = 256
    blocks: int = 2
    channels: tuple[int, ...] = (64, 128)
    process: Literal["ddim", "beso", "flow"] = "ddim"
    inference_steps: int = 8
    memory: Literal["none", "sega", "lstm", "stacked"] = "none"
    memory_width: int = 64
    memory_slots: int = 4
    memory_layers: int = 1
    memory_gated: bool = True
    truncate: int = 0
    task_size: int = 0
    text_encoder: str = ""
    untold: float = 0.1
    labelled: float = 1.0
    align: float = 0.0
    guidance: float = 1.0
    vision: Literal["small", "resnet18", "vit"] = "small"
    steps: int = 4000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.995
    precision: Literal["fp32", "bf16"] = "fp32"
    compiler: str = ""


POLICY_PRESETS = {
    "quick": PolicyConfig(),
    "full": PolicyConfig(denoiser="unet", channels=(128, 256), steps=30_000, lr=3e-4, ema_decay=0.999),
    "tiny": PolicyConfig(width=32, blocks=1, steps=40, batch_size=64, inference_steps=5),
}


@dataclass(frozen=True)
class WorldConfig:
    """A state world model.

    Attributes:
        members: regressors in the ensemble; trained in parallel processes.
        stride: steps imagined at once; the largest divisor of the chunk up to this is taken.
        width: hidden units.
        blocks: residual blocks.
        steps: updates per member.
        batch_size: windows per update.
        lr: peak learning rate.
        feature_noise: noise on the features while training, as a share of their spread.
        contact_share: share of each batch drawn from windows that begin near contact.
        coast: how nearly an object must keep its velocity to be said to coast, as a share of the tremor of
            one at rest; 0 for never.
        carry: the same for an object that is said to be carried by the hand.
        residual: how the members' errors are sampled: "diffusion", "gaussian" (a normal distribution by a
            network of the same size) or "none".
        latent: principal components of the errors that are sampled.
        error_steps: updates of the errors' denoiser.
        sample_steps: Euler steps of the sampler.
        success_steps: updates of the success head.
        success_sparsity: how hard it is for a number of the state to be used by the success head.
        objects_first: success is read from objects alone if that does.
        held_out: share of episodes kept for calibration.
    """

    members: int = 3
    stride: int = 4
    width: int = 256
    blocks: int = 3
    steps: int = 3000
    batch_size: int = 256
    lr: float = 1e-3
    feature_noise: float = 0.1
    contact_share: float = 0.25
    coast: float = 0.2
    carry: float = 1.0
    residual: Literal["diffusion", "gaussian", "none"] = "diffusion"
    latent: int = 24
    error_steps: int = 3000
    sample_steps: int = 4
    success_steps: int = 3000
    success_sparsity: float = 1.0
    objects_first: bool = True
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name in ("members", "stride", "width", "blocks", "batch_size", "latent", "sample_steps"):
            if getattr(self, name) < 1:
                raise BadInput(f"world {name}", "a positive integer", getattr(self, name))
        if self.residual not in ("diffusion", "gaussian", "none"):
            raise BadInput("world residual", "diffusion, gaussian or none", self.residual)


WORLD_PRESETS = {
    "quick": WorldConfig(),
    "full": WorldConfig(members=5, width=512, steps=30_000, error_steps=30_000, sample_steps=6),
    "tiny": WorldConfig(
        members=2, width=32, blocks=1, steps=30, error_steps=30, batch_size=64, sample_steps=2
    ),
}


@dataclass(frozen=True)
class DsrlConfig:
    """DSRL: SAC in the noise space of the frozen policy; the noise-aliased variant shares it.

    Attributes:
        noise: "repeat" chooses one noise vector for the whole chunk, "chunk" every element of it.
        bound: largest noise element; the tanh of the actor is scaled by it.
        steps: chunks imagined in each environment.
        envs: environments.
        updates: gradient updates per imagined chunk.
        batch: transitions per update.
        lr: learning rate of actor, critics and temperature.
        tau: Polyak rate of the target critics.
        alpha: initial temperature of the entropy bonus.
        alpha_floor: the temperature never falls below it.
        capacity: transitions in the replay.
        learning_starts: transitions before the first update.
        prefill_tolerance: recorded chunks enter the replay if the policy reproduces their actions up to
            this share of the action's range.
        stochastic: draw the noise at deployment too, instead of taking its mode.
    """

    noise: Literal["repeat", "chunk"] = "repeat"
    bound: float = 1.5
    steps: int = 800
    envs: int = 64
    updates: int = 12
    batch: int = 256
    lr: float = 1e-3
    tau: float = 0.005
    alpha: float = 0.003
    alpha_floor: float = 0.001
    capacity: int = 100_000
    learning_starts: int = 512
    prefill_tolerance: float = 0.1
    stochastic: bool = False


@dataclass(frozen=True)
class AliasedConfig:
    """What the noise-aliased critic adds to DSRL.

    Attributes:
        decoded: recorded or imagined transitions per learner step at which the policy is run, once with
            the actor's noise at what followed and once with any noise at what came before.
        pool: such transitions kept; the older ones were decoded with an older actor.
    """

    decoded: int = 256
    pool: int = 4096


@dataclass(frozen=True)
class IqlConfig:
    """Implicit Q-learning, of best-of-n and of warm starts.

    Attributes:
        expectile: of the value in the values of the actions taken; 0.5 is their mean, 1 their maximum.
        beta: inverse temperature of the advantage-weighted actor.
    """

    expectile: float = 0.8
    beta: float = 3.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.expectile < 1:
            raise BadInput("expectile", "in [0.5, 1)", self.expectile)


@dataclass(frozen=True)
class BestOfNConfig:
    """Best of N: the policy's own samples, ranked by a critic of actions.

    Attributes:
        candidates: N; the policy runs so many times per chunk.
        bound: largest noise element; far enough out never to cut the prior in practice.
        steps: chunks imagined in each environment.
        envs: environments.
        updates: gradient updates per imagined chunk.
        batch: transitions per update.
        lr: learning rate.
        tau: Polyak rate of the target critics.
        capacity: transitions in the replay.
    """

    candidates: int = 8
    bound: float = 6.0
    steps: int = 150
    envs: int = 64
    updates: int = 12
    batch: int = 256
    lr: float = 1e-3
    tau: float = 0.005
    capacity: int = 100_000


@dataclass(frozen=True)
class BaselineConfig:
    """Noise that nothing is learned about.

    Attributes:
        noise: "repeat" draws one noise vector for the whole chunk, "chunk" every element of it.
        bound: largest noise element.
        steps: learner steps; there is nothing to learn, so one is enough.
        envs: environments.
    """

    noise: Literal["repeat", "chunk"]
    bound: float
    steps: int = 1
    envs: int = 1


@dataclass(frozen=True)
class PpoConfig:
    """PPO over the noise, started exactly at the prior.

    Attributes:
        noise: "repeat" shares one mean and std along the chunk, "chunk" has one for every element.
        bound: largest noise element; far enough out never to cut the prior in practice.
        mean_bound: largest shift of the prior's mean.
        steps: iterations.
        envs: episodes per iteration.
        epochs: passes over the episodes of an iteration.
        batch: transitions per update.
        lr: learning rate.
        clip: of the probability ratio.
        lam: lambda of the generalised advantage estimate.
    """

    noise: Literal["repeat", "chunk"] = "chunk"
    bound: float = 6.0
    mean_bound: float = 2.0
    steps: int = 50
    envs: int = 256
    epochs: int = 3
    batch: int = 512
    lr: float = 1e-3
    clip: float = 0.2
    lam: float = 0.95


SteerMethod = Literal["dsrl", "dsrl-na", "ppo", "best-of-n", "none", "uniform"]
# Which settings of a `SteerConfig` are the method's own.
_OWN = {m: m.replace("-", "_") for m in ("dsrl", "ppo", "best-of-n", "none", "uniform")} | {"dsrl-na": "dsrl"}


@dataclass(frozen=True)
class SteerConfig:
    """How a frozen policy is steered in imagination.

    Attributes:
        method: "dsrl", "dsrl-na" (its critic judges actions, so that any recorded action teaches it),
            "ppo", "best-of-n", or a baseline: "none" (noise as drawn) or "uniform" (bounded noise).
        gamma: discount per chunk.
        hidden: width of each hidden layer.
        layers: hidden layers.
        critics: members of the ensemble whose least value counts (all methods but PPO).
        warm_start: updates of implicit Q-learning on recorded transitions before the first step (dsrl and
            dsrl-na).
        trust: share of the plain policy's imagined successes that the doubt limit lets stand.
        doubt_free: doubt up to here costs nothing, as a share of the doubt limit.
        doubt_penalty: reward lost where doubt reaches the limit.
        doubt_cost: reward lost when an episode is cut short by doubt or divergence.
        eval_every: learner steps between evaluations.
        eval_episodes: imagined episodes per evaluation.
        dsrl: settings of DSRL, noise-aliased or not.
        aliased: settings of the noise-aliased critic.
        iql: settings of implicit Q-learning.
        best_of_n: settings of best-of-n.
        ppo: settings of PPO.
        none: bound of the noise as drawn; far enough out never to cut it in practice.
        uniform: settings of bounded uniform noise.
    """

    method: SteerMethod = "dsrl"
    gamma: float = 0.97
    hidden: int = 128
    layers: int = 2
    critics: int = 2
    warm_start: int = 0
    trust: float = 0.5
    doubt_free: float = 0.7
    doubt_penalty: float = 0.2
    doubt_cost: float = 0.0
    eval_every: int = 25
    eval_episodes: int = 256
    dsrl: DsrlConfig = field(default_factory=DsrlConfig)
    aliased: AliasedConfig = field(default_factory=AliasedConfig)
    iql: IqlConfig = field(default_factory=IqlConfig)
    best_of_n: BestOfNConfig = field(default_factory=BestOfNConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    none: BaselineConfig = field(default_factory=lambda: BaselineConfig("chunk", 6.0))
    uniform: BaselineConfig = field(default_factory=lambda: BaselineConfig("repeat", 1.5))

    @property
    def section(self) -> str:
        """Name of the method's own settings."""
        return _OWN[self.method]

    @property
    def own(self) -> DsrlConfig | PpoConfig | BestOfNConfig | BaselineConfig:
        """The method's own settings."""
        return getattr(self, self.section)

    def __post_init__(self) -> None:
        if self.method not in _OWN:
            raise BadInput("steer method", f"one of {list(_OWN)}", self.method)
        for name in ("gamma", "trust", "doubt_free"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(f"steer {name}", "a number between 0 and 1", getattr(self, name))
        for name in ("hidden", "layers", "critics", "eval_every", "eval_episodes"):
            if getattr(self, name) < 1:
                raise BadInput(f"steer {name}", "a positive integer", getattr(self, name))
        if self.warm_start < 0:
            raise BadInput("steer warm_start", "a number of updates", self.warm_start)
        for own in (self.dsrl, self.ppo, self.none, self.uniform):
            if own.noise not in ("repeat", "chunk"):
                raise BadInput("steer noise", "repeat or chunk", own.noise)
        for own in (self.dsrl, self.ppo, self.best_of_n, self.none, self.uniform):
            if not own.bound > 0:
                raise BadInput("steer bound", "a positive number", own.bound)
        if not 0 < self.dsrl.alpha_floor <= self.dsrl.alpha:
            raise BadInput("steer alpha_floor", f"in (0, alpha = {self.dsrl.alpha}]", self.dsrl.alpha_floor)
        if self.best_of_n.candidates < 1:
            raise BadInput("steer candidates", "a positive integer", self.best_of_n.candidates)


STEER_PRESETS = {
    "quick": SteerConfig(),
    "full": SteerConfig(
        eval_every=100,
        eval_episodes=512,
        dsrl=DsrlConfig(steps=3000, capacity=300_000),
        best_of_n=BestOfNConfig(candidates=32, steps=1000, capacity=300_000),
        ppo=PpoConfig(steps=300, envs=512),
    ),
    "tiny": SteerConfig(
        hidden=16,
        eval_every=2,
        eval_episodes=4,
        dsrl=DsrlConfig(steps=4, envs=4, updates=2, batch=16, capacity=1000, learning_starts=16),
        aliased=AliasedConfig(decoded=16, pool=64),
        best_of_n=BestOfNConfig(candidates=4, steps=4, envs=4, updates=2, batch=16, capacity=1000),
        ppo=PpoConfig(steps=4, envs=4, batch=16),
    ),
}


def from_dict[T](kind: type[T], data: dict[str, Any], where: str) -> T:
    """Rebuilds a flat settings dataclass from JSON; unknown or missing keys are refused."""
    wanted = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if set(data) != wanted:
        raise BadInput(where, f"the keys {sorted(wanted)}", sorted(data))
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
