"""A run that is killed at any point and resumed ends with the same bytes as an undisturbed run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.envs.tasks import get_task
from tests.kill_driver import Blow
from tests.runs import checkpoint_steps, evaluated_steps, files, outcome, run_directory, tiny

TRAINER = "tdmpc2.common.training.trainer:Trainer"
STORE = "tdmpc2.common.run.checkpoint:CheckpointStore"
CSV = "tdmpc2.common.run.run_files:CsvRecord"


@dataclass(frozen=True)
class Kill:
    """Points at which a tiny run is killed, and the expected contents of its directory.

    A tiny run has episodes of 50 decisions, evaluations at 0, 100 and 200, and checkpoints at 50,
    100, 150 and 200, of which two are kept. The first update, with 8 more, follows decision 111.

    Attributes:
        blows: one kill per attempt.
        checkpoints: complete checkpoints after the last kill.
        evaluated: env steps of the complete lines of `eval.csv`.
        leaves: pattern of an unfinished file or folder that must exist.
    """

    blows: tuple[Blow, ...]
    checkpoints: tuple[int, ...]
    evaluated: tuple[int, ...]
    leaves: str = ""


def kill(
    function: str,
    call: int,
    when: Literal["before", "after", "half"] = "before",
    *,
    at: tuple[int, ...] = (),
    lines: tuple[int, ...] = (),
    leaves: str = "",
) -> Kill:
    """Return a `Kill` with one `Blow`."""
    return Kill((Blow(function, call, when),), at, lines, leaves)


KILLS = {
    "before anything is recorded": kill(
        "tdmpc2.common.run.run_files:RunFiles.write_spec", 1, "after", leaves="lease.json"
    ),
    "in the first evaluation": kill("tdmpc2.agent:TDMPC2.act", 20),
    "in the seeding phase": kill(f"{TRAINER}._choose_actions", 70, at=(50,), lines=(0,)),
    "while a later evaluation runs": kill("tdmpc2.agent:TDMPC2.act", 70, at=(50,), lines=(0,)),
    "half-way through a line of eval.csv": kill(
        f"{CSV}.append", 4, "half", at=(50,), lines=(0,), leaves="eval.csv"
    ),
    "in the pre-training burst": kill(
        "tdmpc2.agent:TDMPC2.update", 5, at=(50, 100), lines=(0, 100)
    ),
    "mid-episode": kill(f"{TRAINER}._choose_actions", 173, at=(100, 150), lines=(0, 100)),
    "between update and target network": kill(
        "tdmpc2.world_model:WorldModel.update_target", 40, at=(100, 150), lines=(0, 100)
    ),
    "half-way through a line of train.csv": kill(
        f"{CSV}.append", 6, "half", at=(50, 100), lines=(0, 100), leaves="train.csv"
    ),
    "while the very first checkpoint is written": kill(
        "torch:save", 1, "half", lines=(0,), leaves="checkpoints/.*.tmp/state.pt"
    ),
    "while episodes are written": kill(
        "numpy:savez", 3, "half", at=(50, 100), lines=(0, 100), leaves="replay/.episodes-*.tmp"
    ),
    "while state.pt is written": kill(
        "torch:save", 3, "half", at=(50, 100), lines=(0, 100), leaves="checkpoints/.*.tmp/state.pt"
    ),
    "between state.pt and the manifest": kill(
        "tdmpc2.common.run.checkpoint:write_json",
        3,
        at=(50, 100),
        lines=(0, 100),
        leaves="checkpoints/.*.tmp/state.pt",
    ),
    "before a finished checkpoint gets its name": kill(
        "os:rename", 3, at=(50, 100), lines=(0, 100), leaves="checkpoints/.*.tmp/manifest.json"
    ),
    "when a checkpoint has got its name": kill(
        "os:rename", 3, "after", at=(50, 100, 150), lines=(0, 100)
    ),
    "while an old checkpoint is removed": kill(
        "os:rmdir", 1, at=(50, 100, 150), lines=(0, 100), leaves="checkpoints/000000000050"
    ),
    "just after a checkpoint": kill(f"{TRAINER}.save", 3, "after", at=(100, 150), lines=(0, 100)),
    "in the last evaluation": kill("tdmpc2.agent:TDMPC2.act", 200, at=(100, 150), lines=(0, 100)),
    "before the last checkpoint": kill(f"{TRAINER}.save", 4, at=(100, 150), lines=(0, 100, 200)),
    "before the old episodes are removed": kill(
        f"{STORE}.forget_history", 1, at=(150, 200), lines=(0, 100, 200), leaves="replay/*.npz"
    ),
    "after the last checkpoint, before COMPLETED": kill(
        f"{STORE}.forget_history", 1, "after", at=(200,), lines=(0, 100, 200)
    ),
    "twice in a row at one place": Kill(
        (
            Blow(f"{TRAINER}._choose_actions", 173),
            Blow(f"{TRAINER}._choose_actions", 23),
        ),
        (100, 150),
        (0, 100),
    ),
    "twice in a row, first in a checkpoint, then while the records are cut back": Kill(
        (Blow("torch:save", 3, "half"), Blow(f"{CSV}.cut_back", 1, "after")), (50, 100), (0, 100)
    ),
    "three times in a row": Kill(
        (
            Blow(f"{TRAINER}._choose_actions", 70),
            Blow("tdmpc2.agent:TDMPC2.act", 20),
            Blow("os:rename", 3),  # the first rename removes the dead lease
        ),
        (50, 100),
        (0, 100),
    ),
}


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_repeats_byte_for_byte(name: str, undisturbed: Path, tmp_path: Path) -> None:
    case = KILLS[name]
    for blow in case.blows:
        assert tiny(tmp_path, blow).code == -signal.SIGKILL
    assert checkpoint_steps(tmp_path) == list(case.checkpoints)
    assert evaluated_steps(tmp_path) == list(case.evaluated)
    if case.leaves:
        assert list(run_directory(tmp_path).glob(case.leaves))

    done = tiny(tmp_path)
    assert done.code == 0, done
    assert outcome(tmp_path) == outcome(undisturbed)
    assert evaluated_steps(tmp_path) == [0, 100, 200]
    assert files(tmp_path) == files(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_says_so_and_resumes(
    number: signal.Signals, undisturbed: Path, tmp_path: Path
) -> None:
    done = tiny(tmp_path, Blow("tdmpc2.agent:TDMPC2.update", 5, number=number))
    assert done.code == 130
    assert "COMPLETED" not in done.out
    assert done.err == "stopped at env step 141; run the same command again to continue\n"
    directory = run_directory(tmp_path)
    assert read_status(directory)["state"] == "INTERRUPTED"
    assert read_json(directory / "sacred/1/run.json")["status"] == "INTERRUPTED"
    assert not (directory / "lease.json").exists()

    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


UPDATE, EVALUATE = "tdmpc2.agent:TDMPC2.update", "tdmpc2.agent:TDMPC2.seed_evaluation"


@pytest.mark.parametrize(
    ("function", "call", "stopped", "checkpoints"),
    [
        (EVALUATE, 1, 0, []),
        (UPDATE, 5, 150, [150]),
        (EVALUATE, 2, 100, [100]),
        (EVALUATE, 3, None, [200]),  # in the last evaluation: the run completes
    ],
)
def test_a_run_that_is_warned_ends_its_episode_and_saves(
    function: str,
    call: int,
    stopped: int | None,
    checkpoints: list[int],
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    """Also if no checkpoint was due for an hour."""
    rarely = {"checkpoint_minutes": 60}
    warning = Blow(function, call, number=signal.SIGUSR2)
    done = tiny(tmp_path, warning, **rarely)
    if stopped is not None:
        assert done.code == 130
        assert done.err.startswith(f"stopped at env step {stopped}, between episodes;")
        assert checkpoint_steps(tmp_path) == checkpoints
        done = tiny(tmp_path, **rarely)
    assert done.code == 0, done
    assert checkpoint_steps(tmp_path) == [200]
    assert outcome(tmp_path) == outcome(undisturbed)


# With a small buffer, old episodes have been removed and the ring has wrapped before the kill.
VARIANTS = {
    "prioritized replay": {"prioritized_replay": "true"},
    "replay that wraps": {"buffer_size": 120},
    "both": {"prioritized_replay": "true", "buffer_size": 120},
    "episodes of unequal length": {"task": "toy-pointmass-episodic", "buffer_size": 140},
    "noise that shrinks with time": {"policy_prior": "gaussian_noise", "initial_min_std": 2},
    "no planning": {"planning": "false"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_repeat_byte_for_byte_too(name: str, tmp_path: Path) -> None:
    changes = VARIANTS[name]
    assert tiny(tmp_path / "undisturbed", **changes).code == 0
    last = Blow(f"{TRAINER}.save", checkpoints(tmp_path / "undisturbed"), "before")
    assert tiny(tmp_path / "killed", last, **changes).code == -signal.SIGKILL
    *_, newest = sorted(run_directory(tmp_path / "killed").glob("checkpoints/*/manifest.json"))
    assert (read_json(newest)["oldest_episode"] > 0) == ("buffer_size" in changes)
    assert tiny(tmp_path / "killed", **changes).code == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "undisturbed")


def checkpoints(runs: Path) -> int:
    """Return the number of checkpoints that a run has written: one per episode."""
    return len((run_directory(runs) / "timing.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("cartpole-swingup", {}),
        ("mw-push", {}),
        ("myo-hand-reach-hard", {}),
        ("lift-cube", {}),
        ("turn-faucet", {"assets": "standin"}),
        pytest.param(  # takes two minutes of rendering on a CPU
            "reacher-easy",
            {"obs": "rgb", "num_channels": 2, "latent_dim": 32},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_real_simulators_repeat_byte_for_byte(
    tmp_path: Path, task: str, changes: dict[str, Any]
) -> None:
    """Killed after the first updates, in the last of three episodes or the second of two."""
    row = get_task(task)
    episode, num = row.episode_length, 2 if row.episode_length == 500 else 3
    budget = num * episode * row.action_repeat
    first_update = 3 * episode // 2 - 60 if num == 2 else 2 * episode - 60
    changes = {
        "task": task,
        "env_steps": budget,
        "seed_decisions": first_update,
        "planning": "false",
        "eval_every": budget,
        "eval_episodes": 1,
        **changes,
    }
    assert tiny(tmp_path / "undisturbed", **changes).code == 0
    mid_episode = Blow(f"{TRAINER}._choose_actions", (num - 1) * episode + episode // 2)
    assert tiny(tmp_path / "killed", mid_episode, **changes).code == -signal.SIGKILL
    assert checkpoint_steps(tmp_path / "killed")[-1] == (num - 1) * episode
    assert tiny(tmp_path / "killed", **changes).code == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "undisturbed")
    assert evaluated_steps(tmp_path / "killed") == [0, budget]


@pytest.mark.parametrize("buffer_size", [51, 110])
def test_a_small_buffer_drops_no_episode_that_is_to_be_kept(
    buffer_size: int, tmp_path: Path
) -> None:
    """It holds one or two of the four episodes, and no checkpoint is due by the clock."""
    values = {"keep_replay": "true", "checkpoint_minutes": 60, "buffer_size": buffer_size}
    done = tiny(tmp_path, **values)
    assert done.code == 0, done
    (manifest,) = (run_directory(tmp_path) / "checkpoints").glob("*/manifest.json")
    shards = read_json(manifest)["shards"]
    assert [shard["first"] for shard in shards] == ([0, 1, 2, 3] if buffer_size == 51 else [0, 2])
    assert sum(shard["count"] for shard in shards) == 4
