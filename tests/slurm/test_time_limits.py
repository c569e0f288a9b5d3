"""Jobs whose episode outlasts the time between a warning and the end of the job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps import cancel
from tests.slurm import sweeping
from tests.slurm.cluster import CONF, Cluster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

# SLURM's default time between SIGTERM and SIGKILL; a run stops 20 s after SIGTERM.
PATIENT = CONF.replace("KillWait=3", "KillWait=30")
# Its steps take two seconds while a file exists.
SLOW = """
import os, time
import gymnasium
import numpy as np

class Slow(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}

    def step(self, action):
        if os.path.exists(FILE):
            time.sleep(2)
        self.x = 0.9 * self.x + 0.1 * float(action[0])
        return np.array([self.x], np.float32), 1 - abs(self.x), False, False, {}

gymnasium.register("Slow-v0", Slow, max_episode_steps=100)
"""
TRAINED = {"tasks": "slow_env:Slow-v0", "env_steps": 600, "eval_every": 600}


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that makes episodes take 200 s; it does not exist yet."""
    file = tmp_path / "slow"
    (tmp_path / "slow_env.py").write_text(SLOW.replace("FILE", repr(str(file))))
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("configured", [PATIENT], indirect=True, ids=["patient"])
def test_a_job_comes_back_whose_episodes_outlast_the_warning_unless_it_is_cancelled(
    configured: Cluster, slow: Path, tmp_path: Path
) -> None:
    """SLURM accepts a requeue after its SIGTERM, also one of a job that a user has cancelled."""
    limited, cancelled = tmp_path / "limited", tmp_path / "cancelled"
    sweeping.sweep(cancelled, seeds=1, **TRAINED)
    held = [*sweeping.hold(cancelled, (1,)).values()]
    sweeping.sweep(limited, seeds=2, runs_per_gpu=2, **TRAINED)
    held += sweeping.hold(limited, (1, 2)).values()
    slow.touch()
    for pid in held:
        os.kill(pid, signal.SIGCONT)
    gone, job = str(sweeping.views(cancelled)[1].job), str(sweeping.views(limited)[1].job)
    configured.call("scancel", "--signal=USR2", gone, job)
    configured.call("scontrol", "update", f"jobid={job}", "timelimit=1")
    assert cancel.main([f"runs={cancelled}"]) == 0
    assert gone not in configured.jobs()
    assert sweeping.views(cancelled)[1].state == "resumable"

    wait_for(lambda: configured.jobs().get(job) in ("PENDING", None), 300, "the requeue")
    configured.call("scontrol", "update", f"jobid={job}", "timelimit=20")
    slow.unlink()
    sweeping.until_empty(configured)
    undisturbed = tmp_path / "undisturbed"
    assert sweeping.sweep(undisturbed, seeds=2, cluster="inline", **TRAINED) == 0
    for seed in (1, 2):
        assert "(signal 12)" in sweeping.views(limited)[seed].log.read_text()
        assert sweeping.views(limited)[seed].state == "done"
        assert len(sweeping.attempts(limited, seed)) == 2
        assert sweeping.same_as(limited, undisturbed, seed)
    assert len(sweeping.attempts(cancelled, 1)) == 1
