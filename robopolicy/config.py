"""Settings of every stage, as frozen dataclasses with named presets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldConfig:
    """A state world model.

    Attributes:
        members: denoisers in the ensemble; trained in parallel processes.
        width: hidden units.
        blocks: residual blocks.
        steps: updates per member.
        batch_size: windows per update.
        lr: peak learning rate.
        sample_steps: Euler steps of the sampler.
        history_noise: noise on the conditioning history, as a share of each feature's change per step.
        contact_share: share of each batch drawn from windows that begin near contact.
        held_out: share of episodes kept for calibration.
    """

    members: int = 2
    width: int = 256
    blocks: int = 3
    steps: int = 4000
    batch_size: int = 256
    lr: float = 1e-3
    sample_steps: int = 4
    history_noise: float = 0.0
    contact_share: float = 0.5
    held_out: float = 0.1


WORLD_PRESETS = {
    "quick": WorldConfig(),
    "full": WorldConfig(members=5, width=512, steps=30_000, sample_steps=6),
    "tiny": WorldConfig(members=2, width=32, blocks=1, steps=30, batch_size=64, sample_steps=2),
}
