"""Every ablation changes exactly what it names, resumes, and has run directories of its own.

`CHANGES` lists for each ablation the quantities that differ from the default (see `quantities`).
All other quantities must be equal.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.specs import ABLATIONS, Ablation
from tdmpc2.agent import TDMPC2
from tdmpc2.common.run.spec import RunOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, part
from tdmpc2.envs.tasks import get_suite, get_task
from tdmpc2.runners.online import run
from tdmpc2.runners.specs import make_spec
from tests.ablations.quantities import config_of, quantities
from tests.helpers import THREE_TASKS, filled_replay
from tests.runs import TINY

ACTING = {"plan", "act while training"}
LEARNING = {"model loss", "update", *ACTING}
NETWORKS = {"shapes", "initial", *LEARNING}
CHANGES: Mapping[str, set[str]] = {
    "no-planning": ACTING,
    "gaussian-noise-prior": {*NETWORKS, "policy loss", "least std"},
    # The policy loss starts from latents, so it changes only if the policy or Q networks change.
    "no-simnorm": NETWORKS,
    "latent-layernorm": LEARNING,
    "simnorm-only": {*NETWORKS, "policy loss"},
    "no-norms": {*NETWORKS, "policy loss"},
    "regression symlog_mse": {*NETWORKS, "policy loss"},
    "regression mse": {*NETWORKS, "policy loss"},
    # The policy loss uses two Q-functions; with num_q=1 or 2, these are all that the agent has.
    "num-q 1": {*NETWORKS, "policy loss"},
    "num-q 2": {*NETWORKS, "policy loss"},
    "num-q 10": NETWORKS,
    "no-task-embedding-norm": {"embedding"},
    "momentum": ACTING,
    "prioritized-replay": {"priorities", "update"},
    "no-dropout": {"model loss", "update"},
    "entropy-target": {"shapes", "initial", "policy loss", "update"},
    "batch-512": {"batch", "model loss", "update"},
    "horizon 1": {*LEARNING, "batch", "policy loss"},
    "horizon 5": {*LEARNING, "batch", "policy loss"},
    "no-policy-samples": ACTING,
    "entropy-2024": {"policy loss", "update"},
    "entropy-exact": {"policy loss", "update"},
    "q-init-2024": {"initial"},
    "dropout-everywhere": {*LEARNING, "policy loss"},
    "stop-at-success": {"task"},
    "unseeded-resets": {"task"},
}
SINGLE = [one for one in ABLATIONS if not one.multitask]
each = pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda one: one.variant)


def spec_of(ablation: Ablation | None, task: str = "walker-walk", **changes: Any) -> RunSpec:
    """Build the spec of a default or ablation run, with further settings that both share."""
    settings = {} if ablation is None else ablation.settings
    overrides, task_switches = part(settings)
    return make_spec(
        "tdmpc2",
        task,
        seed=1,
        env_steps=changes.pop("env_steps", None),
        variant=None if ablation is None else ablation.variant,
        overrides={**changes, **overrides},
        task_switches=task_switches,
    )


def test_changes_names_only_ablations() -> None:
    assert CHANGES.keys() <= {one.name for one in ABLATIONS}


def own_task(ablation: Ablation) -> str | None:
    """A task that knows what is changed, where not every task does."""
    switched = DOMAINS.keys() & ablation.settings.keys()
    return get_suite(DOMAINS[switched.pop()])[0].name if switched else None


@each
def test_changes_exactly_what_it_names(ablation: Ablation) -> None:
    task = own_task(ablation) or "walker-walk"
    default, variant = spec_of(None, task), spec_of(ablation, task)
    assert dict(variant.overrides) | dict(variant.task_switches) == ablation.settings
    before, after = quantities(default), quantities(variant)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == CHANGES.get(ablation.name, changed)
    assert changed


@pytest.mark.parametrize("ablation", SINGLE, ids=lambda one: one.variant)
def test_a_run_is_resumed_as_the_variant(ablation: Ablation, tmp_path: Path) -> None:
    """The resumed run has the settings of the ablation, not of the default."""
    task = own_task(ablation) or "toy-pointmass"
    decisions = get_task(task).episode_length
    episode = decisions * get_task(task).action_repeat
    tiny = {"num_q": 5, **TINY, "seed_decisions": 2 * decisions - 10, "pretrain_updates": 4}
    names = TDMPC2Config.__dataclass_fields__.keys() & tiny.keys()
    shared = {name: tiny[name] for name in names - ablation.settings.keys()}
    options = RunOptions(
        runs=tmp_path,
        eval_every=3 * episode,
        eval_episodes=1,
        eval_workers=0,
        threads=1,
        device="cpu",
        compile=False,
        keep_replay=True,
    )
    first = run(spec_of(ablation, task, env_steps=2 * episode, **shared), options)
    second = run(spec_of(ablation, task, env_steps=3 * episode, **shared), options)
    assert first.directory == second.directory
    assert second.state == "COMPLETED"
    assert second.directory.parents[1].name == ablation.variant
    known = read_json(second.directory / "spec.json")
    assert known is not None
    config = vars(TDMPC2Config.make(**known["overrides"]))
    assert ablation.settings.items() <= {**config, **known["protocol"]}.items()
    newest = max((second.directory / "checkpoints").iterdir())
    state = torch.load(newest / "state.pt", weights_only=True)["agent"]
    assert state["decisions"] > 2 * decisions


def test_an_agent_of_several_tasks_is_resumed_as_the_variant() -> None:
    for one in ABLATIONS:
        if one.multitask:
            config = config_of(**one.settings)
            agent, again = (TDMPC2(config, THREE_TASKS, seed=seed) for seed in (1, 2))
            replay = filled_replay(config, THREE_TASKS)
            for _ in range(3):
                agent.update(replay)
            again.load_state_dict(copy.deepcopy(agent.state_dict()))
            batch = replay.sample(config.batch_size, agent.replay_length)
            for each in (agent, again):
                each.update_on(batch, each.train_noise.update(config.batch_size))
            for a, b in zip(agent.model.parameters(), again.model.parameters(), strict=True):
                assert torch.equal(a, b)


def test_run_directories_tell_all_apart(tmp_path: Path) -> None:
    specs = [spec_of(None), *(spec_of(one) for one in ABLATIONS if own_task(one) is None)]
    directories = {spec.run_dir(tmp_path) for spec in specs}
    assert len(directories) == len(specs)
    # The hashes differ too: two names for the same settings would share one.
    assert len({directory.name for directory in directories}) == len(specs)
