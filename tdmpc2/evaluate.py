"""Evaluate command for runs and checkpoints: `python tdmpc2/evaluate.py run=DIR episodes=10`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of the evaluate command."""

    run: Path | None = field(
        default=None, metadata={"help": "run directory, or one of its checkpoints/…"}
    )
    episodes: int = field(default=10, metadata={"help": "number of episodes, planned as one batch"})
    seed: int = field(default=0, metadata={"help": "seed of environments and planning noise"})
    device: str = field(
        default="auto", metadata={"help": "auto (a GPU if there is one), cpu, cuda, cuda:1 …"}
    )
    threads: int | None = field(
        default=None, metadata={"help": "CPU threads of torch; default: torch's"}
    )
    compile: bool | None = field(
        default=None, metadata={"help": "torch.compile of planning; default: if it works"}
    )
    workers: int | None = field(
        default=None,
        metadata={
            "help": "processes that step the environments (0: this process); default: "
            "cores - 1, if that is at least 2"
        },
    )
    save_video: bool = field(
        default=False, metadata={"help": "write an mp4 of the first episode to the run's videos/"}
    )
    out: Path | None = field(
        default=None, metadata={"help": "JSON file for the result; default: none"}
    )

    def __post_init__(self) -> None:
        """Check the options."""
        if self.run is None:
            raise UserError("run= is missing; name a run directory or one of its checkpoints")
        if self.episodes < 1:
            raise UserError(f"episodes={self.episodes}: must be at least 1")


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
    options = EvaluateOptions(**cli.parse_arguments(arguments, cli.schema_of(EvaluateOptions)))
    from tdmpc2.runners.evaluate_checkpoint import evaluate_checkpoint  # imports torch

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
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, facts | result.row() | episodes)
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
