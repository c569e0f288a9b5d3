"""Command: render a frame of every task, for the gallery of `analysis/make_figures.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import cannot_write
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import Task, get_suite, list_tasks


@dataclass(frozen=True)
class FrameOptions(Settings):
    """Options of the command."""

    out: Path = setting(REQUIRED, "output folder; a frame is written to <task>.png")
    tasks: str | None = setting(None, "only these tasks, NAME,NAME; default: all 104 tasks")
    seed: int = setting(1, "seed of the environments", low=0, high=2**31 - 1)


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python tdmpc2/frames.py out=DIR [key=value …]

Renders the first frame of an episode of every task. Tasks that this machine cannot
render are listed and left out.

{cli.describe_fields(FrameOptions)}

Exit code: 0 at least one frame was written; 2 bad input, or no task can be rendered."""


def main(arguments: Sequence[str]) -> int:
    """Render the frames, and print the folder.

    Args:
        arguments: `key=value` options; see `usage`.

    Raises:
        UserError: no task can be rendered, or the folder cannot be written to.
    """
    options = cli.parse_options(arguments, FrameOptions)
    tasks = get_suite("all104") if options.tasks is None else list_tasks(options.tasks)
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"out={options.out} is a file, not a folder")
    from tqdm import tqdm

    missing: dict[str, list[str]] = {}
    bar = tqdm(tasks, desc="rendering", unit="task", leave=False, disable=None)
    for task in bar:
        bar.set_postfix_str(task.name)
        try:
            _write_frame(task, options)
        except UserError as error:
            missing.setdefault(str(error).replace(f"'{task.name}' ", ""), []).append(task.name)
        except OSError as error:
            raise UserError(cannot_write(f"to out={options.out}", error)) from error
    count = len(tasks) - sum(map(len, missing.values()))
    reasons = [f"not rendered: {', '.join(names)}: {why}" for why, names in missing.items()]
    if not count:
        raise UserError(
            f"no task can be rendered here; {'; '.join(reasons)}; see `python -m tdmpc2.doctor`"
        )
    for reason in reasons:
        print(f"warning: {reason}", file=sys.stderr)
    print(f"{count} frames in {options.out}")
    return 0


def _write_frame(task: Task, options: FrameOptions) -> None:
    """Render the first frame of an episode, and write it as PNG.

    Raises:
        UserError: the task cannot be rendered on this machine.
    """
    from PIL import Image

    from tdmpc2.envs.factory import make_env

    env = make_env(task, seed=options.seed, render=True)
    try:
        env.reset()
        frame: Any = env.render()
    finally:
        env.close()
    options.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(options.out / f"{task.name}.png")


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
