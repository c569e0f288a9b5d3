"""Sacred: one experiment per run, one numbered record per attempt, beside our own files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


class Tracker:
    """What a run may report to Sacred while it goes on.

    Args:
        run: Sacred's run object.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs scalars; meant for evaluations, since Sacred rewrites its file each time."""
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
    """Runs `body` as a Sacred experiment observed in `directory`.

    Attempts of one run get the ids 1, 2, …. An attempt that was killed stays `RUNNING`
    there; `status.json` tells the truth.

    Args:
        directory: where the observer writes.
        name: of the experiment.
        config: plain values.
        info: facts of this attempt.
        body: gets a `Tracker`.
        interrupts: exceptions that Sacred should record as `INTERRUPTED`, not as `FAILED`.
    """
    sacred = _import_sacred()
    from sacred.observers import FileStorageObserver
    from sacred.utils import SacredInterrupt

    class Interrupted(SacredInterrupt):
        STATUS = "INTERRUPTED"

    sacred.SETTINGS.CAPTURE_MODE = "sys"
    sacred.SETTINGS.CONFIG.READ_ONLY_CONFIG = False
    # Git facts are ours to record: Sacred fails in a repository without a commit.
    experiment = sacred.Experiment(name, save_git_info=False)
    experiment.logger = logging.getLogger("tdmpc2.sacred")
    # How a run ended is ours to say, in one line; Sacred would print tracebacks.
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
    try:
        run = experiment.run()
    except Interrupted as error:
        raise (error.__cause__ or error) from None
    if run._failed_observers:
        # Sacred drops an observer that fails once and says nothing.
        warnings.warn(f"Sacred's record in {directory} is incomplete", stacklevel=2)
    return result[0]


def _import_sacred() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        import sacred
    return sacred
