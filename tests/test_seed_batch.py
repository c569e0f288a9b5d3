"""Test seed batches: numbers equal those of separate seeds, and each seed has its own run."""

from __future__ import annotations

import copy
import csv
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.seed_batch import SeedBatch, stacked
from tests.helpers import env_spec, filled_replay, tiny_config
from tests.kill_driver import Blow, Done
from tests.runs import DIVERGING, Outcome, outcome_of, refusal, tiny

SEEDS = (3, 1, 4)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "mse, all Qs": {"regression": "mse", "num_q": 2},
    "noisy prior": {"policy_prior": "gaussian_noise", "latent_norm": "none"},
    "prioritized": {"prioritized_replay": True, "dropout_in": "everywhere", "dropout": 0.2},
    "entropy target": {"entropy_tuning": "target", "entropy_form": "exact"},
    "one Q, no norms": {"num_q": 1, "hidden_norm": "none", "dropout": 0.0},
}
PIXELS = {"num_channels": 2, "latent_dim": 32}


def make_agents(env: EnvSpec, updates: int = 0, **overrides: Any) -> list[TDMPC2]:
    """Return agents of several seeds after a few updates, so that no head is zero."""
    agents = [TDMPC2(tiny_config(**overrides), env, seed=seed) for seed in SEEDS]
    for agent, replay in zip(agents, replays(agents), strict=True):
        for _ in range(updates):
            agent.update(replay)
    return agents


def replays(agents: Sequence[TDMPC2]) -> list[Replay]:
    """Return a replay buffer per seed, equal at each call."""
    return [filled_replay(a.config, a.env, seed=k) for k, a in enumerate(agents)]


def twins(agents: Sequence[TDMPC2]) -> list[TDMPC2]:
    """Return agents in the same state that share no memory with the given ones."""
    others = [TDMPC2(agent.config, agent.env, seed=0) for agent in agents]
    for agent, other in zip(agents, others, strict=True):
        other.load_state_dict(copy.deepcopy(agent.state_dict()))
    return others


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Return all tensors of nested containers by path."""
    if isinstance(value, Tensor):
        return {name: value}
    found: dict[str, Tensor] = {}
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found |= tensors(item, f"{name}.{key}")
    return found


def assert_close(
    actual: Any, expected: Any, tolerance: float = 1e-5, least_scale: float = 1e-3
) -> None:
    """Compare all tensors, relative to their largest entry or 1e-3, whichever is larger."""
    ours, theirs = tensors(actual), tensors(expected)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, value in theirs.items():
        scale = max(float(value.double().abs().max()), least_scale)
        error = float((ours[name].double() - value.double()).abs().max())
        assert error <= tolerance * scale, (name, error, scale)


def learned(agent: TDMPC2) -> dict[str, Any]:
    """Return the fields of an agent's state that learning changes."""
    state = agent.state_dict()
    return {k: state[k] for k in ("model", "optimizer", "policy_optimizer", "value_scale")}


# --- one batch against each alone ----------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batched_update_equals_the_single_one(variant: str) -> None:
    agents = make_agents(env_spec(), updates=5, **VARIANTS[variant])
    alone = twins(agents)
    batch = SeedBatch(agents, [True] * len(SEEDS))
    before = copy.deepcopy([learned(agent) for agent in agents])
    expected = [a.update(r) for a, r in zip(alone, replays(alone), strict=True)]
    metrics = batch.update(replays(agents))
    for k, agent in enumerate(agents):
        assert_close(metrics[k], expected[k])
        assert_close(learned(agent), learned(alone[k]))
        moved = tensors(learned(agent))
        assert any(not torch.equal(x, moved[name]) for name, x in tensors(before[k]).items())


@pytest.mark.parametrize("variant", [*VARIANTS, "no planning"])
@pytest.mark.parametrize("explore", [True, False])
def test_batched_actions_equal_the_single_ones(variant: str, explore: bool) -> None:
    overrides = VARIANTS.get(variant, {"planning": False})
    agents = make_agents(env_spec(), **overrides)
    alone = twins(agents)
    batch = SeedBatch(agents, [True] * len(SEEDS))
    rng = np.random.default_rng(0)
    for step in range(3):  # the second and third are warm-started
        obs = rng.normal(size=(len(SEEDS), 2, 5)).astype(np.float32)
        first = np.array([step == 0, step != 1])
        actions = batch.act([Act(o, first, explore) for o in obs])
        for k, other in enumerate(alone):
            np.testing.assert_allclose(
                actions[k], other.act(obs[k], first=first, explore=explore), atol=1e-5
            )


