"""What is said of a world model follows from what it does: of a perfect one, a blind one, a deaf one."""

import dataclasses
from typing import cast

import numpy as np
import pytest
import torch
from tiny import WORLD, episode, tiny_spec

from robopolicy.errors import BadInput
from robopolicy.protocols import Prediction
from robopolicy.train import seeded_init
from world_models.diagnose import diagnose, imagine
from world_models.recording import rerun_recording
from world_models.state import StateWorldModel
from world_models.statistics import fit_statistics
from world_models.windows import windows

SPEC = tiny_spec()


def episodes(count: int = 40):
    """The hand of a success rises, that of a failure sinks."""
    return [episode(SPEC, i, 10, bool(i % 2)) for i in range(count)]


class Known(StateWorldModel):
    """Knows how the hand moves and that it has to be high; doubts where it adds an error of its own.

    Args:
        follows: share of its action that the hand is said to follow.
        error: size of a random error, different for each chunk.
    """

    def __init__(self, follows: float = 1.0, error: float = 0.0):
        with seeded_init(0):
            super().__init__(SPEC, WORLD)
        fit_statistics(self, windows(episodes(), SPEC, self.steps))
        self.follows, self.error = follows, error

    def predict(self, obs, actions, noise):
        states = obs[:, -1:].repeat(1, SPEC.chunk, 1)
        states[..., :3] += self.follows * actions.cumsum(1)
        states[..., 3] += self.follows * 0.5 * actions[..., 0].cumsum(1)
        size = self.error * noise[:, 0, 0].abs()
        states = states + size[:, None, None] * noise[:, :, :1].sign()
        return Prediction(states, self.success_logit(states).sigmoid(), size)

    def success_logit(self, states):
        return 1e3 * (states[..., 2] - 0.2)


def known(**how):
    return cast(StateWorldModel, Known(**how))


@pytest.fixture(scope="module")
def recorded():
    """Those whose outcome is what `Known.success_logit` says of their last state."""
    high = [e for e in episodes(120) if e.success and e.states[-1, 2] > 0.22]
    low = [e for e in episodes(120) if not e.success and e.states[:, 2].max() < 0.18]
    return high + low


def test_a_perfect_world_model_replays_every_outcome(recorded):
    found = diagnose(known(), recorded, 0)
    for rate in found["replay"].values():
        assert rate["rate"] == 1
        assert rate["episodes"] > 5
    errors = found["open_loop"]["median_error"]
    assert max(errors["model"]["hand"]) < 1e-5
    assert min(errors["no change"]["hand"]) > 0.05
    assert found["action"]["error_ratio"] > 100


def test_a_model_in_which_nothing_moves_replays_no_success(recorded):
    found = diagnose(known(follows=0.0), recorded, 0)
    assert found["replay"]["successes_as_successes"]["rate"] == 0
    assert found["replay"]["failures_as_failures"]["rate"] == 1
    assert found["action"]["error_ratio"] == pytest.approx(1)
    assert found["open_loop"]["median_error"]["model"] == found["open_loop"]["median_error"]["no change"]


def test_doubt_that_is_the_error_ranks_it_in_every_part_of_the_data(recorded):
    found = diagnose(known(error=0.1), recorded, 0)["doubt"]
    assert found["spearman"] > 0.9
    assert found["by_source"].keys() == {"expert", "random"}
    assert min(found["by_source"].values()) > 0.9
    assert len(found["error_by_doubt"]) == 5
    assert (np.diff(found["error_by_doubt"]) > 0).all()


def test_doubt_of_one_source_is_not_told_apart(recorded):
    alike = [dataclasses.replace(e, source="policy") for e in recorded]
    found = diagnose(known(error=0.1), alike, 0)["doubt"]
    assert "by_source" not in found
    assert found["spearman"] == diagnose(known(error=0.1), recorded, 0)["doubt"]["spearman"]


JERK, FALL = 0.05, 0.5
BLOCK = SPEC.state_dim - 1  # its height


