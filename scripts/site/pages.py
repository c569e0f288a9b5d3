"""Pages that mkdocs makes from README.md and from the tables of the project (run by gen-files)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import mkdocs_gen_files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ablations.specs import ABLATIONS  # noqa: E402
from tdmpc2.__main__ import COMMANDS  # noqa: E402
from tdmpc2.common.system.config_checks import kinds_of  # noqa: E402
from tdmpc2.envs.tasks import TASKS  # noqa: E402
from tdmpc2.runners.registry import METHODS, agent_class  # noqa: E402

# Modules of the Python interface, in the order of the page.
MODULES = (
    *("tdmpc2.api",),
    *("tdmpc2.config", "tdmpc2.agent", "tdmpc2.world_model", "tdmpc2.planner", "tdmpc2.losses"),
    *("tdmpc2.noise", "tdmpc2.prior", "tdmpc2.regression", "tdmpc2.ensemble", "tdmpc2.layers"),
    *("tdmpc2.common.interfaces", "tdmpc2.common.training.base_agent", "tdmpc2.envs.base"),
    *("tdmpc2.envs.adapters", "tdmpc2.common.replay.episode_replay", "tdmpc2.data.dataset"),
    *("sweeps.planning.request", "ablations.specs", "analysis.stats.aggregate"),
)


def write(path: str, text: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def help_of(command: str) -> str:
    """Return what a command prints with `--help`."""
    line = [sys.executable, "-m", "tdmpc2", command, "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    root = re.escape(str(ROOT))
    aligned = re.sub(rf"{root}(\S*  )", "." + r"\1" + " " * (len(str(ROOT)) - 1), done.stdout)
    return aligned.replace(str(ROOT), ".")


def commands() -> str:
    """Return the page with the help of all commands."""
    parts = [
        "# Commands\n\nWhat each command prints with `--help`. Paths are those of a checkout.\n"
    ]
    for name, command in COMMANDS.items():
        same = f"`tdmpc2 {name}` or `python -m {command.module}`: {command.purpose}.\n"
        parts.append(f"## {name}\n\n{same}\n```text\n{help_of(name).rstrip()}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    """Return the page with the hyperparameters of all methods."""
    parts = [
        "# Settings of the methods\n\nSet with `key=value` in `train`, `sweep` and `ablate`.\n"
    ]
    header = ("setting", "default", "valid values", "meaning")
    for method in METHODS:
        config = agent_class(method).config_class
        kinds, defaults = kinds_of(config), config.make()
        rows = []
        for field in fields(config):
            meaning = field.metadata.get("meaning", "")
            meaning = meaning() if callable(meaning) else meaning
            default = getattr(defaults, field.name)
            rows.append((f"`{field.name}`", f"`{default}`", f"{kinds[field.name]}", meaning))
        parts.append(f"## {method}\n\n{table(header, rows)}")
    return "\n".join(parts)


def tasks() -> str:
    """Return the page with the table of tasks."""
    header = (
        "task",
        "domain",
        "observation",
        "action",
        "repeat",
        "decisions",
        "env steps",
        "score",
    )
    rows = [
        (
            *(f"`{t.name}`", t.domain, t.obs_dim, t.action_dim, t.action_repeat),
            *(t.episode_length, f"{t.env_steps:,}", t.metric),
        )
        for t in TASKS.values()
    ]
    note = (
        "Lengths of observation and action, action repeat, decisions per episode, training budget."
    )
    return f"# Table of tasks\n\n{note}\n\n{table(header, rows)}"


def ablations() -> str:
    """Return the page with the table of ablations."""
    rows = [
        (f"`--{a.name}`", f"`{a.changes}`", a.factor, a.figure or "—", a.claim or "—")
        for a in ABLATIONS
    ]
    header = ("flag", "changes", "group", "source in the paper", "claim")
    return f"# Table of ablations\n\nFlags of `ablate`.\n\n{table(header, rows)}"


def python() -> str:
    """Return the page of the Python interface, from the docstrings."""
    parts = [f"::: {module}\n" for module in MODULES]
    return "# Python interface\n\n" + "\n".join(parts)


write("index.md", (ROOT / "README.md").read_text().replace("(docs/images/", "(images/"))
write("examples.md", (ROOT / "examples" / "README.md").read_text())
write("contributing.md", (ROOT / "CONTRIBUTING.md").read_text())
write("changes.md", (ROOT / "CHANGELOG.md").read_text())
write("reference/commands.md", commands())
write("reference/settings.md", settings())
write("reference/tasks.md", tasks())
write("reference/ablations.md", ablations())
write("reference/python.md", python())
