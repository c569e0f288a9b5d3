"""Ask questions about an environment of a user in processes of their own; see `gymnasium_probe`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.other_python import python_and_environment

END_SECONDS = 20.0
"""Time in which a process must end after its answer."""
NOTICE_SECONDS = 60.0
"""Time without an answer after which a line says what is being waited for."""
PAUSE_SECONDS = 0.02


def ask(domain: str, questions: Sequence[str], subject: str, where: str = "") -> list[Any]:
    """Ask questions about an environment in a process each, at the same time.

    This process thus imports no simulator before it knows whether it will render, and a crash or
    the output of an environment does not disturb it.

    Args:
        domain: domain of the environment, whose Python may be another one; see `other_python`.
        questions: see `tdmpc2.envs.gymnasium_probe`.
        subject: recipe or task.
        where: label of the task in messages.

    Raises:
        UserError: the environment cannot be made or used, or leaves a thread or a process running.
    """
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(_Probe(domain, one, subject, where)) for one in questions]
        return [probe.answer() for probe in probes]


class _Probe:
    """A process that answers one question. It leads a process group, which ends with it.

    Args:
        domain: domain of the environment.
        question: the question.
        subject: recipe or task.
        where: label of the task in messages.
    """

    def __init__(self, domain: str, question: str, subject: str, where: str) -> None:
        self._label = where or subject
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "answer.json"
        python, environment = python_and_environment(domain)
        # Files, not pipes: a process that the environment has started would hold a pipe open.
        with open(self._path("out"), "wb") as out, open(self._path("err"), "wb") as err:
            self._process = subprocess.Popen(
                [
                    *(python, "-m", "tdmpc2.envs.gymnasium_probe"),
                    *(question, subject, where, str(self._file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )

    def __enter__(self) -> _Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def answer(self) -> Any:
        """Wait for the answer and for the end of the process."""
        started = time.monotonic()
        noted = False
        while not self._file.exists():
            if self._process.poll() is not None and not self._file.exists():
                raise UserError(
                    f"{self._label}: a process that used the environment ended with exit code "
                    f"{self._process.returncode} ({self._last_line()}); correct the environment"
                )
            if not noted and time.monotonic() - started > NOTICE_SECONDS:
                noted = True
                print(
                    f"{self._label}: a process has been making and playing the environment for "
                    f"{NOTICE_SECONDS:.0f} s (Ctrl-C stops it)",
                    file=sys.stderr,
                )
            time.sleep(PAUSE_SECONDS)
        answer = read_json(self._file)
        if "error" in answer:
            raise UserError(answer["error"])
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{self._label}: a process that made and closed the environment does not end, so a "
                "run would not end either; let close() end its threads and processes"
            ) from None
        return answer["answer"]

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _last_line(self) -> str:
        text = self._path("err").read_text(encoding="utf-8", errors="replace")
        return (text.strip().splitlines() or ["no output"])[-1]
