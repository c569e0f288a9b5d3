"""Evaluate command for runs and checkpoints: `python tdmpc2/evaluate.py run=DIR episodes=10`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import (
    EPISODES,
    REQUIRED,
    SEED,
    THREADS,
    WORKERS,
    Settings,
    setting,
)


@dataclass(frozen=True)
class EvaluateOptions(Settings):
    """Options of the evaluate command."""

    run: Path = setting(REQUIRED, "run directory, or one of its checkpoints/…")
    episodes: int = setting(10, "number of episodes, planned as one batch", EPISODES)
    seed: int = setting(0, "seed of environments and planning noise", SEED)
    device: str = setting("auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 …")
    threads: int | None = setting(None, "CPU threads of torch; default: torch's", THREADS)
    compile: bool | None = setting(None, "torch.compile of planning; default: if it works")
    workers: int | None = setting(
        None,
        "processes that step the environments (0: this process); default: "
        "cores - 1, if that is at least 2",
        WORKERS,
    )
    save_video: bool = setting(False, "write an mp4 of the first episode to the run's videos/")
    out: Path | None = setting(None, "JSON file for the result; default: none")


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
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, facts | result.row() | episodes)
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
