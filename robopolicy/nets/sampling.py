"""How a chunk is destroyed in training and restored in sampling: DDIM, BESO's score model, flow matching.

All share one interface, so that networks, steering and refinement need not know which it is: `corrupt` gives
what the network sees, how noisy that is, and what it should say; `restore` is a deterministic function of the
noise it starts from, which is N(0, I). Levels of noise are numbers from 0 to 100.

Shape letters: B batch, K chunk, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, Protocol

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Generator, Tensor

from robopolicy.nets.inpainting import Known

ProcessKind = Literal["ddim", "beso", "flow"]
Network = Callable[[Tensor, Tensor], Tensor]
"""Of the noisy chunk (B, K, A) and its level (B,), giving (B, K, A)."""

_LEVELS = 100.0


class Process(Protocol):
    """See the module. Random numbers are drawn on the CPU: the same wherever the network is."""

    def corrupt(self, clean: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Input of the network (B, K, A), level (B,) and target (B, K, A) for chunks in [-1, 1]."""
        ...

    def restore(self, network: Network, noise: Tensor, known: Known | None = None) -> Tensor:
        """(B, K, A) the chunk that noise (B, K, A) becomes.

        What is known replaces what is predicted at every step, and the rest is made to go with it
        (inpainting; Lugmayr et al. 2022, arXiv 2201.09865).
        """
        ...


def _with(clean: Tensor, known: Known | None) -> Tensor:
    return clean if known is None else torch.lerp(clean, known.chunk, known.weight)


