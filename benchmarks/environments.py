"""Measure speed and memory of environments: `python benchmarks/environments.py suite=all104`.

Each task runs in its own process, one after the other, with random actions. Prints a Markdown
table; `out=FILE.csv` also writes it as CSV.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks import check_file

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.config_checks import EPISODES, Settings, setting
from tdmpc2.envs.assets.find import check_sources
from tdmpc2.envs.tasks import SUITES, get_suite

_MEASURE = """
import json, resource, sys, time
from tdmpc2.envs.factory import make_env
start = time.perf_counter()
env = make_env(sys.argv[1], seed=0, assets=sys.argv[2])
made = time.perf_counter()
env.action_space.seed(0)
episodes, decisions, resets = int(sys.argv[3]), 0, 0.0
begin = time.perf_counter()
for _ in range(episodes):
    before = time.perf_counter()
    env.reset()
    resets += time.perf_counter() - before
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        done = terminated or truncated
        decisions += 1
elapsed = time.perf_counter() - begin
env.close()
print(json.dumps({
    "make_s": round(made - start, 2),
    "reset_ms": round(1e3 * resets / episodes, 1),
    "decisions_per_s": round(decisions / elapsed),
    "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
}))
"""


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    suite: str = setting("all104", lambda: " | ".join(sorted(SUITES)))
    episodes: int = setting(3, "episodes of each task", EPISODES)
    ycb: str = setting("official", "source of pick-ycb's models")
    faucet: str = setting("official", "source of turn-faucet's models")
    out: Path | None = setting(None, "also write a CSV file")


def parse(arguments: Sequence[str]) -> Options:
    """Return the options.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    get_suite(options.suite)
    for wanted in (options.ycb, options.faucet):
        check_sources(wanted)
    check_file("out", options.out)
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 1 if a task could not be measured.

    Raises:
        UserError: an invalid option.
    """
    options = parse(arguments)
    rows = []
    for task in get_suite(options.suite):
        assets = {"ycb": options.ycb, "faucet": options.faucet}.get(task.assets or "", "official")
        command = [sys.executable, "-c", _MEASURE, task.name, assets, str(options.episodes)]
        done = subprocess.run(command, capture_output=True, text=True)
        row = {
            "task": task.name,
            "domain": task.domain,
            "obs_dim": task.obs_dim,
            "action_dim": task.action_dim,
        }
        if done.returncode:
            print(f"{task.name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
            continue
        rows.append({**row, **json.loads(done.stdout)})
        if len(rows) == 1:
            print(f"{platform.processor() or platform.machine()}, Python {sys.version.split()[0]}")
            print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        print("| " + " | ".join(str(value) for value in rows[-1].values()) + " |", flush=True)
        if options.out is not None:
            write_text(options.out, as_csv(rows))
    return 0 if len(rows) == len(get_suite(options.suite)) else 1


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with equal keys as the text of a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
