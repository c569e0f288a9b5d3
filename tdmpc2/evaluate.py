"""Evaluate command for runs and checkpoints: `python tdmpc2/evaluate.py run=DIR episodes=10`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import check_output, write_json
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.training.evaluation_options import EvaluationOptions


@dataclass(frozen=True)
class RunOption(Settings):
    """The option that names the agent."""

    run: Path = setting(REQUIRED, "run directory, or one of its checkpoints/…")


@dataclass(frozen=True)
class EvaluateOptions(EvaluationOptions, RunOption):
    """Options of the evaluate command; the fields of the last base class come first."""

    save_video: bool = setting(False, "write an mp4 of the first episode to the run's videos/")


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python tdmpc2/evaluate.py run=DIR [key=value …]",
            "",
            "Evaluates a trained agent without exploration noise. The records of the run (CSV",
            "files, status, checkpoints) are not changed.",
            "",
            cli.describe_fields(EvaluateOptions),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    options = cli.parse_options(arguments, EvaluateOptions)
    if options.out is not None:
        check_output(options.out)
    from tdmpc2.runners.evaluate_checkpoint import evaluate_checkpoint

    facts, result = evaluate_checkpoint(options)
    print(f"{facts['method']} ({facts['variant']}) on {facts['task']}, seed {facts['run_seed']}")
    print(f"after {facts['agent_step']:,} decisions, {len(result.returns)} episodes:")
    print(f"  return  {result.mean_return:8.2f}  ± {result.sd_return:.2f} (sd over episodes)")
    print(f"  success {result.successes.mean():8.2f}  at the last step")
    print(f"          {result.successes_ever.mean():8.2f}  at any step")
    if "video" in facts:
        print(f"  video   {facts['video']}")
    if options.out is not None:
        episodes = {"returns": result.returns.tolist(), "successes": result.successes.tolist()}
        write_json(options.out, facts | result.row() | episodes)
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
