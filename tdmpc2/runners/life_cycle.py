"""Life cycle of the runs of one process, online or offline: lease, numerics, records, session."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tdmpc2 import acceleration
from tdmpc2.common.interfaces import Agent
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.numerics.numeric_path import (
    apply_numeric_path,
    record_failed_compilation,
    record_native_kernels,
    require_precision,
)
from tdmpc2.common.numerics.seeding import seed_globals
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.mirrors import Mirrors, parse_loggers
from tdmpc2.common.run.resume_checks import (
    RunResult,
    existing_outcome,
    new_attempt,
    record_attempt,
)
from tdmpc2.common.run.run_directory import held
from tdmpc2.common.run.run_files import RunFiles, read_status
from tdmpc2.common.run.sacred_tracker import Tracker, track
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.run.spec import CommonOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json, remove_leftovers, write_json
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.training.loop import TrainingLoop
from tdmpc2.common.training.loop_requests import Steps
from tdmpc2.common.training.session import StopRequests, session, stop_on_signals
from tdmpc2.envs.adapters import recorded_distributions
from tdmpc2.envs.other_python import versions_elsewhere
from tdmpc2.envs.task_variants import run_of_0_4_0
from tdmpc2.runners.fixed_options import fixed_options


class LocalRun:
    """A run in this process. Subclasses create its agent, environments and trainer.

    The order of the calls is `acquire`, `set_up_numerics`, `open_records`, the subclass's own
    set-up, `write_spec`, and then `train_together` for all runs of the process.

    Args:
        spec: run to train.
        options: options that are not part of the run's identity.
        device: device of the networks.

    Attributes:
        fixed: options that must stay the same for the whole run, see `fixed_options`.
        settled: result of a run that needs no more work; None if there is work to do.
        agent: agent of the run; set by the subclass.
        trainer: training loop of the run; set by the subclass.
        stop: stop requests from signals; None before the session.
    """

    agent: Agent
    trainer: TrainingLoop
    stop: StopRequests | None = None

    def __init__(self, spec: RunSpec, options: CommonOptions, device: torch.device) -> None:
        self.spec, self.options, self.device = spec, options, device
        self.fixed = fixed_options(spec, options)
        self.directory = spec.run_dir(options.runs)
        self.loggers = parse_loggers(options.logger)
        self.settled = existing_outcome(self.directory, spec, self.fixed, options)

    @property
    def precision(self) -> str:
        """Precision of the networks' matrix multiplications, `fp32`, `tf32` or `bf16`."""
        return str(getattr(self.agent.config, "precision", "fp32"))

    @property
    def cores(self) -> int:
        """Number of cores for environments: the threads in use, at most all usable cores."""
        return min(self.numeric["threads"], usable_cores())

    def acquire(self, stack: contextlib.ExitStack, *, keep_replay: bool = False) -> None:
        """Create the run directory and hold its lease until the stack is closed; see `held`.

        Args:
            stack: context of the run.
            keep_replay: whether checkpoints keep all episodes.

        Raises:
            UserError: the directory cannot be created, another process holds the lease, or the
                device does not support the precision.
        """
        require_precision(self.device, self.precision)
        older = run_of_0_4_0(self.spec, self.options.runs)
        if older is not None and not self.directory.exists():
            print(
                f"{older}: a run under the physics of version 0.4.0; it stays as it is, and "
                "training under the present physics starts from the beginning (docs/fidelity.md)",
                file=sys.stderr,
            )
        self.lease = stack.enter_context(held(self.directory))
        self.store = CheckpointStore(
            self.directory, keep_replay=keep_replay, check=self.lease.verify
        )
        folders = (self.store.folder, self.store.shard_folder, self.directory / "videos")
        remove_leftovers(self.directory, *folders)

    def set_up_numerics(self, **path: str | None) -> None:
        """Configure torch according to the run's numeric path; `write_spec` records it.

        Args:
            **path: entries of the numeric path, see `apply_numeric_path`.

        Raises:
            UserError: the numeric path or the commit has changed, or is unknown.
        """
        options, file = self.options, self.directory / "numeric.json"
        if self.store.existing() and not file.exists() and not options.allow_numeric_change:
            raise UserError(
                f"{file}: missing, so it is unknown whether results would be bit-exact; restore "
                "it, or use allow_numeric_change=true"
            )
        self.numeric = apply_numeric_path(
            file,
            self.device,
            options.threads,
            allow_change=options.allow_numeric_change,
            compiled=options.compile,
            precision=self.precision,
            bf16_layers=self.agent.accelerable().bf16_layers is not None,
            **path,
        )
        self.attempt = new_attempt(
            self.directory,
            simulators=recorded_distributions(),
            allow_change=options.allow_commit_change,
            study=options.study,
            elsewhere=versions_elsewhere(),
        )

    def open_records(self, **facts: Any) -> None:
        """Create the records of the run and seed the global generators.

        Args:
            **facts: entries of `spec.json` for readers of the records, see `RunFiles`.
        """
        seed_globals(self.spec.seed)
        facts["model_size"] = getattr(self.agent.config, "model_size", None)
        self.records = RunFiles(self.directory, self.spec, facts, self.lease.verify)

    def write_spec(self, **facts: Any) -> None:
        """Record the numeric path and this attempt, and write `spec.json`.

        This is done after the checkpoint has been restored: a start that is refused by then must
        not decide with which numeric path or commit the run continues.

        Args:
            **facts: entries of `spec.json` beside the options that must stay the same.
        """
        self.lease.verify()
        write_json(self.directory / "numeric.json", self.numeric)
        record_attempt(self.directory, self.attempt)
        self.records.write_spec({**self.fixed, **facts, "commit": self.attempt["commit"]})

    def mirror_settled(self) -> None:
        """Log the records of a completed or diverged run: a logger may be new, or have failed.

        Raises:
            UserError: another process holds the lease.
        """
        status = read_status(self.directory)
        if not (self.loggers and self.settled and status):
            return
        if status["state"] in ("COMPLETED", "DIVERGED"):  # else it has a larger budget
            budget = read_json(self.directory / "spec.json", SpecFile)["budget"]
            spec = dataclasses.replace(self.spec, budget=budget)
            with held(self.directory):
                mirrors = Mirrors(self.loggers, self.directory, spec.to_json())
                mirrors.close(status["state"])

    def session(self, tracker: Tracker, stop: StopRequests) -> Steps[RunResult]:
        """Return the training session of this run, a generator of requests."""
        self.stop = stop
        mirrors = Mirrors(self.loggers, self.directory, self.spec.to_json())
        lease, options = self.lease, self.options
        return session(self.trainer, self.records, tracker, lease, options, stop, mirrors)


