"""Options of `sweeps/launch.py` that are not settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.planning.grid import NO_PRESET, PRESETS, Preset
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import SUITES
from tdmpc2.runners.registry import METHODS, MULTITASK_METHODS, OFFLINE_UPDATES

SCALING = "scaling"
"""The suite that is no set of tasks: model sizes, on the sets of tasks that `data=` names."""
SIZES = ("1", "5", "19", "48", "317")
"""Model sizes of the paper's multi-task agents, in millions of parameters."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SweepOptions:
    """What to launch."""

    suite: str | None = _option(None, " | ".join([*sorted(SUITES), f"{SCALING} (needs data=)"]))
    tasks: str | None = _option(
        None, "instead of a suite: comma-separated task names; of suite=scaling: only these tasks"
    )
    data: str | None = _option(
        None,
        "folder of a dataset: one agent learns all tasks from it, instead of one in each; of "
        "several sets of tasks: mt30=DIR,mt80=DIR",
    )
    sizes: str | None = _option(
        None, f"suite=scaling: model sizes, comma-separated; default: {','.join(SIZES)}"
    )
    methods: str | None = _option(
        None,
        f"comma-separated; default: {','.join(METHODS)} for a suite (the smoke suite brings its "
        f"own), {','.join(MULTITASK_METHODS)} for suite=scaling, tdmpc2 for tasks or with data=",
    )
    seeds: str = _option("3", "a count (3) or a list (1,2,5)")
    env_steps: int | None = _option(None, "budget of each run; default: the suite's or the task's")
    num_updates: int | None = _option(
        None, f"budget of each run with data=; default: {OFFLINE_UPDATES:,}"
    )
    variants: str | None = _option(
        None,
        "several settings: default,num_q=2,my-name:regression=mse+num_q=2 (comma: next; +: and)",
    )
    variant: str | None = _option(None, "name of these settings")
    obs: str = _option("state", "state | rgb (DMControl only)")
    assets: str = _option(
        "official",
        "of pick-ycb and turn-faucet: official | rebuilt | standin | unknown, or several, by "
        "preference (official,unknown)",
    )
    cluster: Literal["auto", "slurm", "local", "inline"] = _option(
        "auto", "auto is SLURM where it answers, else local; inline: in this process"
    )
    max_parallel: int | None = _option(
        None,
        "processes (local) or jobs (SLURM) at a time; default: cores / threads (with data= on a "
        "GPU: 1), or no limit",
    )
    seeds_per_process: int = _option(1, "seeds of a task that one process trains as one batch")
    partition: str | None = _option(None, "SLURM: default: the cluster's")
    gpus: int | None = _option(None, "SLURM: of a job; default: 1 where the partition has some")
    runs_per_gpu: int = _option(1, "SLURM: processes that share a GPU (without any: a job)")
    cpus: int | None = _option(None, "SLURM: cores of a process; default: threads, or 4 on a GPU")
    mem_gb: int | None = _option(None, "SLURM: of a job; default: as estimated")
    timeout_min: int | None = _option(
        None, "SLURM: after which a job is requeued; default: 1440, or the partition's limit"
    )
    sbatch: str | None = _option(
        None, "SLURM: more options, comma-separated: account=lab,qos=low,hold"
    )
    after: Literal["figures"] | None = _option(
        None, "when all runs have ended, also if some failed: draw the figures"
    )
    only: Literal["all", "failed"] = _option("all", "failed: leave out what has not failed")
    yes: bool = _option(
        False, "local: start even what will take days, or without the runs that cannot start"
    )
    dry_run: bool = _option(False, "show the plan and stop")

    def __post_init__(self) -> None:
        """Rejects values out of range."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value}: must be at least {least}")
        if self.multitask:
            self._refuse_options_of_single_tasks()
        else:
            self._refuse_options_of_datasets()

    def _refuse_options_of_single_tasks(self) -> None:
        """Words that mean nothing where one agent learns several tasks from a dataset."""
        instead = {
            "env_steps": "such runs have num_updates=",
            "obs": "datasets hold states",
            "assets": "datasets hold what was seen; leave it out",
            "seeds_per_process": "seeds of such runs are not trained as one batch",
        }
        for name, why in instead.items():
            value = getattr(self, name)
            if value != getattr(SweepOptions, name):
                raise UserError(f"{name}={value}: not with data=: {why}")
        if self.sizes is not None and self.suite != SCALING:
            raise UserError(f"sizes={self.sizes}: of suite={SCALING} only; elsewhere: model_size=")

    def _refuse_options_of_datasets(self) -> None:
        """Words that mean nothing without a dataset."""
        if self.suite == SCALING:
            raise UserError(
                f"suite={SCALING}: data= is missing, e.g. data=mt30=DIR,mt80=DIR "
                "(python -m tdmpc2.data --help says how to get one)"
            )
        for name in ("sizes", "num_updates"):
            value = getattr(self, name)
            if value is not None:
                raise UserError(
                    f"{name}={value}: for learning from a dataset, and data= is missing"
                )

    @property
    def multitask(self) -> bool:
        """Whether one agent learns several tasks, from a dataset."""
        return self.data is not None

    @property
    def label(self) -> str:
        """Name of the sweep for people and files."""
        return self.suite or "tasks"

    @property
    def preset(self) -> Preset:
        """Settings that come with the suite."""
        return NO_PRESET if self.multitask else PRESETS.get(self.suite or "", NO_PRESET)

    @property
    def method_names(self) -> list[str]:
        """Of the grid."""
        if self.methods is not None:
            return self.methods.split(",")
        if self.multitask:
            return list(MULTITASK_METHODS) if self.suite == SCALING else ["tdmpc2"]
        whole = self.suite is not None and not self.preset.companions
        return list(METHODS) if whole else ["tdmpc2"]


_LEAST = {
    "max_parallel": 1,
    "seeds_per_process": 1,
    "gpus": 0,
    "runs_per_gpu": 1,
    "cpus": 1,
    "mem_gb": 1,
    "timeout_min": 1,
}