class Ddim:
    """Trained as DDPM (Ho et al. 2020, eq. 14), sampled by DDIM (Song et al. 2021, eq. 12 with eta 0).

    Args:
        train_steps: levels in training.
        steps: of sampling.
        prediction: "sample" or "epsilon".
    """

    def __init__(self, train_steps: int, steps: int, prediction: str):
        self.train_steps, self.prediction = train_steps, prediction
        self.scheduler = DDIMScheduler(
            train_steps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=prediction,  # type: ignore[arg-type]
            clip_sample=True,
            # DDIM steps back by train//inference levels: only "trailing" visits the levels it then assumes.
            timestep_spacing="trailing",
        )
        self.scheduler.set_timesteps(steps)
        self._steps = [self._factors(int(t)) for t in self.scheduler.timesteps]

    def _factors(self, step: int) -> tuple[int, float, float, float, float]:
        """The level, sqrt(a), sqrt(1 - a), and the weights of clean sample and x in what follows.

        What `DDIMScheduler.step` computes anew each time, which takes it as long as a small network.
        """
        before = step - self.train_steps // len(self.scheduler.timesteps)
        alphas = self.scheduler.alphas_cumprod.double()
        a, following = alphas[step], alphas[before] if before >= 0 else torch.ones(())
        kept = ((1 - following) / (1 - a)).sqrt()
        ours = following.sqrt() - kept * a.sqrt()
        return step, float(a.sqrt()), float((1 - a).sqrt()), float(ours), float(kept)

    def corrupt(self, clean: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        steps = torch.randint(self.train_steps, (len(clean),), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = self.scheduler.add_noise(clean, noise, steps)  # type: ignore[arg-type]
        return noisy, steps, clean if self.prediction == "sample" else noise

    def restore(self, network: Network, noise: Tensor, known: Known | None = None) -> Tensor:
        x = noise
        for step, signal, spread, ours, kept in self._steps:
            out = network(x, torch.full((len(x),), step, dtype=torch.int64, device=x.device))
            clean = out if self.prediction == "sample" else (x - spread * out) / signal
            # The noise in x is what the clipped sample leaves, else clipping would leave an error behind.
            x = ours * _with(clean.clamp(-1, 1), known) + kept * x
        return x


class Beso:
    """A score model in continuous time (Reuss et al. 2023, arXiv 2304.02532; Karras et al. 2022, table 1).

    D(x) = c_skip x + c_out F(c_in x) with a data spread of 1/2; noise levels of training are log-logistic;
    sampling takes falling levels in deterministic steps (DPM-solver of order 1). It begins at 80, as EDM
    does: at BESO's own 1 an action can still be seen through the noise, so that sampling, which begins with
    noise alone, begins where training never was. For the same reason levels of training are spread twice as
    widely. Few steps are where something is decided, three at 80, 0.5 and 0.15: falling exponentially to the
    lowest level would leave only one of them there. The last call is given what the one before believed,
    without noise, which by then would only choose among the whims of operators.

    Args:
        steps: of sampling; three are enough.
    """

    _SPREAD, _LOW, _HIGH, _SCALE = 0.5, 0.005, 80.0, 1.0

    def __init__(self, steps: int):
        last, fallen = max(self._LOW, 0.45 / steps), torch.linspace(0, 1, steps) ** 0.3
        self.sigmas = (self._HIGH * (last / self._HIGH) ** fallen).tolist()
        kept = [following / sigma for sigma, following in pairwise(self.sigmas)]
        self._kept = [*kept[:-1], 0.0, 0.0][:steps]  # of the noise, after each call

    def factors(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in."""
        total = sigma**2 + self._SPREAD**2
        return self._SPREAD**2 / total, sigma * self._SPREAD * total.rsqrt(), total.rsqrt()

    def level(self, sigma: Tensor) -> Tensor:
        """How noisy, from 0 to 100."""
        return _LEVELS * (sigma / self._LOW).log() / math.log(self._HIGH / self._LOW)

    def sigma(self, level: Tensor) -> Tensor:
        """What `level` turns into a level."""
        return self._LOW * (self._HIGH / self._LOW) ** (level / _LEVELS)

    def corrupt(self, clean: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        # Truncated to the levels that sampling visits, by drawing between their quantiles.
        centre = math.log(self._SPREAD)
        low, high = (
            1 / (1 + math.exp((centre - math.log(s)) / self._SCALE)) for s in (self._LOW, self._HIGH)
        )
        u = low + (high - low) * torch.rand(len(clean), generator=generator).to(clean.device)
        sigma = (centre + self._SCALE * torch.logit(u)).exp()
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = clean + sigma[:, None, None] * noise
        skip, out, inp = self.factors(sigma[:, None, None])
        return inp * noisy, self.level(sigma), (clean - skip * noisy) / out

    def restore(self, network: Network, noise: Tensor, known: Known | None = None) -> Tensor:
        x = self._HIGH * noise
        for sigma, kept in zip(self.sigmas, self._kept, strict=True):
            now = torch.full((len(x),), sigma, device=x.device)
            skip, out, inp = self.factors(now[:, None, None])
            clean = _with((skip * x + out * network(inp * x, self.level(now))).clamp(-1, 1), known)
            x = clean + kept * (x - clean)
        return x


class Flow:
    """Flow matching along lines x_t = (1 - t) clean + t noise (Lipman et al. 2023, arXiv 2210.02747).

    Args:
        steps: of Euler's method.
    """

    def __init__(self, steps: int):
        self.steps = steps

    def corrupt(self, clean: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.rand(len(clean), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        return torch.lerp(clean, noise, t[:, None, None]), _LEVELS * t, noise - clean

    def restore(self, network: Network, noise: Tensor, known: Known | None = None) -> Tensor:
        x = noise
        for i in range(self.steps):
            t = 1 - i / self.steps
            level = torch.full((len(x),), _LEVELS * t, device=x.device)
            clean = _with(x - t * network(x, level), known)
            x = torch.lerp(x, clean, 1 / (self.steps - i))
        return x


def make_process(kind: ProcessKind, train_steps: int, steps: int, prediction: str) -> Process:
    """The process called `kind`.

    Args:
        kind: which.
        train_steps: levels in training, of "ddim".
        steps: of sampling.
        prediction: what the network of "ddim" predicts.
    """
    if kind == "beso":
        return Beso(steps)
    return Flow(steps) if kind == "flow" else Ddim(train_steps, steps, prediction)