def accelerate(runs: Sequence[LocalRun], agent: Any) -> None:
    """Compile the functions of the agent (or seed batch) of these runs if they are to be."""
    if runs[0].numeric["compile"]:

        def on_failure() -> None:
            stop = runs[0].stop
            if stop is not None and stop.signal is not None:
                # Ctrl-C and SLURM signal all processes of a job, the C++ compiler too: it was
                # stopped and did not fail, so the resumed run compiles again.
                raise StoppedError("stopped while functions were being compiled")
            for run in runs:
                record_failed_compilation(run.directory / "numeric.json")

        compiler = acceleration.install(agent, on_failure)
        for run in runs:
            record_native_kernels(
                run.directory / "numeric.json",
                compiler.native_kernels,
                allow_change=run.options.allow_numeric_change,
            )


def train_together(
    runs: Sequence[LocalRun],
    serve_all: Callable[[list[Steps[RunResult]]], list[RunResult]],
) -> list[RunResult]:
    """Train runs, each in a session inside a Sacred experiment of its own.

    Args:
        runs: runs to train.
        serve_all: function that answers the requests of the sessions until they end.

    Returns:
        The result of each run.

    Raises:
        StoppedError: a stop was requested, e.g. by SIGTERM.
    """

    def inside(rest: Sequence[LocalRun], trackers: list[Tracker]) -> list[RunResult]:
        if not rest:
            seed_globals(runs[0].spec.seed)  # again, since Sacred has seeded them too
            with stop_on_signals() as stop:
                pairs = zip(runs, trackers, strict=True)
                return serve_all([run.session(tracker, stop) for run, tracker in pairs])
        run = rest[0]
        return track(
            run.directory / "sacred",
            run.spec.method,
            {**dataclasses.asdict(run.spec), "overrides": dict(run.spec.overrides)},
            {"attempt": run.attempt, "numeric": run.numeric},
            lambda tracker: inside(rest[1:], [*trackers, tracker]),
            interrupts=(StoppedError,),
        )

    return inside(runs, [])
