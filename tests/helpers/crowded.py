"""An arm among five hundred joints and eight cameras, and its gate in the course of a control loop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import yaml

from ros_nodes.contract import _CONFIG, Contract
from ros_nodes.parse import from_message, stamp_to_ns
from ros_nodes.safety import Decision, Reason

SECOND = 1_000_000_000
JOINTS, CAMERAS, RATE_HZ = 500, 8, 100.0


def crowded() -> Contract:
    """The SO-101 as part of something much larger: all joints on one topic are part of the state."""
    data = yaml.safe_load((_CONFIG / "so101.yaml").read_text())
    joints = data["state"][0]["joints"]
    for i in range(JOINTS - len(joints)):
        joints[f"other{i}"] = {"element": f"other{i}.pos", "unit": "deg"}
    data["drive"]["rate"] = RATE_HZ
    data["cameras"] = {
        f"camera{i}": {"topic": f"camera{i}/image", "type": "sensor_msgs/Image", "max_age_s": 0.2}
        for i in range(CAMERAS)
    }
    return Contract.from_dict(data)


class CrowdedBench:
    """States at every tick, pictures of all cameras at every third, chunks when they are asked for."""

    def __init__(self):
        self.contract = crowded()
        self.gate, self.observer = self.contract.gate(), self.contract.observer(self.contract.elements)
        driven = self.contract.driven
        assert driven is not None
        self.measuring = [self.contract.elements.index(e) for e in driven.measured]
        self.per_si = driven.per_si
        (self.stream,) = self.contract.streams
        self.names = [j.name for j in self.stream.joints]
        self.now, self.wall, self.ticks = 1000.0, 5 * SECOND, 0
        self.arm = np.zeros(len(self.names))

    def step(self, blind: str = "") -> Decision:
        """One tick of the loop; the camera `blind` shows nothing."""
        self.now, self.wall, self.ticks = (
            self.now + 1 / RATE_HZ,
            self.wall + round(SECOND / RATE_HZ),
            self.ticks + 1,
        )
        stamp = SimpleNamespace(sec=self.wall // SECOND, nanosec=self.wall % SECOND)
        header = SimpleNamespace(stamp=stamp, frame_id="base_link")
        message = SimpleNamespace(header=header, name=self.names, position=self.arm)
        state = self.observer.add(stamp_to_ns(stamp), from_message(self.stream, message, self.contract.frame))
        assert state is not None
        if self.ticks % 3 == 0:
            for name in self.gate._watch._max_age:
                if name != blind:
                    self.gate.camera(name, self.now, self.wall, self.wall, self.ticks)
        measured = state[self.measuring] / self.per_si
        self.gate.state(self.now, self.wall, self.wall, np.zeros(0), True, measured)
        self.gate.heartbeat(self.now, 1)
        decision = self.gate.tick(self.now)
        if decision.request is not None:
            here = np.rad2deg(self.arm[:6])
            ahead = here + np.linspace(0, 1, 16)[:, None] * np.clip(20 - here, -8, 8)
            self.gate.chunk(self.now, self.wall, self.wall, self.contract.action_names, ahead)
        if decision.command is not None:
            self.arm[:6] = decision.command
        return decision

    def engage(self) -> Reason:
        return self.gate.engage(self.now)
