"""The checks that benchmarks/faults.py takes away one by one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """A check, and what is left when it is gone.

    Attributes:
        name: what it guards against.
        file: where it is.
        check: its text, which is in the file once.
        gone: what takes its place.
        fault: whose tests have to fail then; if 0, one of the robot loop.
    """

    name: str
    file: str
    check: str
    gone: str = "if False:"
    fault: int = 0


GUARDS = (
    Guard(
        "state not finite",
        "ros_nodes/safety.py",
        "if not (finite and np.isfinite(point).all() and np.isfinite(measured).all()):",
    ),
    Guard(
        "state repeated or stale",
        "ros_nodes/safety.py",
        "if old or not self._fresh(wall_ns - stamp_ns, self._t.state_max_age_s):",
    ),
    Guard(
        "chunk that nobody asked for",
        "ros_nodes/safety.py",
        "if self._asked_at is None or self._full():",
    ),
    Guard(
        "chunk of other joints",
        "ros_nodes/safety.py",
        "if sorted(names) != sorted(self._names):",
    ),
    Guard(
        "chunk too long or empty",
        "ros_nodes/safety.py",
        "if actions.ndim != 2 or not 1 <= len(actions) <= self._max_chunk or actions.shape[1] != len(names):",
    ),
    Guard("chunk not finite", "ros_nodes/safety.py", "if not np.isfinite(actions).all():"),
    Guard(
        "chunk of an unknown or old state",
        "ros_nodes/safety.py",
        "if stamp_ns not in self._stamps or stamp_ns <= self._chunk_stamp:",
    ),
    Guard(
        "chunk that is too late",
        "ros_nodes/safety.py",
        "if not self._fresh(wall_ns - stamp_ns, self._t.chunk_max_age_s):",
    ),
    Guard(
        "chunk that has overtaken its state",
        "ros_nodes/safety.py",
        "if self._stamps and stamp_ns > self._stamps[-1]:",
    ),
    Guard(
        "policy server restarted",
        "ros_nodes/safety.py",
        "if self._epoch not in (None, epoch) and self.mode is not Mode.DISARMED:",
    ),
    Guard(
        "no state for too long",
        "ros_nodes/safety.py",
        "if self._state_at is None or not 0 <= now - self._state_at <= self._t.state_max_age_s:",
        "if self._state_at is None:",
    ),
    Guard(
        "no heartbeat for too long",
        "ros_nodes/safety.py",
        "if self._beat_at is None or not 0 <= now - self._beat_at <= self._t.heartbeat_max_age_s:",
        "if self._beat_at is None:",
    ),
    Guard("camera blind", "ros_nodes/safety.py", "if self._watch.blind(now, self._where()):"),
    Guard(
        "another publisher",
        "ros_nodes/safety.py",
        "        if not self._alone:\n            self.stop(Reason.TWO_PUBLISHERS)",
        "",
    ),
    Guard(
        "clock that jumps",
        "ros_nodes/safety.py",
        'if not 0 <= gap <= self._t.tick_gap_s and gap != float("inf"):',
    ),
    Guard(
        "held for too long",
        "ros_nodes/safety.py",
        "if self.mode is not Mode.RUNNING and now - self._since > self._t.fault_after_s:",
    ),
    Guard(
        "fault is latched",
        "ros_nodes/safety.py",
        "if self.mode is not Mode.DISARMED or not self.resting:",
    ),
    Guard(
        "step by step: limits",
        "ros_nodes/stepped.py",
        "command = self._limits.clamp(wanted, self._before, self._point)",
        "command = wanted",
    ),
    Guard(
        "step by step: chunk too old to be played",
        "ros_nodes/stepped.py",
        "if self._chunk and not 0 <= now - self._chunk_at <= self._t.chunk_life_s:",
    ),
    Guard(
        "step by step: arm at rest that repeats its state",
        "ros_nodes/stepped.py",
        "        if self.mode is Mode.ARMED:\n            self._unanswered = False",
        "        if False:\n            self._unanswered = False",
    ),
    Guard(
        "step by step: state measured before the last command",
        "ros_nodes/safety.py",
        "self._unanswered |= now - (wall_ns - stamp_ns) * 1e-9 >= self._commanded_at",
        "self._unanswered = True",
    ),
    Guard(
        "step by step: state without an answer",
        "ros_nodes/stepped.py",
        "return Reason.NO_CHUNK if late else Reason.NONE",
        "return Reason.NONE",
    ),
    Guard(
        "by time: position and speed",
        "ros_nodes/motion.py",
        "        return within\n",
        "        return np.ones_like(within)\n",
    ),
    Guard(
        "by time: acceleration",
        "ros_nodes/motion.py",
        "within = np.abs(then.a) <= b.acceleration * (1 + _ROUNDING)",
        "within = np.ones(jerk.shape, bool)",
    ),
    Guard(
        "by time: start outside the limits",
        "ros_nodes/timed.py",
        "if not (inside | paced).all() or self._outside():",
    ),
    Guard(
        "by time: chunk that begins far away",
        "ros_nodes/timed.py",
        "if self.mode is not Mode.RUNNING and (far & ~self._bounds.paced).any():",
    ),
    Guard("by time: chunk whose time is over", "ros_nodes/timed.py", "if times[-1] <= now:"),
    Guard(
        "by time: arm that does not follow",
        "ros_nodes/timed.py",
        "        if (far & ~self._bounds.paced).any():\n            return Reason.TRACKING",
        "",
    ),
    Guard(
        "by time: point outside its box",
        "ros_nodes/timed.py",
        "if self._outside() and not self._drive.moved_by:",
    ),
    Guard(
        "by time: policy that wants beyond a limit",
        "ros_nodes/timed.py",
        "if self._beyond_since is not None and now - self._beyond_since > self._t.fault_after_s:",
    ),
    Guard(
        "message too large",
        "ros_nodes/parse.py",
        "if max(len(message.name), len(message.position)) > _MAX_JOINTS:",
    ),
    Guard(
        "observation not finite or out of range",
        "robopolicy/serve.py",
        'obs = spec.check_obs(obs, "obs")',
        "pass",
    ),
    Guard(
        "chunk of the policy not finite",
        "robopolicy/serve.py",
        "if chunk.shape != prior.shape or not np.isfinite(chunk).all():",
    ),
    Guard(
        "noise of a steerer",
        "robopolicy/serve.py",
        "if not (torch.isfinite(noise).all() and noise.abs().max() <= MAX_NOISE):",
    ),
    Guard(
        "file of a checkpoint changed",
        "robopolicy/checkpoint.py",
        'if hashlib.sha256(data).hexdigest() != entry["sha256"]:',
        "if False:",
        19,
    ),
    Guard(
        "file of tensors changed",
        "robopolicy/checkpoint.py",
        "if checksum is not None and checksum != _checksum(tensors, meta):",
        "if False:",
        19,
    ),
    Guard(
        "weights not finite",
        "robopolicy/checkpoint.py",
        "if t.is_floating_point() and not torch.isfinite(t).all():",
        "if False:",
        19,
    ),
    Guard(
        "key twice",
        "robopolicy/checkpoint.py",
        "if len(found := dict(pairs)) < len(pairs):",
        "if (found := dict(pairs)) is None:",
        19,
    ),
    Guard("types in a Spec", "robopolicy/spec.py", "        if not fits:\n", "        if False:\n", 19),
    Guard(
        "pickle in what was decoded",
        "robopolicy/data/film.py",
        'np.load(path, mmap_mode="c", allow_pickle=False)',
        'np.load(path, mmap_mode="c", allow_pickle=True)',
        21,
    ),
    Guard(
        "processor that names code",
        "robopolicy/policies/adapter.py",
        'if "class" in step or not isinstance(step.get("registry_name"), str):',
        "if False:",
        21,
    ),
    Guard("tensors that do not fit", "robopolicy/checkpoint.py", "    if problems:\n", "    if False:\n", 22),
    Guard(
        "another Spec",
        "robopolicy/spec.py",
        "        if other.fingerprint == self.fingerprint:\n            return\n",
        "        return\n",
        23,
    ),
    Guard(
        "rest of a save that failed",
        "robopolicy/checkpoint.py",
        "        temp.unlink(missing_ok=True)\n",
        "        pass\n",
        24,
    ),
    Guard(
        "half of a save",
        "robopolicy/checkpoint.py",
        "        save_file(whole, temp, metadata",
        "        save_file(whole, path, metadata",
        25,
    ),
    Guard(
        "counter of the average",
        "robopolicy/nets/ema.py",
        '        self.count = int(tensors[f"{prefix}#count"])\n',
        "",
        26,
    ),
    Guard(
        "two writers",
        "robopolicy/processes.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        27,
    ),
    Guard(
        "name in a manifest",
        "robopolicy/checkpoint.py",
        "if not plain_name(name) or path.is_symlink():",
        "if False:",
        28,
    ),
    Guard(
        "frames changed",
        "robopolicy/data/episodes.py",
        'if read_json(root / SIDECAR).get("content", now) != now:',
        "if False:",
        29,
    ),
    Guard("frames at another rate", "robopolicy/data/foreign.py", "if off.any():", "if False:", 31),
    Guard("no steps", "robopolicy/data/windows.py", "if not lengths.sum():", "if False:", 32),
    Guard(
        "what is beyond the end",
        "robopolicy/policies/diffusion/modeling_chunk_diffusion.py",
        "return (error * (~is_pad)[..., None]).sum()",
        "return error.sum()",
        33,
    ),
    Guard("numbers that stand still", "robopolicy/policies/train.py", ".clamp_min(_LEAST_STD)", "", 34),
    Guard(
        "acting beyond the end",
        "sim/vector.py",
        "while self._env and executed < self.chunk and not self._ended:",
        "while self._env and executed < self.chunk:",
        36,
    ),
    Guard(
        "time limit taken for an end",
        "robopolicy/steering/imagination.py",
        "(~(outcome.terminated | outcome.lost)).float()",
        "(~outcome.ended).float()",
        36,
    ),
    Guard("gradient not finite", "robopolicy/train.py", "if not torch.isfinite(norm):", "if False:", 37),
    Guard(
        "progress not finite",
        "robopolicy/train.py",
        "            if spoiled:\n",
        "            if False:\n",
        37,
    ),
    Guard(
        "loss not finite", "robopolicy/train.py", 'if not math.isfinite(metrics["loss"]):', "if False:", 37
    ),
    Guard(
        "evaluation not a number",
        "robopolicy/steering/steer.py",
        "if not isfinite(rate.low):",
        "if False:",
        37,
    ),
    Guard(
        "imagination that diverges",
        "world_models/imagined_env.py",
        "sane = torch.isfinite(states).flatten(1).all(-1) & torch.isfinite(doubt)",
        "sane = torch.isfinite(doubt)",
        39,
    ),
    Guard(
        "imagination in doubt",
        "world_models/imagined_env.py",
        "doubtful = active & sane & (doubt > self.doubt_limit)",
        "doubtful = active & (doubt < 0)",
        39,
    ),
    Guard(
        "transition not finite",
        "robopolicy/steering/replay.py",
        "if not torch.isfinite(rows).all():",
        "if False:",
        39,
    ),
    Guard(
        "what is frozen changed",
        "robopolicy/steering/steer.py",
        "if before[name] != after[name]:",
        "if False:",
        40,
    ),
    Guard(
        "steerer not promoted",
        "robopolicy/steering/promotion.py",
        'if verdict.get("promoted") is not True:',
        "if False:",
        40,
    ),
    Guard("disk without room", "robopolicy/checkpoint.py", "if free < wanted:", "if False:", 24),
    Guard(
        "episode left out or damaged",
        "robopolicy/data/care.py",
        "kept = {i: e for i, e in enumerate(episodes) if i not in named}",
        "kept = dict(enumerate(episodes))",
        29,
    ),
    Guard(
        "actions other than where it was trained",
        "robopolicy/policies/proof.py",
        "if not off <= _TOLERANCE:",
        "if False:",
        42,
    ),
    Guard(
        "memory full",
        "robopolicy/train.py",
        "except torch.OutOfMemoryError as e:",
        "except ZeroDivisionError as e:",
        41,
    ),
)
