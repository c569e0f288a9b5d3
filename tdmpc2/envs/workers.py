"""Environments in worker processes, for machines with spare CPU cores.

`python -m tdmpc2.envs.workers FD` runs a worker process. It imports neither torch nor any
agent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.vector_env import SerialEnvs, StepResult
from tdmpc2.envs.factory import make_env

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class WorkerError(RuntimeError):
    """A worker process failed or ended unexpectedly."""


class WorkerEnvs:
    """An `EnvGroup` whose environments run in worker processes.

    Each worker makes and holds every n-th environment. The results equal those of stepping the
    same environments in one process, since environments do not depend on each other. Workers
    end with this object or with this process, even if the process is killed.

    Args:
        envs: the keyword arguments of `make_env`, one mapping per environment.
        num_workers: number of processes.

    Raises:
        UserError: an environment cannot be made.
    """

    def __init__(self, envs: Sequence[Mapping[str, Any]], num_workers: int) -> None:
        self._num_envs = len(envs)
        self._workers = [_Worker() for _ in range(min(num_workers, len(envs)))]
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
    """A training environment in its own process, which steps while this process computes.

    Args:
        wanted: the keyword arguments of `make_env`.
        like: an environment of the same task; spaces and lengths are copied from it.

    Raises:
        UserError: the environment cannot be made.
    """

    def __init__(self, wanted: Mapping[str, Any], like: TaskEnv) -> None:
        self.observation_space, self.action_space = like.observation_space, like.action_space
        self.action_repeat, self.episode_length = like.action_repeat, like.episode_length
        self.frame_stack = like.frame_stack
        self._worker = _Worker()
        try:
            self._call("make", dict(wanted))
        except BaseException:
            self.close()
            raise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `TaskEnv`; the `info` is empty."""
        return self._call("restart", seed), {}

    def begin_step(
        self, action: np.ndarray
    ) -> Callable[[], tuple[np.ndarray, float, bool, bool, dict[str, Any]]]:
        """See `TaskEnv.begin_step`."""
        self._worker.send(("full_step", {0: action}))
        return lambda: self._worker.receive()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `TaskEnv`; the `info` has only `success` and `success_ever`."""
        return self.begin_step(action)()

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
    """One worker process and the pipe to it."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        # A terminal or SLURM stops a run by signals to all of its processes, but the workers must
        # live until the run has ended. A child inherits the signals that are blocked here.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tdmpc2.envs.workers", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
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
        code = self._process.wait()
        return WorkerError(f"an environment process ended unexpectedly with exit code {code}")

    def close(self) -> None:
        self._pipe.close()
        self._process.wait()


def _work(pipe: Connection) -> None:
    """Answer requests until the other end of the pipe is closed."""
    envs: dict[int, SerialEnvs] = {}
    while True:
        try:
            command, arguments = pipe.recv()
        except (EOFError, ConnectionResetError):
            break
        answer: tuple[UserError | str | None, dict[int, Any] | None]
        try:
            answer = (None, {i: _do(envs, command, i, arg) for i, arg in arguments.items()})
        except UserError as error:
            answer = (error, None)
        except Exception:
            answer = (traceback.format_exc(), None)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            break
    for env in envs.values():
        env.close()


def _do(envs: dict[int, SerialEnvs], command: str, i: int, argument: Any) -> Any:
    """Execute one command on environment `i`."""
    if command == "make":
        envs[i] = SerialEnvs([make_env(**argument)])
        return None
    if command == "reset":
        return envs[i].reset([argument])[0]
    if command == "step":
        return envs[i].begin_step({0: argument})()[0]
    if command == "render":
        return envs[i].render(0)
    env = envs[i].envs[0]
    if command == "restart":
        return env.reset(seed=argument)[0]
    if command == "full_step":
        obs, reward, terminated, truncated, info = env.step(argument)
        successes = {name: info[name] for name in ("success", "success_ever")}
        return obs, reward, terminated, truncated, successes
    if command == "generator_state":
        return env.generator_state()
    assert command == "set_generator_state"
    return env.set_generator_state(argument)


if __name__ == "__main__":
    _work(Connection(int(sys.argv[1])))
