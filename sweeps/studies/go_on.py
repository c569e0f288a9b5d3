"""Continue a study: `python -m sweeps.studies.go_on study=FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError

REQUEST = "request.json"
"""Launch of all runs of a study, in its folder."""


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    study: Path | None = setting(None, "folder of the study, <runs>/studies/NAME (required)")


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python -m sweeps.studies.go_on study=FOLDER

Decides the claims of a study whose look has ended, and starts the next look. SLURM runs it after
each look. Runs that have failed are not started again: launch the study again for that.

{cli.describe_fields(Options)}"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code of `running.run_study`.

    Raises:
        UserError: the argument is not the folder of a study, or the study was changed.
    """
    folder = cli.parse_options(arguments, Options).study
    if folder is None:
        raise UserError("study= is missing: the folder of a study, <runs>/studies/NAME")
    if not (folder / REQUEST).is_file():
        raise UserError(f"study={folder}: not the folder of a study ({REQUEST} is missing)")
    from sweeps.studies.running import read_request, run_study

    return run_study(read_request(folder), again=False)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