def test_pixels() -> None:
    agents = make_agents(env_spec(obs_shape=(9, 64, 64)), updates=5, **PIXELS)
    alone = twins(agents)
    batch = SeedBatch(agents, [True] * len(SEEDS))
    expected = [a.update(r) for a, r in zip(alone, replays(alone), strict=True)]
    metrics = batch.update(replays(agents))
    for k, agent in enumerate(agents):
        assert_close(metrics[k], expected[k])
        ours, theirs = learned(agent), learned(alone[k])
        # Adam divides nearly zero gradients by themselves, so they need absolute tolerances.
        assert_close(ours.pop("model"), theirs.pop("model"), least_scale=1.0)
        assert_close(ours, theirs)
    obs = np.zeros((1, 9, 64, 64), dtype=np.uint8)
    for action, other in zip(
        batch.act([Act(obs, np.array([True]), True)] * len(SEEDS)), alone, strict=True
    ):
        one = other.act(obs, first=np.array([True]), explore=True)
        np.testing.assert_allclose(action, one, atol=1e-5)


def test_gradients_are_clipped_by_each_agents_own_norm() -> None:
    agents = make_agents(env_spec(), reward_coef=1e4)
    batch = SeedBatch(agents, [True] * len(SEEDS))
    metrics = batch.update(replays(agents))
    assert min(float(m["grad_norm"]) for m in metrics) > 20
    for k in range(len(SEEDS)):
        norms = [p.grad[k].norm() for p in batch.model_params if p.grad is not None]
        assert float(torch.stack(norms).norm()) == pytest.approx(20, rel=1e-4)


def test_an_agent_without_a_run_touches_nobody() -> None:
    """Parameters of a finished agent do not matter; it uses no replay buffer or generator."""
    full, holed = make_agents(env_spec()), make_agents(env_spec())
    buffers = replays(full)
    first, _, last = replays(full)
    fewer = [first, None, last]
    with torch.no_grad():
        for parameter in holed[1].model.parameters():
            parameter.fill_(torch.nan)
    whole = SeedBatch(full, [True] * len(SEEDS))
    broken = SeedBatch(holed, [True, False, True])
    obs, start = np.ones((1, 5), dtype=np.float32), np.array([True])
    for _ in range(3):
        one, two = whole.update(buffers), broken.update(fewer)
        acts: list[Act | None] = [Act(obs, start, True)] * len(SEEDS)
        left = whole.act(acts)
        right = broken.act([acts[0], None, acts[2]])
        for k in (0, 2):
            assert tensors(one[k]).keys() == tensors(two[k]).keys()
            assert all(torch.equal(one[k][name], two[k][name]) for name in one[k])
            np.testing.assert_array_equal(left[k], right[k])
    for k in (0, 2):
        assert_close(learned(holed[k]), learned(full[k]), 0.0)


def test_noise_of_planning_shrinks_after_the_first_seed_has_diverged() -> None:
    agents = make_agents(env_spec(), policy_prior="gaussian_noise")
    alone = twins(agents)
    batch = SeedBatch(agents, [True] * len(SEEDS))
    for agent in (*agents[1:], *alone[1:]):
        agent.decisions = agent.config.min_std_decisions
    obs, start = np.ones((1, 5), dtype=np.float32), np.array([True])
    request = Act(obs, start, True)
    actions = batch.act([None, request, request])
    for k in (1, 2):
        expected = alone[k].act(obs, first=start, explore=True)
        np.testing.assert_allclose(actions[k], expected, atol=1e-5)


def test_stacks_keep_the_shape_of_what_they_hold() -> None:
    batch = stacked([(torch.zeros(2), None, {"a": torch.ones(3)}, 7)] * 4)
    assert batch[0].shape == (4, 2)
    assert batch[1] is None
    assert batch[2]["a"].shape == (4, 3)
    assert batch[3] == 7


# --- whole runs ----------------------------------------------------------------------


def batched(runs: Path, blow: Blow | None = None, **changes: Any) -> Done:
    """Start a tiny run of three seeds."""
    return tiny(runs, blow, **{"seeds": "3,1,4", **changes})


def directories(runs: Path) -> dict[int, Path]:
    """Return the run directory of each seed."""
    found = {read_json(path)["seed"]: path.parent for path in runs.rglob("spec.json")}
    return dict(sorted(found.items()))


def outcomes(runs: Path) -> dict[int, Outcome]:
    return {seed: outcome_of(path) for seed, path in directories(runs).items()}


