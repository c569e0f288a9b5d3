"""Options of `sweeps/launch.py` that are not options or settings of a single run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sweeps.planning.grid import NO_PRESET, PRESETS, Preset
from tdmpc2.common.system.config_checks import STEPS, THREADS, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import SUITES
from tdmpc2.runners.registry import METHODS, multitask_methods
from tdmpc2.runners.specs import OFFLINE_UPDATES

SCALING = "scaling"
"""Suite of the scaling study: several model sizes on the task sets that `data=` names."""
SIZES = ("1", "5", "19", "48", "317")
"""Model sizes of the paper's multi-task agents, in millions of parameters."""
SLURM_ONLY = ("partition", "gpus", "runs_per_gpu", "cpus", "mem_gb", "timeout_min", "sbatch")
"""Options that only SLURM jobs have."""


@dataclass(frozen=True)
class SweepOptions(Settings):
    """Options of `sweeps/launch.py`; see their meanings.

    Raises:
        UserError: a value out of range, or options that exclude each other.
    """

    suite: str | None = setting(
        None, lambda: "task suite: " + " | ".join([*sorted(SUITES), f"{SCALING} (needs data=)"])
    )
    tasks: str | None = setting(
        None,
        "comma-separated task names; with suite=: only these tasks of the suite (suite=scaling: of "
        "each task set)",
    )
    data: str | None = setting(
        None,
        "multi-task training: folder of a dataset from which one agent learns all tasks; for "
        "several task sets: mt30=DIR,mt80=DIR",
    )
    sizes: str | None = setting(
        None,
        "suite=scaling: comma-separated model sizes in millions of parameters; default: "
        f"{','.join(SIZES)}",
    )
    methods: str | None = setting(
        None,
        f"comma-separated; default: {','.join(METHODS)} for a suite (suite=smoke: tdmpc2, and one "
        "short run of each other method; suite=evidence: tdmpc2), those with multi-task agents "
        "for suite=scaling, tdmpc2 for tasks= or data=",
    )
    seeds: str = setting("3", "number of seeds (3 means 1,2,3) or list of seeds (1,2,5)")
    env_steps: int | None = setting(
        None, "budget of each run in env steps; default: the suite's or the task's", STEPS
    )
    num_updates: int | None = setting(
        None,
        f"budget of each run in gradient updates, with data=; default: {OFFLINE_UPDATES:,}",
        STEPS,
    )
    variant: str | None = setting(
        None, "name of the given settings, if there is one variant; default: derived from them"
    )
    obs: Literal["state", "rgb"] = setting("state", "observations; rgb: DMControl only")
    assets: str = setting(
        "official",
        "source of the object models of pick-ycb and turn-faucet: official | rebuilt | standin | "
        "unknown, or several in order of preference (official,unknown)",
    )
    cluster: Literal["auto", "slurm", "local", "inline"] = setting(
        "auto",
        "where to train; auto: SLURM if this machine has it (sbatch), and an error if it does not "
        "respond, else local; local: processes on this machine; inline: one run after another in "
        "this process, for debugging",
    )
    max_parallel: int | None = setting(
        None,
        "maximum number of processes (local) or jobs (SLURM) at a time; default: local: cores / "
        "threads, or 1 with data= on a GPU; SLURM: no limit",
        low=1,
        high=100_000,
    )
    seeds_per_process: int = setting(
        1, "seeds of a task that one process trains as one batch", low=1, high=1024
    )
    partition: str | None = setting(
        None, "SLURM: partition, or several separated by commas; default: the cluster's default"
    )
    gpus: int | None = setting(
        None, "SLURM: GPUs per job; default: 1 if the partition has GPUs, else 0", low=0, high=1024
    )
    runs_per_gpu: int = setting(
        1, "SLURM: processes that share a GPU (without GPUs: processes per job)", low=1, high=1024
    )
    cpus: int | None = setting(
        None,
        "SLURM: cores per process; default: threads= if given, else 4 with a GPU, 1 without",
        THREADS,
    )
    mem_gb: int | None = setting(
        None, "SLURM: memory per job in GB; default: estimated", low=1, high=1_000_000
    )
    timeout_min: int | None = setting(
        None,
        "SLURM: time limit of a job in minutes, after which it is requeued and its runs resume; "
        "default: 1440, or the partition's limit if that is shorter",
        low=1,
        high=1_000_000,
    )
    sbatch: str | None = setting(
        None,
        "SLURM: comma-separated further options of sbatch, without dashes: account=lab,qos=low; "
        "hold submits jobs that start only after `scontrol release JOB`",
    )
    after: Literal["figures"] | None = setting(
        None, "figures: draw the figures when all runs have ended, even if some failed"
    )
    until: Literal["decided"] | None = setting(
        None,
        "decided: a study that starts seeds look by look, and stops each claim when it is decided "
        "(several variants= or methods=, compared with the first; or against=published)",
    )
    against: Literal["published"] | None = setting(
        None,
        "published: until=decided asks of each method and domain whether its mean equals that of "
        "the released curves",
    )
    looks: str = setting("2,3,5,7,10", "until=decided: seeds on each side after each look")
    only: Literal["all", "failed"] = setting(
        "all", "which unfinished runs to launch; failed: only those that failed"
    )
    yes: bool = setting(
        False,
        "local: start although the runs need more than a day on one core or GPU, or although "
        "some runs are blocked",
    )
    dry_run: bool = setting(False, "print the plan and stop")

    def __post_init__(self) -> None:
        """Reject values out of range and options that exclude each other."""
        super().__post_init__()
        if self.against is not None and self.until is None:
            raise UserError(f"against={self.against}: only valid with until=decided")
        if self.multitask:
            self._refuse_options_of_single_tasks()
        else:
            self._refuse_options_of_datasets()

    def _refuse_options_of_single_tasks(self) -> None:
        """Reject options of single-task runs if one agent learns several tasks from a dataset."""
        reasons = {
            "env_steps": "set the budget of multi-task runs with num_updates=",
            "obs": "datasets hold state observations only; omit it",
            "assets": "datasets hold recorded observations; omit it",
            "seeds_per_process": "seeds of multi-task runs are not trained as one batch; omit it",
        }
        for name, reason in reasons.items():
            value = getattr(self, name)
            if value != getattr(SweepOptions, name):
                raise UserError(f"{name}={value}: cannot be combined with data=; {reason}")
        if self.sizes is not None and self.suite != SCALING:
            raise UserError(
                f"sizes={self.sizes}: only valid with suite={SCALING}; use model_size= instead"
            )

    def _refuse_options_of_datasets(self) -> None:
        """Reject options of multi-task runs if no dataset is given."""
        if self.suite == SCALING:
            raise UserError(
                f"suite={SCALING}: data= is missing, e.g. data=mt30=DIR,mt80=DIR "
                "(see python -m tdmpc2.data --help)"
            )
        for name in ("sizes", "num_updates"):
            value = getattr(self, name)
            if value is not None:
                raise UserError(f"{name}={value}: only for multi-task training; add data=DIR")

    @property
    def multitask(self) -> bool:
        """Whether one agent learns several tasks, from a dataset."""
        return self.data is not None

    @property
    def label(self) -> str:
        """Name of the sweep in messages and folder names: its suite, or `tasks`."""
        return self.suite or "tasks"

    @property
    def preset(self) -> Preset:
        """Settings that belong to the suite."""
        return NO_PRESET if self.multitask else PRESETS.get(self.suite or "", NO_PRESET)

    @property
    def method_names(self) -> list[str]:
        """Names of the methods to train on every task."""
        if self.methods is not None:
            return self.methods.split(",")
        if self.multitask:
            return list(multitask_methods()) if self.suite == SCALING else ["tdmpc2"]
        return ["tdmpc2"] if self.suite is None else list(self.preset.methods or METHODS)

    def check_cluster(self, cluster: str) -> None:
        """Check that no option of SLURM jobs is given without SLURM.

        Args:
            cluster: where the runs are trained: `slurm`, `local` or `inline`.

        Raises:
            UserError: one is given.
        """
        for name in SLURM_ONLY if cluster != "slurm" else ():
            value = getattr(self, name)
            if value != getattr(SweepOptions, name):
                chosen = (
                    f"cluster={self.cluster}" if self.cluster != "auto" else "there is no SLURM"
                )
                raise UserError(
                    f"{name}={value}: applies to SLURM jobs only, and here {chosen}; omit it "
                    "(sweeps/retry.py omits it with cluster=local)"
                )


@dataclass(frozen=True)
class LaunchOptions(SweepOptions):
    """`SweepOptions`, and what the command line says of variants."""

    variants: str | None = setting(
        None,
        "comma-separated variants of the settings; + joins the settings of a variant and NAME: "
        "names it: default,num_q=2,my-name:regression=mse+num_q=2",
    )
