"""Jobs come to the same wherever they are done, whoever dies meanwhile; Ray is a cluster of two nodes."""

import os
import threading
from contextlib import suppress
from functools import partial

import psutil
import pytest
import ray
import torch
from jobs import Powers, asked_for_threads
from ray.cluster_utils import Cluster
from tiny import tiny_policy

from robopolicy.backends import workers
from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.policies.train import save_policy
from sim.tasks import find_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
JOBS = [3, 1, 4, 1, 5, 9, 2, 6]
SQUARES = [9, 1, 16, 1, 25, 81, 4, 36]
WHERE = [("local", 1), ("local", 3), ("ray", 1), ("ray", 4)]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two nodes of this machine with two cores each, which RAY_ADDRESS names."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers stand back behind everything else, such as other tests.
        patch.setenv("RAY_worker_niceness", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        nodes.add_node(num_cpus=2)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


def done(make, where, jobs=JOBS):
    with workers(make, *where) as run:
        found = dict(run(jobs))
    return [found[i] for i in range(len(jobs))]


@pytest.mark.parametrize("where", WHERE)
def test_jobs_wherever_they_are_done_come_to_the_same(where, tmp_path):
    assert done(partial(Powers, tmp_path), where) == SQUARES


@pytest.mark.parametrize("where", [("local", 2), ("ray", 2)])
def test_job_of_a_killed_worker_is_done_by_another(where, tmp_path):
    assert done(partial(Powers, tmp_path, frozenset({4, 9})), where) == SQUARES
    assert {p.name for p in tmp_path.glob("died-*")} == {"died-4", "died-9"}


@pytest.mark.parametrize("where", [("local", 2), ("ray", 2)])
def test_job_that_kills_every_worker_is_given_up(where, tmp_path):
    with pytest.raises(RoboPolicyError, match=r"died|gave up"):
        done(partial(Powers, tmp_path, frozenset({4}), True), where)


@pytest.mark.parametrize("where", WHERE[1:3])
def test_what_a_job_raises_is_raised(where, tmp_path):
    with pytest.raises(BadInput, match="not negative, got -1"):
        done(partial(Powers, tmp_path), where, [1, -1])


@pytest.mark.parametrize("where", [("local", 1), ("local", 2)])
def test_worker_is_prepared_once_for_all_its_jobs(where, tmp_path):
    with workers(partial(Powers, tmp_path), *where) as run:
        for _ in range(3):
            list(run(JOBS))
    assert {p.name[9:] for p in tmp_path.glob("prepared-*")} == {
        p.name[7:] for p in tmp_path.glob("worked-*")
    }


@pytest.mark.parametrize("where", [("local", 1), ("local", 2)])
def test_worker_has_one_thread_and_this_process_its_own_again(where):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert done(asked_for_threads, where, [0, 0]) == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_local_workers_are_gone_with_their_block_even_in_the_middle_of_work(tmp_path):
    with workers(partial(Powers, tmp_path), "local", 2) as run:
        next(iter(run(JOBS)))
        pids = [int(p.name[9:]) for p in tmp_path.glob("prepared-*")]
    assert pids
    assert os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_ray_is_left_as_it_was_found(tmp_path):
    done(partial(Powers, tmp_path), ("ray", 1))
    assert not ray.is_initialized()
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    try:
        assert done(partial(Powers, tmp_path), ("ray", 1)) == SQUARES
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_node_that_is_lost_leaves_its_jobs_to_the_other(cluster, tmp_path):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    with workers(partial(Powers, tmp_path), "ray", 6) as run:
        jobs = list(range(60))
        found = {}
        for i, result in run(jobs):
            found[i] = result
            if len(found) == 20:
                cluster.remove_node(node, allow_graceful=False)
    assert found == {n: n * n for n in jobs}


MEASURED = ("wall_clock_s", "peak_memory_mb", "seconds", "steps_per_s", "processes")


def judged(tmp_path, name, flags):
    """What the verb `evaluate` finds out, without what it took."""
    given = f"--policy {tmp_path / 'policy'} --task count --episodes 6 --out {tmp_path / name}"
    assert main(["evaluate", *given.split(), *flags.split()]) == 0
    found = read_json(tmp_path / name / "result.json")
    rows = [{k: v for k, v in row.items() if k not in MEASURED} for row in found["policies"]]
    return rows, found["differences"]


def killed(there):
    """Kills the first process that `there` finds, once; returns the thread that does it."""

    def kill():
        while True:
            with suppress(psutil.NoSuchProcess):  # gone since it was listed
                for process in there():
                    return process.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def servers():
    """Where this process has its workers forked."""
    return [p.pid for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]


def children():
    return [child for server in servers() for child in psutil.Process(server).children()]


def of_ray():
    return [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::_do")]


def test_evaluation_wherever_it_is_done_comes_to_the_same_and_after_a_worker_was_killed(tmp_path):
    save_policy(tiny_policy(find_task("count").spec), tmp_path / "policy")
    alone = judged(tmp_path, "alone", "--processes 1")
    for there, flags in ((children, "--processes 2"), (of_ray, "--backend ray --processes 2")):
        thread = killed(there)
        assert judged(tmp_path, f"killed{flags.replace(' ', '')}", flags) == alone
        thread.join(0)
        assert not thread.is_alive()
