"""Worker process that holds environments; see `workers`.

`python -m tdmpc2.envs.worker_process FD` answers the requests of a pipe. It imports neither torch
nor any agent, and may run in another version of Python and NumPy.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.vector_env import SerialEnvs
from tdmpc2.envs.factory import make_env

CLOSE_SECONDS = 10.0
"""Time for `close` of the environments after the end of the process that uses them."""
POLL_SECONDS = 2.0


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, although an environment hangs.

    Args:
        parent: process id of the parent.
    """
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    time.sleep(CLOSE_SECONDS)
    os._exit(1)


def _work(pipe: Connection) -> None:
    """Answer requests until the other end of the pipe is closed."""
    envs: dict[int, SerialEnvs] = {}
    while True:
        try:
            command, arguments = Reader(io.BytesIO(pipe.recv_bytes())).load()
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
        obs, info = env.reset(seed=argument)
        return obs, _successes(info)
    if command == "full_step":
        obs, reward, terminated, truncated, info = env.step(argument)
        return obs, reward, terminated, truncated, _successes(info)
    if command == "generator_state":
        return env.generator_state()
    assert command == "set_generator_state"
    return env.set_generator_state(argument)


def _successes(info: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of an info that every process can read; others may be of the simulator."""
    return {name: info[name] for name in ("success", "success_ever") if name in info}


class Reader(pickle.Unpickler):
    """Reads pickled arrays of another version of NumPy: NumPy 2 has renamed a package."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler.find_class`."""
        if module.startswith("numpy._core.") and not hasattr(np, "_core"):
            module = module.replace("._core.", ".core.")
        return super().find_class(module, name)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _work(Connection(int(sys.argv[1])))
