"""Environments in worker processes: for machines with spare CPU cores, or in another Python."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Pipe
from typing import Any

import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.vector_env import StepResult
from tdmpc2.envs.base import spaces_of
from tdmpc2.envs.other_python import python_and_environment
from tdmpc2.envs.tasks import Task

CLOSE_SECONDS = 10.0
"""Time in which a worker must end; one that hangs is then killed."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class WorkerError(RuntimeError):
    """A worker process failed or ended unexpectedly."""


class WorkerGoneError(UserError, WorkerError):
    """A worker process was killed, or its simulator crashed; no fault of this program."""


class WorkerEnvs:
    """An `EnvGroup` whose environments run in worker processes.

    Each worker makes and holds every n-th environment. The results equal those of stepping the
    same environments in one process, since environments do not depend on each other. Workers
    end with this object or with this process, even if the process is killed. One that hangs then
    has `CLOSE_SECONDS`.

    Args:
        envs: the keyword arguments of `make_env`, one mapping per environment, each with a `Task`.
        num_workers: number of processes.

    Raises:
        UserError: an environment cannot be made.
    """

    def __init__(self, envs: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        self._num_envs = len(envs)
        domains = {env["task"].domain for env in envs}
        domain = domains.pop() if len(domains) == 1 else None
        self._workers = [_Worker(domain) for _ in range(min(num_workers, len(envs)))]
        try:
            self._call_all("make", {i: dict(kwargs) for i, kwargs in enumerate(envs)})
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of environments."""
        return self._num_envs

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """See `EnvGroup.reset`."""
        answers = self._call_all("reset", dict(enumerate(seeds)))
        return np.stack([answers[i] for i in range(len(seeds))])

    def begin_step(self, actions: dict[int, np.ndarray]) -> Callable[[], dict[int, StepResult]]:
        """See `EnvGroup.begin_step`; the workers step until the results are requested."""
        return self._begin("step", actions)

    def render(self, index: int) -> np.ndarray:
        """See `EnvGroup.render`."""
        return self._call_all("render", {index: None})[index]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.begin_close()
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _call_all(self, command: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Send each worker its requests, then collect the answers; the workers run concurrently."""
        return self._begin(command, arguments)()

    def _begin(self, command: str, arguments: Mapping[int, Any]) -> Callable[[], dict[int, Any]]:
        """Send each worker its requests; return a function that collects the answers."""
        arguments_of: list[dict[int, Any]] = [{} for _ in self._workers]
        for i, argument in arguments.items():
            arguments_of[i % len(arguments_of)][i] = argument
        requests = [(w, a) for w, a in zip(self._workers, arguments_of, strict=True) if a]
        for worker, its_arguments in requests:
            worker.send((command, its_arguments))

        def gather() -> dict[int, Any]:
            answers: dict[int, Any] = {}
            for worker, _ in requests:
                answers |= worker.receive()
            return answers

        return gather


class RemoteEnv(TaskEnv):
    """An environment in its own process, which steps while this process computes.

    Args:
        wanted: the keyword arguments of `make_env`, with a `Task`.
        like: an environment with the same observations, whose spaces are copied; None for the
            states of a task.

    Raises:
        UserError: the environment cannot be made.
    """

    def __init__(self, wanted: Mapping[str, Any], like: TaskEnv | None = None) -> None:
        task: Task = wanted["task"]
        self.task = task
        self.action_repeat, self.episode_length = task.action_repeat, task.episode_length
        self.observation_space, self.action_space = spaces_of(task)
        if like is not None:
            self.observation_space, self.action_space = like.observation_space, like.action_space
            self.frame_stack = like.frame_stack
        self._worker = _Worker(task.domain)
        try:
            self._call("make", dict(wanted))
        except BaseException:
            self.close()
            raise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `TaskEnv`; the `info` has only `success` and `success_ever`."""
        return self._call("restart", seed)

    def begin_step(
        self, action: np.ndarray
    ) -> Callable[[], tuple[np.ndarray, float, bool, bool, dict[str, Any]]]:
        """See `TaskEnv.begin_step`."""
        self._worker.send(("full_step", {0: action}))
        return lambda: self._worker.receive()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `TaskEnv`; the `info` has only `success` and `success_ever`."""
        return self.begin_step(action)()

    def render(self) -> np.ndarray:  # type: ignore[override]
        """See `DecisionEnv.render`."""
        return self._call("render", None)

    def generator_state(self) -> Any:
        """See `TaskEnv`."""
        return self._call("generator_state", None)

    def set_generator_state(self, state: Any) -> None:
        """See `TaskEnv`."""
        self._call("set_generator_state", state)

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def _call(self, command: str, argument: Any) -> Any:
        self._worker.send((command, {0: argument}))
        return self._worker.receive()[0]


class _Worker:
    """One worker process and the pipe to it.

    Args:
        domain: domain of its environments, which may have a Python of its own; None for several.
    """

    def __init__(self, domain: str | None) -> None:
        python, environment = python_and_environment(domain)
        self._pipe, theirs = Pipe()
        # A terminal or SLURM stops a run by signals to all of its processes, but the workers must
        # live until the run has ended. A child inherits the signals that are blocked here.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = subprocess.Popen(
                [python, "-m", "tdmpc2.envs.worker_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._gone() from None

    def receive(self) -> Any:
        try:
            error, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(error, UserError):
            raise error
        if error is not None:
            raise WorkerError(f"an environment process failed:\n{error}")
        return answer

    def _gone(self) -> WorkerError:
        code = self._end()
        return WorkerGoneError(
            f"an environment process ended unexpectedly with exit code {code}: its simulator "
            "crashed or it was killed, e.g. for lack of memory; the same command resumes the run"
        )

    def begin_close(self) -> None:
        self._pipe.close()

    def close(self) -> None:
        self.begin_close()
        self._end()

    def _end(self) -> int:
        """Wait for the end of the process and return its exit code."""
        try:
            return self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
