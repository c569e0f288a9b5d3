"""Sacred records of a run: one experiment per run, one numbered record per attempt."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


class Tracker:
    """Logs metrics of a running experiment to Sacred.

    Args:
        run: Sacred's run object.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log scalars. Use it for evaluations only, since Sacred rewrites its file each time."""
        for name, value in figures.items():
            self._run.log_scalar(name, float(value), step)


def track(
    directory: Path,
    name: str,
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    body: Callable[[Tracker], Result],
    *,
    interrupts: tuple[type[BaseException], ...] = (),
) -> Result:
    """Run a function as a Sacred experiment whose records are written to `directory`.

    The attempts of one run get the ids 1, 2, …. Sacred keeps the status `RUNNING` for an attempt
    that was killed; `status.json` and the lease show the real state.

    Args:
        directory: folder for Sacred's records.
        name: name of the experiment.
        config: plain values that Sacred records as the configuration.
        info: facts about this attempt.
        body: function to run; it receives a `Tracker`.
        interrupts: exceptions that Sacred records as `INTERRUPTED` instead of `FAILED`.

    Returns:
        The result of `body`.
    """
    sacred = _import_sacred()
    from sacred.observers import FileStorageObserver
    from sacred.utils import SacredInterrupt

    class Interrupted(SacredInterrupt):
        STATUS = "INTERRUPTED"

    sacred.SETTINGS.CAPTURE_MODE = "sys"
    sacred.SETTINGS.CONFIG.READ_ONLY_CONFIG = False
    # `provenance` records the git state; Sacred would fail in a repository without a commit.
    experiment = sacred.Experiment(name, save_git_info=False)
    experiment.logger = logging.getLogger("tdmpc2.sacred")
    # The commands report errors in one line; Sacred would print tracebacks.
    experiment.logger.setLevel(logging.CRITICAL)
    experiment.add_config(dict(config))
    experiment.observers.append(FileStorageObserver(directory, copy_sources=False))
    result: list[Result] = []

    def main(_run: Any) -> None:
        _run.info.update(info)
        try:
            result.append(body(Tracker(_run)))
        except interrupts as error:
            raise Interrupted from error

    experiment.main(main)
    stopped: BaseException | None = None
    try:
        run = experiment.run()
    except Interrupted as error:
        stopped = error.__cause__ or error
    if stopped is not None:  # raised here, so that its context is not the error that it caused
        raise stopped
    if run._failed_observers:
        # Sacred silently drops an observer that fails once.
        warnings.warn(f"Sacred's record in {directory} is incomplete", stacklevel=2)
    return result[0]


def _import_sacred() -> Any:
    """Import Sacred, but not pandas: no run has its tables, and it takes half a second."""
    modules: dict[str, Any] = sys.modules
    without_pandas = "pandas" not in modules
    if without_pandas:
        modules["pandas"] = None  # how Python marks a module that cannot be imported
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pkg_resources.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            import sacred
    finally:
        if without_pandas:
            del modules["pandas"]
    return sacred
