"""It learns, in a check that a learner without a learning rate fails; and it repeats itself."""

from __future__ import annotations

import csv
from pathlib import Path

from tdmpc2.common.training.evaluation import UniformPolicy, ZeroPolicy, evaluate
from tdmpc2.envs.factory import make_env
from tests.runs import outcome, run_directory, tiny

# 400 decisions, half of them random, and as many updates of a model of some 30,000 parameters.
LEARNER = {
    "env_steps": 400,
    "enc_dim": 32,
    "mlp_dim": 64,
    "latent_dim": 32,
    "num_bins": 21,
    "horizon": 2,
    "iterations": 3,
    "num_samples": 48,
    "num_elites": 8,
    "num_pi_samples": 4,
    "batch_size": 64,
    "seed_decisions": 200,
    "pretrain_updates": 200,
    "lr": 1e-3,
    "eval_every": 400,
    "eval_episodes": 10,
}
# Of 50. The start is 0.6 to 0.9 away at 0.2 a decision, so that perfection earns some 47.
SOLVED = 35.0


def reference_scores(episodes: int = 50) -> tuple[float, float]:
    """The larger mean of doing nothing and of doing anything, and the larger sd."""
    envs = [make_env("toy-pointmass", seed=i) for i in range(episodes)]
    policies = (UniformPolicy(2, seed=0), ZeroPolicy(2))
    results = [evaluate(policy, envs, range(episodes)) for policy in policies]
    return max(r.mean_return for r in results), max(r.sd_return for r in results)


def evaluations(runs: Path) -> list[dict[str, float]]:
    with open(run_directory(runs) / "eval.csv", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def train(runs: Path, **changes: float) -> tuple[float, float]:
    """Mean return before the first update and after the last."""
    done = tiny(runs, **{**LEARNER, **changes})
    assert done.code == 0, done
    first, last = evaluations(runs)
    return first["episode_return"], last["episode_return"]


def test_the_threshold_is_far_above_the_reference_scores() -> None:
    mean, sd = reference_scores()
    assert mean + 5 * sd < SOLVED
    assert mean < 10


def test_solves_the_point_mass(tmp_path: Path) -> None:
    before, after = train(tmp_path)
    assert before < SOLVED
    assert after > SOLVED


def test_without_a_learning_rate_the_same_run_fails_the_same_check(tmp_path: Path) -> None:
    _, after = train(tmp_path, lr=0.0)
    assert after < SOLVED


def test_the_same_seed_repeats_and_another_differs(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        assert tiny(tmp_path / name, seed=seed).code == 0
    first, second, other = (outcome(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert all(a != b for a, b in zip(first, other, strict=True))
