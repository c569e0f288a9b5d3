"""Training multi-task agents from a dataset: records, resume, processes, invalid input."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.interfaces import Accelerable
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.data.build import build
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import BuildOptions
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.tasks import get_task
from tdmpc2.evaluate import EvaluateOptions
from tdmpc2.runners.evaluate_checkpoint import evaluate_checkpoint
from tdmpc2.runners.offline_trainer import OfflineSchedule, OfflineTrainer
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.specs import make_offline_spec
from tests.kill_driver import Blow, Command, Done
from tests.runs import DIVERGING, TINY, outcome, run_directory, tiny

TASKS = ("toy-pointmass", "toy-pointmass-episodic")
ROOT = Path(__file__).parents[1]
# Evaluations at updates 0, 20, 40 and 45, a line of train.csv every 15; a checkpoint each update.
OFFLINE: dict[str, Any] = {
    **{k: v for k, v in TINY.items() if k not in ("env_steps", "seed_decisions", "task_dim")},
    "task": ",".join(TASKS),
    "num_updates": 45,
    "eval_every": 20,
    "log_every": 15,
    "task_dim": 4,
}
OFFLINE.pop("pretrain_updates")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("offline"))


def make_data(folder: Path) -> Path:
    """Return a dataset with the experience of two tiny runs."""
    for task in TASKS:
        assert tiny(folder / "runs", task=task, keep_replay="true").code == 0
    arguments = {"tasks": ",".join(TASKS), "runs": folder / "runs", "out": folder / "data"}
    build(BuildOptions(**arguments), say=lambda text: None)  # type: ignore[arg-type]
    return folder / "data"


def arguments(dataset: Path, runs: Path, **changes: Any) -> list[str]:
    values = {**OFFLINE, "data": dataset, "runs": runs, **changes}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def train(dataset: Path, runs: Path, blow: Blow | None = None, **changes: Any) -> Done:
    return Command(arguments(dataset, runs, **changes), blow).run()


def rows(directory: Path, name: str) -> list[dict[str, str]]:
    with open(directory / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_and_its_records(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path)
    assert done.code == 0, done
    directory = run_directory(tmp_path)
    evaluations = rows(directory, "eval")
    at = [(int(row["num_updates"]), row["task"]) for row in evaluations]
    assert at == [(update, task) for update in (0, 20, 40, 45) for task in TASKS]
    for row in evaluations:
        assert float(row["score"]) == pytest.approx(float(row["episode_return"]) / 10, rel=1e-6)
    assert [int(row["num_updates"]) for row in rows(directory, "train")] == [15, 30, 45]
    status = read_status(directory)
    assert status is not None
    assert (status["state"], status["num_updates"], status["budget"]) == ("COMPLETED", 45, 45)
    last = np.mean([float(row["score"]) for row in evaluations[-2:]])
    assert status["eval_score"] == pytest.approx(last, rel=1e-6)
    assert "COMPLETED at update 45" in done.out
    again = train(data, tmp_path, logger="tensorboard")
    assert "already finished" in again.out
    assert (directory / "tensorboard").is_dir()
    with pytest.raises(UserError, match=r"tdmpc2\.checkpoints evaluate"):
        evaluate_checkpoint(EvaluateOptions(run=directory))


KILLS = {
    "in the first evaluation": Blow("tdmpc2.agent:TDMPC2.act", 30),
    "in an update": Blow("tdmpc2.world_model:WorldModel.update_target", 18),
    "in a later evaluation": Blow("tdmpc2.agent:TDMPC2.act", 250),
    "in a line of eval.csv": Blow("tdmpc2.common.run.run_files:CsvRecord.append", 5, "half"),
    "in a checkpoint": Blow("torch:save", 9, "half"),
    "after the last line": Blow("tdmpc2.common.run.run_files:RunFiles.set_state", 2),
}


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    runs = tmp_path_factory.mktemp("undisturbed")
    assert train(data, runs).code == 0
    return outcome(runs)


@pytest.mark.parametrize("place", KILLS)
def test_killed_and_started_again(data: Path, tmp_path: Path, undisturbed: Any, place: str) -> None:
    assert train(data, tmp_path, KILLS[place]).code == -signal.SIGKILL
    assert train(data, tmp_path).code == 0
    assert outcome(tmp_path) == undisturbed


def test_restored_sums_of_metrics_are_on_the_device_of_the_agent(tmp_path: Path) -> None:
    """Checkpoints are read to the CPU; `meta` stands for a GPU."""
    agent: Any = SimpleNamespace(accelerable=lambda: Accelerable(torch.device("meta")))
    replay: Any = SimpleNamespace(load_state_dict=lambda state: None)
    schedule = OfflineSchedule(
        budget=9, eval_every=9, checkpoint_seconds=0, eval_episodes=1, log_every=9
    )
    store = CheckpointStore(tmp_path)
    trainer = OfflineTrainer(agent, [], [], replay, None, store, schedule, seed=0, world=World())
    metrics = {"sums": {"loss": torch.ones(())}, "counts": {"loss": 1}}
    trainer.load_state({"progress": {}, "memory": {}, "metrics": metrics}, {})
    trainer.metrics.add({"loss": torch.ones((), device="meta")})
    assert trainer.metrics.sums["loss"].device.type == "meta"
    assert trainer.metrics.counts == {"loss": 2}


def test_a_larger_budget_goes_on(data: Path, tmp_path: Path, undisturbed: Any) -> None:
    assert train(data, tmp_path, num_updates=40).code == 0
    directory = run_directory(tmp_path)
    done = train(data, tmp_path, num_updates=45)
    assert done.code == 0, done
    assert outcome(tmp_path).eval_csv == undisturbed.eval_csv
    assert outcome(tmp_path).agent == undisturbed.agent
    assert read_status(directory)["num_updates"] == 45  # type: ignore[index]


def test_sigusr2_saves_and_stops(data: Path, tmp_path: Path, undisturbed: Any) -> None:
    blow = Blow("tdmpc2.agent:TDMPC2.update", 12, number=signal.SIGUSR2)
    done = train(data, tmp_path, blow, checkpoint_minutes=60)
    assert done.code == 130
    assert "stopped at update 12" in done.err
    saved = run_directory(tmp_path) / "checkpoints"
    assert [path.name for path in saved.iterdir()] == ["000000000012"]
    assert train(data, tmp_path).code == 0
    assert outcome(tmp_path) == undisturbed


# The evaluation at update 40, and the last one, at 45.
EVALUATIONS = {40: Blow("tdmpc2.agent:TDMPC2.act", 250), 45: Blow("tdmpc2.agent:TDMPC2.act", 350)}


@pytest.mark.parametrize("update", EVALUATIONS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
def test_no_update_before_an_evaluation_is_lost(
    data: Path, tmp_path: Path, undisturbed: Any, update: int, number: signal.Signals
) -> None:
    """The checkpoint that was saved before the evaluation is the only recent one."""
    blow = dataclasses.replace(EVALUATIONS[update], number=number)
    code = train(data, tmp_path, blow, checkpoint_minutes=60).code
    assert code == (-number if number == signal.SIGKILL else 130)
    saved = run_directory(tmp_path) / "checkpoints"
    assert max(path.name for path in saved.iterdir()) == f"{update:012d}"
    assert not any(int(row["num_updates"]) >= update for row in rows(saved.parent, "eval"))
    assert train(data, tmp_path, checkpoint_minutes=60).code == 0
    assert outcome(tmp_path) == undisturbed


# An evaluation is two rounds of 50 decisions; the first evaluation and that at update 40.
ROUNDS = {0: Blow("tdmpc2.agent:TDMPC2.act", 60), 40: Blow("tdmpc2.agent:TDMPC2.act", 260)}


@pytest.mark.parametrize("update", ROUNDS)
@pytest.mark.parametrize(("number", "minutes"), [(signal.SIGUSR2, 60), (signal.SIGKILL, 0)])
def test_no_saved_round_of_an_evaluation_is_repeated(
    data: Path,
    tmp_path: Path,
    undisturbed: Any,
    update: int,
    number: signal.Signals,
    minutes: int,
) -> None:
    """An evaluation may take longer than a job; each job then adds rounds."""
    blow = dataclasses.replace(ROUNDS[update], number=number)
    code = train(data, tmp_path, blow, checkpoint_minutes=minutes).code
    assert code == (-number if number == signal.SIGKILL else 130)
    left = sum(at >= update for at in (0, 20, 40, 45)) * 100 - 50
    one_too_many = Blow("tdmpc2.agent:TDMPC2.act", left + 1)
    assert train(data, tmp_path, one_too_many, checkpoint_minutes=60).code == 0
    assert outcome(tmp_path) == undisturbed


def test_the_last_checkpoint_knows_the_last_evaluation(data: Path, tmp_path: Path) -> None:
    """A larger budget does not cut the line of the last evaluation off."""
    assert train(data, tmp_path, num_updates=30).code == 0
    assert train(data, tmp_path).code == 0
    at = [int(row["num_updates"]) for row in rows(run_directory(tmp_path), "eval")]
    assert at == [update for update in (0, 20, 30, 40, 45) for _ in TASKS]


def train_in_two(data: Path, runs: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Train one agent in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "tdmpc2/train.py", *arguments(data, runs, **changes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd=ROOT)


def test_two_processes_train_one_agent(data: Path, tmp_path: Path, undisturbed: Any) -> None:
    done = train_in_two(data, tmp_path, accumulate=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("COMPLETED") == 1
    directory = run_directory(tmp_path)
    assert '"split": "2 processes x 2 parts"' in (directory / "numeric.json").read_text()
    alone = tmp_path / "alone"
    assert train(data, alone).code == 0
    ours, theirs = rows(directory, "train")[0], rows(run_directory(alone), "train")[0]
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=2e-3, abs=2e-4), name
    refused = train(data, tmp_path, num_updates=60)
    assert refused.code == 2
    assert "split 2 processes x 2 parts → None" in refused.err
    latest = directory / "checkpoints" / f"{45:012d}"
    shutil.copytree(latest, latest.with_name(f"{50:012d}"))  # one that is left out below
    done = train_in_two(data, tmp_path, accumulate=2, num_updates=60, checkpoint="previous")
    assert done.returncode == 0, done.stderr
    assert [int(row["num_updates"]) for row in rows(directory, "eval")][-1] == 60


@pytest.mark.slow
def test_an_agent_of_two_processes_diverges(data: Path, tmp_path: Path) -> None:
    done = train_in_two(data, tmp_path, **DIVERGING)
    assert "unforeseen" not in done.stderr
    (status,) = tmp_path.rglob("status.json")
    assert '"DIVERGED"' in status.read_text()


def test_tdmpc_learns_several_tasks_too(data: Path, tmp_path: Path) -> None:
    own = ("num_bins", "task_dim")
    done = train(data, tmp_path, method="tdmpc", model_size=None, **dict.fromkeys(own))
    assert done.code == 0, done
    assert len(rows(run_directory(tmp_path), "eval")) == 8


def test_padded_dimensions_do_nothing(data: Path) -> None:
    """Unused action dimensions of a task are zero and give the policy no gradient."""
    tasks = "cartpole-swingup,cheetah-run"
    spec = make_offline_spec("tdmpc2", tasks, 1, "none", overrides={"model_size": "smoke"})
    shapes = multitask_spec([get_task(name) for name in spec.tasks])
    agent: Any = make_agent(spec, shapes, torch.device("cpu"))
    obs = np.random.default_rng(0).normal(size=(4, *shapes.obs_shape)).astype(np.float32)
    task = np.array([0, 1, 0, 1])
    first = np.ones(4, dtype=bool)
    for explore in (True, False):
        action = agent.act(obs, first=first, explore=explore, task=task)
        assert (action[task == 0, 1:] == 0).all()
        assert (action[task == 1] != 0).all()
    rows = torch.zeros(64, dtype=torch.long)
    context = agent.model.context(rows)
    latent = torch.rand(4, 64, agent.config.latent_dim)
    noise = agent.train_noise.update(64)
    agent.policy_loss(latent, rows, noise).loss.backward()
    last = [p for name, p in agent.model.named_parameters() if name.startswith("policy.2")]
    for parameter in last:  # the means of all dimensions, then the log standard deviations
        means, deviations = parameter.grad.split(shapes.action_dim)
        for gradient in (means, deviations):
            assert (gradient[0] != 0).any()
            assert (gradient[1:] == 0).all()
    assert context.action_mask is not None


def test_world_of_one() -> None:
    world = World()
    x = torch.arange(3.0)
    world.mean_([x])
    assert torch.equal(world.gather(x), torch.arange(3.0))
    assert world.largest(2) == 2
    assert world.first


def edited(folder: Path, target: Path) -> Path:
    """Return a copy of the dataset with one truncated shard."""
    dataset = Dataset.open(folder)
    target.mkdir()
    for path in folder.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    shard = dataset.shards(TASKS[0])[0].path
    copy = target / shard.relative_to(folder)
    copy.write_bytes(copy.read_bytes()[:-8])
    return target


OWN = dict.fromkeys(OFFLINE.keys() & {field.name for field in dataclasses.fields(TDMPC2Config)})
REFUSED = {
    "no data": ({"data": None}, "data= is missing"),
    "no such data": ({"data": "nowhere"}, "nowhere: "),
    "one task": ({"task": "toy-pointmass"}, "needs at least two tasks"),
    "a task twice": ({"task": "toy-pointmass,toy-pointmass"}, "is named twice"),
    "no such task": ({"task": "toy-pointmass,toy-pointmas"}, "did you mean 'toy-pointmass'"),
    "a task without data": ({"task": "toy-pointmass,walker-walk"}, "has no data of walker-walk"),
    "another method": ({"method": "sac", **OWN}, "method=sac: learns one task at a time"),
    "env_steps": ({"env_steps": 100}, "unknown key 'env_steps'"),
    "batch": ({"accumulate": 3}, "batch_size=8: must be a multiple of accumulate=3"),
    "size": ({"model_size": 2}, "model_size=2: unknown value"),
    "updates": ({"num_updates": 0}, "num_updates=0"),
    "horizon": ({"horizon": 60}, "no episode of toy-pointmass has 60 or more transitions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(data: Path, tmp_path: Path, case: str) -> None:
    changes, text = REFUSED[case]
    done = train(data, tmp_path, **changes)
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert text in done.err
    assert not list(tmp_path.iterdir())


def test_a_damaged_shard_is_named(data: Path, tmp_path: Path) -> None:
    done = train(edited(data, tmp_path / "data"), tmp_path / "runs")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "toy-pointmass-" in done.err
