"""What the measurements of a deployment share: the mock arm over DDS, what it was told, and results files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.checkpoint import write_json
from robopolicy.results import hardware, versions
from ros_nodes.deploy import Deployment

RESULTS = Path(__file__).parents[1] / "results" / "deploy"
ROOT = Path(__file__).parents[2]
# A policy of three lines for an arm of six joints: what is measured is all around it.
SERVER = [str(ROOT / "tests" / "helpers" / "reach_by_script.py")]
ROBOT = "so101"
_TRIES, _MOVES_WITHIN_S = 5, 3.0


@contextmanager
def mocked(robot: str | Path = ROBOT, **options: Any) -> Iterator[Deployment]:
    """A deployment with a mock of the arm, on a ROS domain of its own."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with Deployment(SERVER, robot, mock=True, **options) as deployment:
        yield deployment


class Heard:
    """Every command with the time at which it was heard.

    Args:
        deployment: whose console listens too.
    """

    def __init__(self, deployment: Deployment):
        from std_msgs.msg import Float64MultiArray

        from ros_nodes.running import COMMAND_QOS

        self.commands: list[tuple[float, np.ndarray]] = []
        self._console = deployment.console
        (outlet,) = deployment.contract.driven.outlets  # type: ignore[union-attr]
        self._console._node.create_subscription(Float64MultiArray, outlet.topic, self._note, COMMAND_QOS)

    def _note(self, message: Any) -> None:
        self.commands.append((time.monotonic(), np.array(message.data)))

    def moved_until(self, since: float) -> float:
        """Seconds after `since` at which a command last differed from the one before; 0 if none did."""
        pairs = zip(self.commands[1:], self.commands[:-1], strict=True)
        moved = [t - since for (t, c), (_, b) in pairs if t > since and np.abs(c - b).max() > 1e-6]
        return max(moved, default=0.0)

    def begin(self, deployment: Deployment, seed: int) -> None:
        """Begins an episode, and is back while the arm moves: it does so for less than a second."""
        for _ in range(_TRIES):
            deployment.begin(seed)
            until = time.monotonic() + _MOVES_WITHIN_S
            while time.monotonic() < until:
                self.spin(0.01)
                last = [c for _, c in self.commands[-2:]]
                if len(last) == 2 and np.abs(last[1] - last[0]).max() > 1e-3:
                    return
            deployment.console.engage(False)
        told = f"gate {self._console.state}, {len(self.commands)} commands heard, last {self.commands[-1:]}"
        raise TimeoutError(
            f"the arm was not seen to move {_TRIES} times ({told}, {self._console.diagnostics})"
        )

    def spin(self, seconds: float) -> None:
        """Listens for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._console._executor.spin_once(timeout_sec=0.002)


def save(name: str, found: Mapping[str, Any]) -> None:
    """Writes what one measurement found."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    common = {"versions": versions(), "hardware": hardware()}
    write_json(RESULTS / f"{name}.json", {"schema": 1, **found, **common})
