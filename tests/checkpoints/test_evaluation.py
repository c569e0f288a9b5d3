"""Evaluation of one task and of all tasks of a multi-task model, and of single-task models."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc2.checkpoints import actions
from tdmpc2.checkpoints.__main__ import main
from tdmpc2.checkpoints.evaluation import TaskResult, choose_tasks, evaluate_tasks
from tdmpc2.checkpoints.model_file import agent_of, save_model
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.evaluation import Evaluation, evaluate
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.multitask import PaddedEnv, multitask_spec
from tdmpc2.envs.tasks import get_task
from tdmpc2.evaluate import main as evaluate_run
from tdmpc2.runners import evaluate_checkpoint
from tests.checkpoints.models import TASKS, model, official_file
from tests.runs import run_directory

SETTINGS = ("threads=1", "compile=false", "device=cpu")


def test_a_task_alone_equals_the_task_among_others() -> None:
    three = model(*TASKS, planning=False)
    together = {
        result.task.name: result
        for result in evaluate_tasks(three, agent_of(three), TASKS, episodes=2, workers=0)
    }
    assert list(together) == list(TASKS)
    assert [r.outcome.lengths.tolist() for r in together.values()] == [
        *([50, 50], [500, 500], [100, 100]),
    ]
    for name in TASKS:
        (alone,) = evaluate_tasks(three, agent_of(three, seed=3), [name], episodes=2, workers=0)
        assert alone.row() == together[name].row()
        assert len(set(alone.outcome.returns)) == 2


def test_the_command_evaluates_a_list_and_one_task_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "a.pt", model(*TASKS))
    command = ["evaluate", str(tmp_path / "a.pt"), "episodes=2"]
    chosen = {"one": "mw-reach", "two": "toy-pointmass,mw-reach"}
    for name, task in chosen.items():
        assert main([*command, f"task={task}", f"out={tmp_path / name}", *SETTINGS]) == 0
    one, two = (json.loads((tmp_path / name).read_text()) for name in chosen)
    assert one["tasks"][0] == two["tasks"][1]
    assert two["score"] == pytest.approx(np.mean([row["score"] for row in two["tasks"]]))
    assert "mean of 2 tasks" in capsys.readouterr().out


def test_worker_processes_change_nothing() -> None:
    three = model(*TASKS)
    outcomes = [
        [r.row() for r in evaluate_tasks(three, agent_of(three), TASKS[:1], episodes=3, workers=n)]
        for n in (0, 2)
    ]
    assert outcomes[0] == outcomes[1]


def test_a_run_gets_the_result_of_the_other_command(undisturbed: Path, tmp_path: Path) -> None:
    run = run_directory(undisturbed)
    save = [f"out={tmp_path / name}" for name in ("ours", "theirs")]
    assert main(["evaluate", str(run), "episodes=3", "seed=5", save[0], *SETTINGS]) == 0
    assert evaluate_run([f"run={run}", "episodes=3", "seed=5", save[1], *SETTINGS]) == 0
    ours, theirs = (json.loads((tmp_path / name).read_text()) for name in ("ours", "theirs"))
    assert ours["tasks"][0]["returns"] == theirs["returns"]
    assert ours["tasks"][0]["score"] == pytest.approx(theirs["episode_return"] / 10)


@pytest.mark.parametrize(("trained", "expected"), [("tf32", "fp32"), ("bf16", "bf16")])
def test_both_commands_evaluate_in_the_precision_of_the_run(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: str,
    expected: str,
) -> None:
    """On a CPU, a run in TF32 is evaluated in float32."""
    run = tmp_path / "run"
    shutil.copytree(run_directory(undisturbed), run)
    spec = json.loads((run / "spec.json").read_text())
    spec["overrides"]["precision"] = trained
    (run / "spec.json").write_text(json.dumps(spec))
    used = []
    for module in (actions, evaluate_checkpoint):
        path = module.numeric_path

        def noting(*args: Any, path: Any = path, **settings: Any) -> Any:
            used.append(settings["precision"])
            return path(*args, **settings)

        monkeypatch.setattr(module, "numeric_path", noting)
    save = [f"out={tmp_path / name}" for name in ("one", "other")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # not every CPU has bf16 instructions
        assert main(["evaluate", str(run), "episodes=1", save[0], *SETTINGS]) == 0
        assert evaluate_run([f"run={run}", "episodes=1", save[1], *SETTINGS]) == 0
    assert used == [expected, expected]
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("one", "other"))
    assert one["tasks"][0]["returns"] == other["returns"]


def test_a_single_task_official_file_is_told_its_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = official_file(tmp_path / "a.pt", model("toy-pointmass"))
    assert main(["evaluate", str(path), "task=toy-pointmass", "episodes=1", *SETTINGS]) == 0
    assert "size smoke on toy-pointmass\n" in capsys.readouterr().out


def test_a_multitask_official_file_is_told_its_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = official_file(tmp_path / "a.pt", model(*TASKS), "old")
    named = [f"tasks={','.join(TASKS)}", "task=toy-pointmass", "episodes=1"]
    assert main(["evaluate", str(path), *named, *SETTINGS]) == 0
    assert "size smoke on 3 tasks\n" in capsys.readouterr().out


def test_the_score_is_a_tenth_of_the_return_or_the_success_in_percent() -> None:
    outcome = Evaluation(
        returns=np.array([400.0, 600.0]),
        successes=np.array([1.0, 0.0]),
        successes_ever=np.array([1.0, 1.0]),
        lengths=np.array([500, 500]),
    )
    assert TaskResult(get_task("walker-walk"), outcome).score == 50.0
    assert TaskResult(get_task("mw-push"), outcome).score == 50.0
    always = Evaluation(outcome.returns, np.ones(2), np.ones(2), outcome.lengths)
    assert TaskResult(get_task("mw-push"), always).score == 100.0


def test_a_task_of_several_is_seen_padded_and_told_apart() -> None:
    """The agent gets the padded shapes and the task index, which determines the discount."""
    three = model(*TASKS)
    agent = agent_of(three)
    asked: list[tuple[tuple[int, ...], list[int]]] = []

    class Watched:
        """An agent that records its inputs."""

        def seed_evaluation(self, seed: int) -> None:
            agent.seed_evaluation(seed)

        def act(self, obs: np.ndarray, **others: Any) -> np.ndarray:
            asked.append((obs.shape, others["task"].tolist()))
            assert not obs[:, 4:].any()
            action = agent.act(obs, **others)
            assert not action[:, 2:].any()
            return action

    watched: Any = Watched()
    (result,) = evaluate_tasks(three, watched, ["toy-pointmass"], episodes=2, workers=0)
    assert asked == [((2, 39), [0, 0])] * 50
    own = multitask_spec([get_task(name) for name in TASKS])
    envs = [PaddedEnv(make_env("toy-pointmass", seed=i), own) for i in range(2)]
    agent.seed_evaluation(derive_seed(0, "evaluation noise", "toy-pointmass"))
    seeds = [derive_seed(0, "evaluation", "toy-pointmass", i) for i in range(2)]
    expected = evaluate(agent, envs, seeds, tasks=[0, 0])
    assert result.outcome.returns.tolist() == expected.returns.tolist()


def test_a_model_that_answers_with_nan_is_refused() -> None:
    broken = model("toy-pointmass", planning=False)
    broken.weights["policy.2.bias"].fill_(float("nan"))
    with pytest.raises(UserError, match="toy-pointmass: non-finite action"):
        list(evaluate_tasks(broken, agent_of(broken), ["toy-pointmass"], episodes=1, workers=0))


def test_tasks_that_a_model_does_not_know() -> None:
    three = model(*TASKS)
    assert choose_tasks(three, "all") == TASKS
    assert choose_tasks(three, "mw-reach") == ("mw-reach",)
    assert choose_tasks(model(), None) == ("walker-walk",)
    with pytest.raises(UserError, match="did you mean 'mw-reach'"):
        choose_tasks(three, "mw-reach-wall")


def test_a_model_file_knows_its_tasks(tmp_path: Path) -> None:
    save_model(tmp_path / "a.pt", model("toy-pointmass"))
    assert main(["evaluate", str(tmp_path / "a.pt"), "episodes=1", *SETTINGS]) == 0
