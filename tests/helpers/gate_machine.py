"""What may happen to any gate at any time: shared by the tests of the laws of both."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ros_nodes.safety import Mode, Reason

_SPANS = [0.0, 0.001, 0.005, 0.01, 0.01, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.5, 3600.0]
times = st.sampled_from([*_SPANS, -0.001, -1.0, -3600.0])


class GateMachine(RuleBasedStateMachine):
    """Time, silence, strangers and operators; a subclass sets `bench` and adds what is its own."""

    def __init__(self):
        super().__init__()
        self.latched = False

    @rule(seconds=times, wall=times | st.none())
    def time_passes(self, seconds, wall):
        self.bench.let(seconds, wall)

    @rule(epoch=st.sampled_from([1, 1, 1, 2]))
    def beat(self, epoch):
        self.bench.beat(epoch)

    @rule()
    def policy_lost(self):
        self.bench.gate.policy_lost()

    @rule(yes=st.sampled_from([True, True, True, False]))
    def alone(self, yes):
        self.bench.gate.alone(yes)

    @rule()
    def stop(self):
        self.bench.gate.stop()

    @rule()
    def disengage(self):
        self.bench.gate.disengage()
        self.came_to_rest()

    @rule()
    def reset(self):
        if self.bench.gate.reset():
            self.latched = False
            self.came_to_rest()

    def came_to_rest(self):
        """The gate was taken out of hand."""

    @invariant()
    def fault_is_latched(self):
        assert not self.latched or self.bench.gate.mode is Mode.FAULT
        self.latched = self.bench.gate.mode is Mode.FAULT

    @invariant()
    def every_stop_has_a_reason(self):
        if self.bench.gate.mode in (Mode.HOLD, Mode.FAULT):
            assert self.bench.gate.reason is not Reason.NONE
