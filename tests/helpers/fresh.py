"""A new interpreter for what a process decides only once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fresh_python(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a new interpreter: MuJoCo decides how it renders once, when it is imported."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *args], env=env, cwd=cwd, capture_output=True, text=True, timeout=400, check=False
    )


def run_by_two(script: Path) -> None:
    """Runs a script in two processes that share a training, as `accelerate launch` starts them."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    line = [*launch, "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    subprocess.run([*line, str(script)], check=True, timeout=240, capture_output=True)
