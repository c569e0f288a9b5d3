"""Continue a study in a SLURM job: `python -m sweeps.studies.go_on STUDY_FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError


def usage() -> str:
    """Return the text of `--help`."""
    return (
        "usage: python -m sweeps.studies.go_on FOLDER\n\n"
        "Decides the claims of a study whose look has ended, and submits the next look. SLURM runs "
        "it after\neach look. Runs that have failed are not started again: launch the study "
        "again for that."
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code of `running.run_study`.

    Raises:
        UserError: the argument is not the folder of a study, or the study was changed.
    """
    if len(arguments) != 1:
        raise UserError("one argument is needed: the folder of a study")
    if not (Path(arguments[0]) / "request.json").is_file():
        raise UserError(f"{arguments[0]}: not the folder of a study (request.json is missing)")
    from sweeps.studies.running import read_request, run_study

    return run_study(read_request(Path(arguments[0])), again=False)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
