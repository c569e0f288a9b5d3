"""Expand tasks x methods x seeds into run specifications, and group seeds into processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.planning.planned_run import PlannedRun, SeedGroup
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import why_alone
from tdmpc2.runners.specs import make_spec


@dataclass(frozen=True)
class Companion:
    """One short run of another method that a suite adds, to check that the method works.

    Attributes:
        method: name of the method.
        task: name of the task.
        env_steps: budget in env steps.
        options: run options that differ from the suite's (see `RunOptions`).
    """

    method: str
    task: str
    env_steps: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """Settings that belong to a suite; the command line overrides them.

    Attributes:
        variant: variant name of the runs.
        env_steps: budget of each run in env steps.
        domain_steps: budget of the runs of some domains, instead of `env_steps`.
        methods: methods to train on every task; all if empty.
        overrides: settings by method.
        options: options of every run (see `RunOptions`).
        must_learn: methods whose runs must end above their threshold, else the sweep fails.
        companions: runs that are added unless `methods=` is given; they need not learn.
    """

    variant: str | None = None
    env_steps: int | None = None
    domain_steps: Mapping[str, int] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    must_learn: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()

    def budget(self, task: str) -> int | None:
        """Return the budget of a task in env steps; None: the task's own."""
        return self.domain_steps.get(get_task(task).domain, self.env_steps)


# The smallest settings with which TD-MPC2 reliably learns both tasks within minutes on two cores.
# They are not the paper's: a 0.1M model, fewer samples, smaller batches and a short budget. The
# other methods run with tiny models for a few hundred updates, without compilation.
_BRIEF = {"eval_every": 1_500, "checkpoint_minutes": 1.0, "compile": False}
SMOKE = Preset(
    variant="smoke",
    env_steps=20_000,
    methods=("tdmpc2",),
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
    must_learn=("tdmpc2",),
    companions=(
        Companion("sac", "cartpole-swingup", 3_000, _BRIEF),
        Companion("tdmpc", "cartpole-swingup", 3_000, _BRIEF),
        Companion("dreamerv3", "cartpole-swingup", 4_000, {**_BRIEF, "eval_every": 2_000}),
    ),
)
# The first step at which the released curves of each domain have a point (docs/evidence.md).
EVIDENCE = Preset(
    env_steps=100_000,
    domain_steps={"myosuite": 50_000},
    methods=("tdmpc2",),
    options={"eval_every": 50_000},
)
PRESETS: dict[str, Preset] = {"smoke": SMOKE, "evidence": EVIDENCE}
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
    """Build the specification of every run, ordered by method, then task, then seed.

    Args:
        tasks: task names.
        methods: keys of `METHODS`.
        seeds: seeds of each task.
        preset: settings that belong to the suite.
        env_steps: budget in env steps; the preset's or each task's own if None.
        variant: name of the settings; the preset's or a derived one if None.
        overrides: method settings, which override those of the preset.
        obs: observation type, `state` or `rgb`.
        assets: wanted sources of the object models of tasks that need some.
        task_switches: fields of `TaskSwitches`.

    Raises:
        UserError: an unknown name or a value out of range.
    """
    given = dict(overrides or {})
    # The name of the preset denotes exactly its settings, so further settings need another name.
    name = variant or (preset.variant if not given else None)
    return [
        make_spec(
            method,
            task,
            seed,
            env_steps=env_steps or preset.budget(task),
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
    """Build the specification of a companion run, with seed 1.

    Args:
        preset: settings that belong to the suite.
        companion: the run to build.
        variant: variant name of the run; a derived one if None.
    """
    return make_spec(
        companion.method,
        companion.task,
        1,
        env_steps=companion.env_steps,
        variant=variant,
        overrides=preset.overrides.get(companion.method),
    )


def group_seeds(runs: Sequence[PlannedRun], size: int) -> list[SeedGroup]:
    """Group runs that differ only in their seed into processes of at most `size` runs.

    Runs that cannot be trained as one batch get one process each: those of methods without seed
    batches, of agents with a task embedding, of tasks with episodes of different lengths or with
    NumPy's global generator, and multi-task runs (see `why_alone`).
    """
    by_settings: dict[RunSpec, list[PlannedRun]] = {}
    for run in runs:
        by_settings.setdefault(dataclasses.replace(run.spec, seed=0), []).append(run)
    groups: list[SeedGroup] = []
    for spec, members in by_settings.items():
        step = size if why_alone(spec) is None else 1
        groups += [members[i : i + step] for i in range(0, len(members), step)]
    return groups