def rows(directory: Path, name: str) -> list[dict[str, float]]:
    with open(directory / f"{name}.csv", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("batch")
    done = batched(runs)
    assert done.code == 0, done
    return runs


def test_each_seed_has_a_run_of_its_own(tmp_path: Path) -> None:
    """Each run equals that of the seed alone until rounding errors grow, and is marked as batched.

    Without planning: the last bit of a value can change which samples are elites, so that whole
    episodes differ from the first decision on.
    """
    assert batched(tmp_path / "batch", planning="false").code == 0
    found = directories(tmp_path / "batch")
    assert list(found) == sorted(SEEDS)
    for place, seed in enumerate(SEEDS, 1):
        directory = found[seed]
        status = read_status(directory)
        assert status is not None
        assert status["state"] == "COMPLETED"
        assert read_json(directory / "numeric.json")["seed_batch"] == f"{place} of 3"
        alone = tmp_path / str(seed)
        assert tiny(alone, seed=seed, planning="false").code == 0
        (other,) = directories(alone).values()
        for name in ("eval", "train"):
            ours, theirs = rows(directory, name), rows(other, name)
            assert len(ours) == len(theirs)
            assert ours[0] == pytest.approx(theirs[0], rel=1e-3, abs=1e-5)
        size = [p.stat().st_size for d in (directory, other) for p in d.rglob("state.pt")]
        assert size[0] == pytest.approx(size[1], rel=0.01)


KILLS = {
    "in the first evaluation": Blow("tdmpc2.seed_batch:SeedBatch.act", 20),
    "in the burst": Blow("tdmpc2.seed_batch:SeedBatch.update", 5),
    "mid-episode": Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 520),
    "between two seeds' first checkpoints": Blow("torch:save", 2),
    "between two seeds' later checkpoints": Blow("torch:save", 8),
    "between two seeds' ends": Blow(
        "tdmpc2.common.run.checkpoint:CheckpointStore.forget_history", 2, "after"
    ),
    "between two seeds' states": Blow("tdmpc2.common.training.session:RunResult", 2),
}


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_seed_batch_repeats_byte_for_byte(
    name: str, undisturbed: Path, tmp_path: Path
) -> None:
    done = batched(tmp_path, KILLS[name])
    assert done.code == -signal.SIGKILL
    done = batched(tmp_path)
    assert done.code == 0, done
    assert outcomes(tmp_path) == outcomes(undisturbed)


def test_a_stopped_seed_batch_is_interrupted_in_all_its_seeds(
    undisturbed: Path, tmp_path: Path
) -> None:
    stop = Blow("tdmpc2.seed_batch:SeedBatch.update", 5, number=signal.SIGTERM)
    assert batched(tmp_path, stop).code == 130
    for directory in directories(tmp_path).values():
        status = read_status(directory)
        assert status is not None
        assert status["state"] == "INTERRUPTED"
    assert batched(tmp_path).code == 0
    assert outcomes(tmp_path) == outcomes(undisturbed)


@pytest.mark.slow
def test_seeds_that_diverge_are_outcomes(tmp_path: Path) -> None:
    done = batched(tmp_path, **DIVERGING)
    assert done.code == 1, done
    assert done.out.count("DIVERGED at env step") == 3


def test_a_finished_seed_batch_is_left_alone(undisturbed: Path) -> None:
    before = outcomes(undisturbed)
    done = batched(undisturbed)
    assert done.code == 0
    assert done.out.count("already finished") == 3
    assert outcomes(undisturbed) == before


def test_a_seed_goes_on_alone_if_asked_to(tmp_path: Path) -> None:
    """A checkpoint does not depend on other seeds; only rounding differs from there on."""
    assert (
        batched(tmp_path, Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 520)).code
        < 0
    )
    line = refusal(tmp_path, seeds="1,3,4")
    assert "the numeric path has changed (seed_batch 2 of 3 → 1 of 3)" in line
    found = directories(tmp_path)
    for seed in (3, 4):
        shutil.rmtree(found[seed])
    assert "the numeric path has changed (seed_batch" in refusal(tmp_path, seed=1)
    assert tiny(tmp_path, seed=1, allow_numeric_change=True).code == 0


def test_a_seed_that_has_finished_never_starts_again_beside_a_new_one(tmp_path: Path) -> None:
    """It has one checkpoint, as has a seed that has just begun."""
    assert batched(tmp_path, seeds="3,1", keep_replay="true").code == 0
    done, gone = (directories(tmp_path)[seed] for seed in (3, 1))
    shutil.rmtree(gone)
    before = outcome_of(done)
    line = refusal(tmp_path, seeds="3,1", keep_replay="true", env_steps=400)
    assert "the seeds have no checkpoint in common (seed 3: 200, seed 1: 0)" in line
    assert outcome_of(done) == before


def test_a_seed_that_began_alone_never_starts_again_beside_a_new_one(tmp_path: Path) -> None:
    """Its first checkpoint may hold hours of work."""
    in_the_second_episode = Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 60)
    assert tiny(tmp_path, in_the_second_episode, seed=3).code < 0
    (alone,) = directories(tmp_path).values()
    before = (alone / "eval.csv").read_bytes()
    for _ in range(2):
        assert "seed_batch" in refusal(tmp_path, seeds="3,1")
        line = refusal(tmp_path, seeds="3,1", allow_numeric_change="true")
        assert "the seeds have no checkpoint in common (seed 3: 50, seed 1: 0)" in line
    assert (alone / "eval.csv").read_bytes() == before


def test_what_cannot_be_batched_is_refused(tmp_path: Path) -> None:
    assert "exclude each other" in refusal(tmp_path, seeds="1,2", seed=1)
    assert "a count (3) or a list" in refusal(tmp_path, seeds="1,x")
