"""Which runs a sweep consists of: tasks x methods x seeds, as data; and which share a process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.planning.planned_run import PlannedRun, SeedGroup
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.runners.registry import make_spec, why_alone


@dataclass(frozen=True)
class Companion:
    """One run of another method that goes along with a suite, to see that the method runs.

    Attributes:
        method: its name.
        task: its task.
        env_steps: budget.
        options: how it is carried out (see `RunOptions`).
    """

    method: str
    task: str
    env_steps: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """Settings that come with a suite; what is said on the command line wins.

    Attributes:
        variant: name of the runs' settings.
        env_steps: budget.
        overrides: settings of each method that has some.
        options: how runs are carried out (see `RunOptions`).
        must_learn: whether the sweep fails unless every TD-MPC2 run ends above its threshold.
        companions: runs that go along where no methods are named; nothing is asked of them.
    """

    variant: str | None = None
    env_steps: int | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    must_learn: bool = False
    companions: tuple[Companion, ...] = ()


# The smallest setting that learns both tasks beyond doubt within minutes on two cores. It
# is not the paper's: a 0.1M model, fewer samples, smaller batches and a short budget. The other
# methods come along in tiny forms, for a few hundred updates without compilation.
_BRIEF = {"eval_every": 1_500, "checkpoint_minutes": 1.0, "compile": False}
SMOKE = Preset(
    variant="smoke",
    env_steps=20_000,
    overrides={
        "tdmpc2": {
            "model_size": "smoke",
            "num_samples": 64,
            "num_elites": 8,
            "num_pi_samples": 4,
            "iterations": 4,
            "batch_size": 64,
            "lr": 1e-3,
            "seed_decisions": 1_000,
        },
        "sac": {"hidden_dim": 64, "batch_size": 64, "seed_decisions": 1_000},
        "tdmpc": {
            "mlp_dim": 64,
            "enc_dim": 64,
            "batch_size": 64,
            "iterations": 2,
            "num_samples": 64,
            "num_pi_samples": 4,
            "num_elites": 8,
            "seed_decisions": 1_000,
            "pretrain_updates": 100,
        },
        "dreamerv3": {
            "model_size": "small",
            "batch_size": 4,
            "batch_length": 16,
            "train_ratio": 8,
            "num_envs": 2,
            "seed_decisions": 1_000,
        },
    },
    options={"eval_every": 10_000, "checkpoint_minutes": 1.0},
    must_learn=True,
    companions=(
        Companion("sac", "cartpole-swingup", 3_000, _BRIEF),
        Companion("tdmpc", "cartpole-swingup", 3_000, _BRIEF),
        Companion("dreamerv3", "cartpole-swingup", 4_000, {**_BRIEF, "eval_every": 2_000}),
    ),
)
PRESETS: dict[str, Preset] = {"smoke": SMOKE}
NO_PRESET = Preset()


def grid(
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    preset: Preset = NO_PRESET,
    env_steps: int | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    obs: str = "state",
    assets: str = "official",
    task_switches: Mapping[str, bool | str] | None = None,
) -> list[RunSpec]:
    """Every run of a sweep: all seeds of a task before the next task.

    Args:
        tasks: names.
        methods: keys of `METHODS`.
        seeds: of the runs.
        preset: settings that come with the suite.
        env_steps: budget; the preset's or each task's own if None.
        variant: name of the settings; the preset's or a derived one if None.
        overrides: settings of the method, beside those of the preset.
        obs: what the agents see.
        assets: source of the models of the tasks that need some.
        task_switches: switches of `TaskSwitches`.

    Raises:
        UserError: anything unknown or out of range.
    """
    given = dict(overrides or {})
    # A preset's name stands for exactly its settings.
    name = variant or (preset.variant if not given else None)
    return [
        make_spec(
            method,
            task,
            seed,
            env_steps=env_steps or preset.env_steps,
            variant=name,
            overrides={**preset.overrides.get(method, {}), **given},
            obs=obs,
            assets=assets,
            task_switches=task_switches,
            require_assets=False,
        )
        for method in methods
        for task in tasks
        for seed in seeds
    ]


def companion_spec(preset: Preset, companion: Companion, variant: str | None) -> RunSpec:
    """The run of a suite's companion, with one seed."""
    return make_spec(
        companion.method,
        companion.task,
        1,
        env_steps=companion.env_steps,
        variant=variant,
        overrides=preset.overrides.get(companion.method),
    )


def group_seeds(runs: Sequence[PlannedRun], size: int) -> list[SeedGroup]:
    """Runs that differ in nothing but their seed, at most `size` to a process.

    Methods that cannot train several seeds as one batch, tasks whose episodes differ in length,
    and agents of several tasks get a process for each run.
    """
    alike: dict[RunSpec, list[PlannedRun]] = {}
    for run in runs:
        alike.setdefault(dataclasses.replace(run.spec, seed=0), []).append(run)
    groups: list[SeedGroup] = []
    for spec, group in alike.items():
        step = size if why_alone(spec) is None else 1
        groups += [group[i : i + step] for i in range(0, len(group), step)]
    return groups