def slipping(number: int, lost: bool = False):
    """The hand rises; in one of three episodes it jerks sideways at some step, and the block falls.

    If these are `lost`, it has fallen before.
    """
    rng, e = np.random.default_rng(number), episode(SPEC, number, 10, bool(number % 3))
    e.states[:] = -0.2
    e.states[0, 1] = rng.uniform(-0.3, 0.3)
    e.actions[:, 0], e.actions[:, 2] = 0, 0.06
    if not e.success:
        at = rng.integers(10)
        e.actions[at, 1] = 1.2 * JERK
        e.states[0 if lost else at + 1 :, BLOCK] -= FALL
    e.states[1:, :3] = e.states[0, :3] + e.actions.cumsum(0)
    return e


class Slips(Known):
    """Knows how the hand moves, and what becomes of the block.

    Args:
        blind: whether it believes that the block stays.
    """

    def __init__(self, blind: bool = False):
        super().__init__()
        fit_statistics(self, windows([slipping(i) for i in range(90)], SPEC, self.steps))
        self.blind = blind

    def predict(self, obs, actions, noise):
        states, success, doubt = super().predict(obs, actions, noise)
        if not self.blind:
            states[..., BLOCK] -= FALL * (actions[..., 1] > JERK).cumsum(1)
        return Prediction(states, success, doubt)


def onset_of(world, lost: bool = False):
    return diagnose(cast(StateWorldModel, world), [slipping(i, lost) for i in range(90)], 0)["onset"]


def test_onset_is_seen_by_the_exact_model_and_not_by_the_blind_one():
    exact, blind = onset_of(Slips()), onset_of(Slips(blind=True))
    assert 0 < exact["onsets"] < exact["windows"]
    assert exact["auc"] > 0.95
    assert blind["auc"] == pytest.approx(0.5, abs=0.1)
    rest = ("onsets", "windows", "auc_of_neighbours")
    assert [exact[k] for k in rest] == [blind[k] for k in rest]


def test_onset_of_failures_that_are_there_from_the_start_is_none():
    assert onset_of(Slips(), lost=True).keys() == {"onsets", "windows"}


def test_confusion_counts_every_step_once(recorded):
    found = diagnose(known(), recorded, 0)["success"]
    lengths = [e.until_success().length for e in recorded]
    assert sum(found.values()) == sum(min(SPEC.chunk, n - i) for n in lengths for i in range(n))


def test_imagine_repeats_the_last_action_of_a_short_episode():
    short, long = episode(SPEC, 1, 3, True), episode(SPEC, 2, 9, False)
    world = known()
    states = imagine(world, lambda *x: world.predict(*x).states, [short, long], torch.Generator())
    assert states.shape == (2, 16, SPEC.state_dim)
    assert np.allclose(states[1, :9, :3], long.states[1:, :3], atol=1e-5)
    steps = states[0, 2:, :3].diff(dim=0)
    assert np.allclose(steps, np.broadcast_to(short.actions[-1], steps.shape), atol=1e-5)


@pytest.mark.parametrize("success", [True, False])
def test_episodes_of_one_kind_are_refused(success):
    with pytest.raises(BadInput, match="successes and failures"):
        diagnose(known(), [episode(SPEC, i, 6, success) for i in range(4)], 0)


def test_recording_holds_real_and_imagined_numbers_side_by_side(recorded, tmp_path):
    rerun = pytest.importorskip("rerun")
    path = tmp_path / "new" / "seen.rrd"
    rerun_recording(known(), recorded, 0, path)
    rows = {
        chunk.entity_path: chunk.to_record_batch().to_pydict()
        for chunk in rerun.chunk.RrdReader(path).stream().to_chunks()
    }
    first = next(e for e in recorded if e.success)
    for name in SPEC.state_names[:3]:
        root = f"/seed\\ {first.seed}\\,\\ success/{name}"
        real, imagined = (rows[f"{root}/{which}"]["Scalars:scalars"] for which in ("real", "imagined"))
        assert len(real) == first.length + 1
        # A perfect model: what is imagined is what followed.
        assert np.allclose(real[1:], imagined, atol=1e-5)
    with pytest.raises(BadInput, match="new file"):
        rerun_recording(known(), recorded, 0, path)
