"""Files of the runs of each process of a launch, and their training in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.planning.planned_run import SeedGroup
from sweeps.tracking.reference_scores import measure_reference_scores
from sweeps.tracking.sweep_folder import process_file
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.spec import OfflineOptions, RunOptions


def write_file(folder: Path, number: int, group: SeedGroup, options: Mapping[str, Any]) -> Path:
    """Write the file from which a process reads its runs, and return its path.

    Args:
        folder: folder of the launch.
        number: number of the process in the launch.
        group: runs of the process.
        options: options of every run (see `RunOptions` and `OfflineOptions`); options of the run
            itself override them.
    """
    path = process_file(folder, number)
    kind = OfflineOptions if group[0].spec.tasks else RunOptions
    spec_file.write(path, [run.spec for run in group], kind(**{**options, **group[0].options}))
    return path


def train_file(
    path: Path, *, reference_scores: bool = False, restarted: bool = False
) -> list[RunResult]:
    """Train the runs of a process.

    Args:
        path: file that `write_file` has written.
        reference_scores: whether to also measure the reference scores of the task, which figures
            show; ignored for multi-task agents.
        restarted: whether the process was started before. It then resumes from its latest
            checkpoint, since a former start has already applied `checkpoint=previous`.

    Returns:
        The result of each run.

    Raises:
        UserError: an invalid file, or run directories that cannot be used.
        StoppedError: a signal stopped a run.
    """
    from tdmpc2.envs.task_variants import task_of
    from tdmpc2.train import train

    specs, options = spec_file.read(path)
    if restarted:
        options = replace(options, checkpoint="latest")
    ended = train(specs, options)
    if reference_scores and not specs[0].tasks:
        assets = (specs[0].assets or "official").partition("-")[0]
        measure_reference_scores([task_of(specs[0])], options.runs, assets=assets)
    return ended
