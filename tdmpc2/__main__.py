"""All commands under one name: `tdmpc2 COMMAND [key=value …]`, or `python -m tdmpc2 COMMAND …`.

Each command is a module that can also be run as `python -m MODULE`, or as a file of a checkout.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean


class Command(NamedTuple):
    """A command.

    Attributes:
        module: module that is run.
        purpose: what it does, in a few words.
    """

    module: str
    purpose: str


COMMANDS = {
    "train": Command("tdmpc2.train", "train one run, or several tasks from a dataset (data=)"),
    "evaluate": Command("tdmpc2.evaluate", "evaluate the agent of a run"),
    "finetune": Command("tdmpc2.finetune", "continue a multi-task agent on another task"),
    "sweep": Command("sweeps.launch", "train many runs, on this machine or on SLURM"),
    "status": Command("sweeps.status", "progress of the runs of a sweep"),
    "retry": Command("sweeps.retry", "start failed runs again"),
    "cancel": Command("sweeps.cancel", "stop the runs of a sweep"),
    "continue-study": Command("sweeps.studies.go_on", "decide a look of a study and go on"),
    "ablate": Command("ablations.run", "train ablations and the default agent"),
    "ablation-report": Command("ablations.report", "compare ablations with the paper's claims"),
    "frames": Command("tdmpc2.frames", "render a frame of each task"),
    "figures": Command("analysis.make_figures", "draw the figures"),
    "reproduce": Command("analysis.reproduce", "compare own runs with the released curves"),
    "report": Command("analysis.report", "write all results into one HTML file"),
    "claims": Command("analysis.claims", "status of every claim of the paper"),
    "evidence": Command("analysis.evidence", "own runs beside the released seeds"),
    "leaderboard": Command("analysis.leaderboard", "compare methods from result files"),
    "import-results": Command("analysis.import_results", "show what is understood of result files"),
    "export-results": Command("analysis.export_results", "write own runs as a result file"),
    "fetch-published": Command("analysis.fetch_published", "download the released curves"),
    "bundle": Command("tdmpc2.bundle", "write an artifact bundle, or verify one"),
    "data": Command("tdmpc2.data", "make, convert and describe datasets"),
    "checkpoints": Command("tdmpc2.checkpoints", "download, convert and evaluate model files"),
    "assets": Command("tdmpc2.envs.assets", "download models that ManiSkill2 needs"),
    "completion": Command("tdmpc2.completion", "print completion code for a shell"),
    "doctor": Command("tdmpc2.doctor", "check simulators, renderers, compiler and SLURM"),
}


def main(arguments: Sequence[str]) -> int:
    """Run a command; return 0 if only the list of commands is printed.

    Raises:
        UserError: no or an unknown command.
    """
    if not arguments:
        raise UserError("no command; `tdmpc2 --help` lists them")
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"{name}: unknown command{did_you_mean(name, COMMANDS)}")
    sys.argv = [name, *rest]
    runpy.run_module(COMMANDS[name].module, run_name="__main__", alter_sys=True)
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tdmpc2 COMMAND [key=value …]",
            "       tdmpc2 COMMAND --help",
            "",
            *lines,
        ]
    )


def run() -> int:
    """Run the command line; entry point of the script `tdmpc2`."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:  # the command handles --help and errors
        return main(sys.argv[1:])
    return cli.command(main, usage)


if __name__ == "__main__":
    sys.exit(run())
