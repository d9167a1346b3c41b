"""A million random and mutated frames at the policy server: does anything crash, does memory grow?

    python -m benchmarks.deploy.fuzz [--frames 1000000]

Frames are decoded and answered as the server does it, without a socket between, so that there can be many;
every thousandth goes through a socket as well, after which the server has to answer a good one.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from benchmarks.deploy.common import ROOT, save
from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer
from robopolicy.serve import PolicyService
from robopolicy.wire import Client, Server, WireError, check, decode, encode

SEED = 52


def main() -> None:
    """Runs and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from reach_by_script import SPEC, ReachByScript

    service = PolicyService(ReachByScript(), PriorSteerer(), 1)
    handlers = service.connect()
    handlers["reset"].answer(seed=0)
    obs = np.zeros((SPEC.obs_steps, SPEC.state_dim), np.float32)
    good = [
        encode({"kind": "hello"}),
        encode({"kind": "reset", "seed": 3}),
        encode({"kind": "act", "obs": obs, "step": 0}),
        encode({"kind": "ping"}),
        encode({"kind": "stats"}),
    ]
    rng, process = np.random.default_rng(SEED), psutil.Process()
    outcomes: Counter[str] = Counter()
    crashes, memory, began = [], [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Server(str(Path(folder) / "s"), service.connect):
        for i in range(args.frames):
            frame = mutated(rng, good)
            try:
                outcomes[answered(frame[4:], handlers)] += 1
            except Exception as e:
                crashes.append(f"{type(e).__name__}: {e}")
            if i % 1000 == 0:
                shout(str(Path(folder) / "s"), frame)
            if i % (args.frames // 20 or 1) == 0:
                memory.append(process.memory_info().rss / 1e6)
                print(f"{i}: {dict(outcomes)}, {len(crashes)} crashes, {memory[-1]:.0f} MB", flush=True)
    grown = memory[-1] - memory[len(memory) // 4]
    seconds = time.perf_counter() - began
    found = {"frames": args.frames, "crashes": len(crashes), "first": crashes[:3], "outcomes": dict(outcomes)}
    save("fuzz", {"seed": SEED, **found, "memory_grown_mb": grown, "memory_mb": memory, "seconds": seconds})
    print(found, f"memory grew by {grown:.1f} MB after a quarter")


def mutated(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """A frame: random bytes, or a good one with bytes changed, cut off, repeated or joined with another."""
    frame = bytearray(good[rng.integers(len(good))])
    way = rng.integers(6)
    if way == 0:
        return struct.pack(">I", n := int(rng.integers(0, 200))) + rng.bytes(n)
    if way == 1:
        return bytes(frame[: rng.integers(4, len(frame) + 1)])
    if way == 2:
        other = good[rng.integers(len(good))]
        return bytes(frame[: rng.integers(4, len(frame) + 1)]) + other[int(rng.integers(4, len(other))) :]
    for _ in range(int(rng.integers(1, 4))):
        frame[rng.integers(4, len(frame))] = rng.integers(256)
    return bytes(frame)


def answered(body: bytes, handlers) -> str:
    """What the server makes of the body of a frame."""
    try:
        message = decode(body)
        handler = handlers.get(message["kind"])
        if handler is None:
            raise BadInput("kind", "a request", message["kind"])
        check(message, handler.schema)
        handler.answer(**{k: v for k, v in message.items() if k != "kind"})
    except WireError:
        return "not a message"
    except BadInput:
        return "refused"
    return "answered"


def shout(address: str, frame: bytes) -> None:
    """Sends a frame to a server; then it has to answer someone else."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(address)
        stranger.sendall(frame)
        with Client(address, 5.0) as client:
            client.request("ping")


if __name__ == "__main__":
    main()
