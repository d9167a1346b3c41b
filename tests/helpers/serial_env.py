"""Simulators of this process, and the careful expert of a task."""

import numpy as np

from sim.tasks import find_task
from sim.vector import ChunkWrapper


class Serial:
    """As `sim.vector.SimVectorEnv`, in this process."""

    def __init__(self, name, num_envs=1, chunk=1):
        task = find_task(name)
        self.spec, self.num_envs = task.spec, num_envs
        self.envs = [ChunkWrapper(task.make, task.spec, chunk) for _ in range(num_envs)]

    def reset(self, seed, options):
        pairs = zip(self.envs, seed, options["reset_mask"], strict=True)
        obs = [env.reset(seed=s)[0] if m else env._history.copy() for env, s, m in pairs]
        return np.stack(obs), {}

    def step(self, actions):
        out = [env.step(a) for env, a in zip(self.envs, actions, strict=True)]
        infos = [o[4] for o in out]
        info = {k: np.array([i[k] for i in infos]) for k in infos[0] if k != "reason"}
        info["reason"] = [i["reason"] for i in infos]
        return (*(np.stack([o[i] for o in out]) for i in range(4)), info)


def expert(name):
    task = find_task(name)
    return task.expert(task.spec, task.experts()["careful"])
