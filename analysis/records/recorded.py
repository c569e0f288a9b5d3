"""The folders of runs that a command reads: named ones, or those that this project has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir, project_root

RECORDED = "use all folders of paper_figures/recorded instead of runs="
"""Description of the option `recorded`."""


def folders_of(named: Sequence[Path], recorded: bool) -> list[Path]:
    """Return the folders of runs that a command reads.

    Args:
        named: folders that the user names.
        recorded: whether to use the recorded runs instead.

    Returns:
        The default folder if the user chooses nothing.

    Raises:
        UserError: both are chosen, or there are no recorded runs, as in an installed package.
    """
    if not recorded:
        return list(named) or [default_runs_dir()]
    if named:
        raise UserError("runs= and recorded=true exclude each other; give one of them")
    return recorded_folders()


def recorded_folders() -> list[Path]:
    """Return the folders of `paper_figures/recorded`.

    Raises:
        UserError: there is no such folder, as in an installed package.
    """
    recorded = project_root() / "paper_figures" / "recorded"
    if not recorded.is_dir():
        raise UserError(f"{recorded} does not exist; name folders of runs with runs=DIR,DIR")
    return sorted(path for path in recorded.iterdir() if path.is_dir())
