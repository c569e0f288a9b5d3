"""The training loop, with an agent that counts its updates, in episodes of 50 decisions."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.interfaces import Counters, Event
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import EVAL_COLUMNS, RunFiles
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.errors import DivergedError, StoppedError, UserError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.loop_requests import serve
from tdmpc2.common.training.trainer import OnlineSchedule, Trainer
from tdmpc2.common.training.vector_env import SerialEnvs
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task

LENGTH = 50
NEVER = math.inf


class CountingAgent:
    """Acts constantly; its only parameter is the number of its updates."""

    num_envs, replay_length, seed_decisions = 1, 1, 61
    replay_visibility = "episode"
    replay_across_episodes, replay_priorities, seed_with_agent = False, None, False

    def __init__(self) -> None:
        self.weight = torch.zeros(1)
        self.loss = 0.5
        self.action = 1.0
        self.acts: list[tuple[int, bool, bool]] = []
        self.events: list[tuple[Event, Counters]] = []
        self.episodes_seen: list[int] = []
        self.evaluation_seeds: list[int] = []

    def updates_due(self, event: Event, counters: Counters) -> int:
        self.events.append((event, counters))
        return int(event == "decision" and counters.decisions >= self.seed_decisions)

    def act(self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: Any = None) -> Any:
        self.acts.append((len(obs), bool(first.all()), explore))
        return np.tile(np.float32([0.0, self.action]), (len(obs), 1))

    def seed_evaluation(self, seed: int) -> None:
        self.evaluation_seeds.append(seed)

    def update(self, replay: Replay) -> dict[str, torch.Tensor]:
        self.episodes_seen.append(replay.num_episodes)
        self.weight = self.weight + 1
        return {"loss": torch.tensor(self.loss), "weight": self.weight[0]}

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


def make_trainer(
    directory: Path,
    *,
    env_steps: int = 200,
    eval_every: int = 100,
    checkpoint_seconds: float = NEVER,
    keep_replay: bool = False,
    action_repeat: int = 1,
    callbacks: Callbacks | None = None,
) -> Trainer:
    task = dataclasses.replace(get_task("toy-pointmass"), action_repeat=action_repeat)
    return Trainer(
        CountingAgent(),
        [make_env(task, seed=1)],
        SerialEnvs([make_env(task, seed=i) for i in range(2)]),
        Replay(1000, 1, (4,), 2, generator=torch.Generator().manual_seed(0)),
        RunFiles(directory, RunSpec("counting", task.name, 1, env_steps), {}),
        CheckpointStore(directory, keep_replay=keep_replay),
        OnlineSchedule(env_steps, eval_every, checkpoint_seconds, keep_replay),
        seed=1,
        callbacks=callbacks,
    )


def lines(directory: Path, name: str) -> list[dict[str, str]]:
    header, *rows = (directory / f"{name}.csv").read_text().splitlines()
    return [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]


def steps(directory: Path, name: str) -> list[int]:
    return [int(row["env_step"]) for row in lines(directory, name)]


# --- decisions and updates -------------------------------------------------------------


def test_random_actions_first_then_the_agents(tmp_path: Path) -> None:
    """The first `seed_decisions` decisions are random."""
    trainer = make_trainer(tmp_path, env_steps=100, eval_every=1000)
    trainer.run()
    agent = trainer.agent
    explored = [first for _, first, explore in agent.acts if explore]
    assert len(explored) == 100 - 61
    assert not any(explored)  # the agent acts from the middle of the second episode on
    first, second = trainer.replay.episodes(0)
    assert (np.abs(first.action) < 1).all()
    assert np.unique(first.action).size == 2 * LENGTH
    assert (second.action[11:] == [0, 1]).all()
    assert not (second.action[:11] == [0, 1]).any()


def test_an_agent_is_told_of_every_decision_and_episode(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=100)
    trainer.run()
    events = trainer.agent.events
    assert [event for event, _ in events] == [*["decision"] * LENGTH, "episode_end"] * 2
    assert events[0][1] == Counters(decisions=1, num_updates=0, episode_decisions=1)
    assert events[50][1] == Counters(50, num_updates=0, episode_decisions=50, new_decisions=50)
    assert events[-1][1] == Counters(100, num_updates=40, episode_decisions=50, new_decisions=50)
    assert trainer.agent.weight.item() == trainer.progress.num_updates == 40
    assert set(trainer.agent.episodes_seen) == {1}  # the current episode is not sampled


def test_the_replay_holds_what_happened(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=50)
    trainer.run()
    (episode,) = trainer.replay.episodes(0)
    env = make_env("toy-pointmass", seed=1)
    obs, _ = env.reset()
    for t in range(LENGTH):
        assert (episode.obs[t] == obs).all()
        obs, reward, *_ = env.step(episode.action[t])
        assert episode.reward[t] == np.float32(reward)
    assert (episode.obs[LENGTH] == obs).all()
    assert not episode.terminated


def test_action_repeat_counts(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=150, eval_every=100, action_repeat=2)
    trainer.run()
    assert trainer.env_step == 200  # two episodes of 50 decisions of 2 control steps
    assert [(row["env_step"], row["agent_step"]) for row in lines(tmp_path, "eval")] == [
        ("0", "0"),
        ("100", "50"),
        ("200", "100"),
    ]


# --- records -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_steps", "eval_every", "evaluated"),
    [
        (200, 100, [0, 100, 200]),
        (200, 70, [0, 100, 150, 200]),  # 140 is reached at 150; 200 is the end of the run
        (200, 10, [0, 50, 100, 150, 200]),  # episodes are not interrupted
        (130, 1000, [0, 150]),
        (1, 1, [0, 50]),
    ],
)
def test_evaluations_at_the_start_after_each_multiple_and_at_the_end(
    env_steps: int, eval_every: int, evaluated: list[int], tmp_path: Path
) -> None:
    make_trainer(tmp_path, env_steps=env_steps, eval_every=eval_every).run()
    assert steps(tmp_path, "eval") == evaluated


def test_every_evaluation_has_seeds_of_its_own(tmp_path: Path) -> None:
    """They depend only on the seed of the run and the env step."""
    trainer = make_trainer(tmp_path / "a", eval_every=50)
    other = make_trainer(tmp_path / "b", eval_every=100)
    for t, name in ((trainer, "a"), (other, "b")):
        (tmp_path / name).mkdir()
        t.run()
    assert len(set(trainer.agent.evaluation_seeds)) == 5
    assert other.agent.evaluation_seeds == trainer.agent.evaluation_seeds[::2]
    rows = lines(tmp_path / "a", "eval")
    assert (
        len({row["episode_return"] for row in rows}) == 5
    )  # equal actions, different initial states
    assert lines(tmp_path / "b", "eval") == rows[::2]


def test_lines_of_the_records(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.run()
    assert tuple(lines(tmp_path, "eval")[0]) == EVAL_COLUMNS
    assert steps(tmp_path, "timing") == [50, 100, 150, 200]
    second, *_, last = lines(tmp_path, "train")  # the first episode has no updates and no line
    assert second["env_step"] == "100"
    assert list(second) == [
        *("env_step", "agent_step", "num_updates", "episode", "episode_return"),
        *("episode_success", "episode_success_ever", "loss", "weight"),
    ]
    assert second["num_updates"] == "40"
    assert second["weight"] == "20.5"  # mean of 1, …, 40
    assert last["weight"] == "115.5"  # mean of 91, …, 140
    returns = [e.reward.sum() for e in trainer.replay.episodes(0)]
    assert float(second["episode_return"]) == pytest.approx(returns[1], rel=1e-6)


def test_progress_is_reported_at_every_episode(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    evaluations = []
    callbacks = Callbacks(
        on_progress=lambda step, figures: told.append((step, figures["train_return"])),
        on_evaluation=lambda step, figures, row: evaluations.append((step, row["num_episodes"])),
    )
    trainer = make_trainer(tmp_path, env_steps=100, callbacks=callbacks)
    trainer.run()
    returns = [float(e.reward.sum()) for e in trainer.replay.episodes(0)]
    assert told == [(50, returns[0]), (100, returns[1])]
    assert evaluations == [(0, 2), (100, 2)]


def test_what_is_done_while_the_step_stands_still_is_told(tmp_path: Path) -> None:
    """Each decision of an evaluation and each of several updates, but not a single update."""
    told: list[tuple[str, int, int]] = []
    callbacks = Callbacks(on_doing=lambda *doing: told.append(doing))
    trainer = make_trainer(tmp_path, env_steps=50, eval_every=1000, callbacks=callbacks)
    agent: Any = trainer.agent
    agent.updates_due = lambda event, counters: 3 if event == "episode_end" else 1
    trainer.run()
    evaluated = [("evaluating", i, 50) for i in range(50)]
    assert told == [*evaluated, *[("learning", i, 3) for i in range(3)], *evaluated]


@pytest.mark.parametrize("with_agent", [False, True])
def test_who_acts_before_the_first_update(with_agent: bool, tmp_path: Path) -> None:
    """Uniform noise, or the agent (`seed_with=agent`); updates begin at the same decision."""
    trainer = make_trainer(tmp_path, eval_every=1000)
    agent: Any = trainer.agent
    agent.seed_with_agent = with_agent
    trainer.run()
    exploring = sum(explore for _, _, explore in agent.acts)
    assert exploring == (200 if with_agent else 200 - agent.seed_decisions)
    assert len(agent.episodes_seen) == 200 - agent.seed_decisions + 1


# --- NaN, Inf and stops --------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_line_kept(
    value: float, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, checkpoint_seconds=0)
    trainer.agent.loss = value
    with pytest.raises(DivergedError, match="loss not finite at env step 100"):
        trainer.run()
    assert lines(tmp_path, "train")[-1]["loss"] == str(value)
    assert [path.name for path in trainer.checkpoints.existing()] == ["000000000050"]


def test_an_action_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_every=1000)
    serve(trainer._evaluate(), trainer.agent)
    trainer.agent.action = math.nan
    with pytest.raises(DivergedError, match="non-finite action at env step 61"):
        trainer.run()


def test_parameters_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.save()
    trainer.progress.decisions = 50
    for bad in (math.nan, math.inf):
        trainer.agent.weight = torch.tensor([0.0, bad])
        with pytest.raises(DivergedError, match="non-finite parameters at env step 50"):
            trainer.save()
    assert [path.name for path in trainer.checkpoints.existing()] == ["000000000000"]


@pytest.mark.parametrize(
    ("asked", "decisions"), [(1, 0), (50, 0), (51, 0), (52, 1), (111, 60), (112, 61), (200, 100)]
)
def test_a_stop_is_heard_before_every_decision_and_update(
    asked: int, decisions: int, tmp_path: Path
) -> None:
    """50 calls in an evaluation, one per random decision, then two per decision."""
    questions = 0

    def stop_requested() -> bool:
        nonlocal questions
        questions += 1
        return questions == asked

    trainer = make_trainer(tmp_path, callbacks=Callbacks(stop_requested))
    with pytest.raises(StoppedError):
        trainer.run()
    assert questions == asked
    assert trainer.progress.decisions == decisions


@pytest.mark.parametrize(
    ("asked", "saved"),
    [
        (1, []),  # before anything was done
        (2, []),  # in the evaluation before training
        (52, ["000000000050"]),  # between two episodes
        (54, ["000000000100"]),  # in the evaluation after the second
        (104, ["000000000150"]),
        (105, ["000000000200"]),  # no call at the end of the budget
    ],
)
def test_a_stop_that_may_wait_saves_between_episodes(
    asked: int, saved: list[str], tmp_path: Path
) -> None:
    """One call before each episode, 50 in each evaluation."""
    questions = 0

    def stop_soon(now: float) -> bool:
        nonlocal questions
        questions += 1
        return questions >= asked

    trainer = make_trainer(tmp_path, callbacks=Callbacks(stop_soon=stop_soon))
    with pytest.raises(StoppedError) if asked < 105 else contextlib.nullcontext():
        trainer.run()
    assert [path.name for path in trainer.checkpoints.existing()] == saved
    goes_on = make_trainer(tmp_path)
    assert goes_on.restore() is bool(saved)
    goes_on.run()
    (tmp_path / "undisturbed").mkdir()
    undisturbed = make_trainer(tmp_path / "undisturbed")
    undisturbed.run()
    for name in ("eval.csv", "train.csv"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


# --- checkpoints -----------------------------------------------------------------------------


def test_checkpoints_at_every_episode_or_only_at_the_end(tmp_path: Path) -> None:
    saved: list[int] = []
    for seconds in (0.0, NEVER):
        directory = tmp_path / str(seconds)
        directory.mkdir()
        trainer = make_trainer(directory, checkpoint_seconds=seconds)
        save = trainer.checkpoints.save
        trainer.checkpoints.save = lambda step, *a, save=save, **k: (
            saved.append(step),
            save(step, *a, **k),
        )
        trainer.run()
        saved.append(-1)
    assert saved == [50, 100, 150, 200, -1, 200, -1]


def test_restored_trainers_go_on_alike(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=100, keep_replay=True)
    assert not trainer.restore()  # no checkpoint
    trainer.run()
    goes_on = make_trainer(tmp_path, env_steps=150, keep_replay=True)
    assert goes_on.restore()
    assert goes_on.progress == trainer.progress
    assert goes_on.agent.weight == trainer.agent.weight
    assert goes_on.rng.bit_generator.state == trainer.rng.bit_generator.state
    assert goes_on.envs[0].generator_state() == trainer.envs[0].generator_state()
    assert goes_on.replay.num_episodes == 2
    goes_on.run()
    assert steps(tmp_path, "timing") == [50, 100, 150]
    assert steps(tmp_path, "eval") == [0, 100, 150]


def test_a_new_start_forgets_records_of_which_no_checkpoint_knows(tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_text("env_step\n0\n")
    assert not make_trainer(tmp_path).restore()
    assert not (tmp_path / "eval.csv").exists()


def test_without_episodes_there_is_no_going_on(tmp_path: Path) -> None:
    make_trainer(tmp_path, env_steps=100).run()
    longer = make_trainer(tmp_path, env_steps=200)
    with pytest.raises(UserError, match="finished at 100 env steps without keep_replay=true"):
        longer.restore()
    assert steps(tmp_path, "timing") == [50, 100]
    assert make_trainer(tmp_path, env_steps=100).restore()
