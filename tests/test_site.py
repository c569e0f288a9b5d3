"""The documentation: the site builds without a warning, and commands in it are valid."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.planning.request import SweepRequest
from tdmpc2 import train
from tdmpc2.common.system.errors import UserError
from tests.test_architecture import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_OURS = ("-m pytest", "-m build", "-m pip", "bundle/", "-c ")
UNKNOWN = "no_such_option=1"
PARSERS = {"tdmpc2/train.py": train.parse, "sweeps/launch.py": SweepRequest.from_arguments}
ELSEWHERE = ("--help", "data=", "my_module:", "task=my-")  # needs files that a reader has


def commands() -> list[tuple[str, str]]:
    """Each command of the project in a block of code, with the page that shows it."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            joined = re.sub(r"\\\n\s*", "", block)
            for line in joined.splitlines():
                text = line.partition(" #")[0].strip()
                if re.match(
                    r"(\w+=\S+ )*(python3? (-m )?[\w./]+|tdmpc2 \w+( |$)(?! ))", text
                ) and not any(part in text for part in NOT_OURS):
                    found.append((page.name, text))
    return list(dict.fromkeys(found))


def test_the_site_builds_offline_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    environment |= {"http_proxy": "localhost:9", "https_proxy": "localhost:9"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    pages = {path.name for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "tutorial.html", "settings.html", "python.html"} <= pages
    html = (tmp_path / "site" / "index.html").read_text()
    assert 'href="examples.html"' in html
    assert "not included in the" not in done.stderr
    assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"', html)


SAYING_YES = [(page, text) for page, text in commands() if re.search(r"(--yes|yes=true)\b", text)]


@pytest.mark.parametrize(("page", "command"), SAYING_YES)
def test_a_shown_command_that_starts_without_a_question_takes_less_than_a_day(
    page: str, command: str, tmp_path: Path
) -> None:
    parts = [word for word in shlex.split(command)[1:] if word not in ("yes=true", "--yes")]
    done = subprocess.run(
        [sys.executable, *parts, "dry_run=true", "cluster=local", "device=cpu", f"runs={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    hours = re.search(r"Remaining time: about ([\d.]+) (min|h) on one core", done.stdout)
    assert hours is not None, done.stdout
    assert hours[2] == "min" or float(hours[1]) < 24


def test_many_commands_are_shown() -> None:
    assert len(commands()) > 60


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_shown_command_has_known_options(page: str, command: str, tmp_path: Path) -> None:
    """With one unknown option more, the command names this option only, and does nothing."""
    parts = [w for w in shlex.split(command) if not w.startswith("[")]
    while "=" in parts[0]:  # environment variables
        parts.pop(0)
    start = [sys.executable, "-m", "tdmpc2"] if parts[0] == "tdmpc2" else [sys.executable]
    done = subprocess.run(
        [*start, *parts[1:], UNKNOWN],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "--help" in parts:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert "no_such_option" in done.stderr, (command, done.stderr)


@pytest.mark.parametrize(
    ("page", "command"),
    [
        (page, command)
        for page, command in commands()
        if any(f" {name} " in command for name in PARSERS)
        and not any(part in command for part in ELSEWHERE)
    ],
)
def test_shown_runs_have_valid_values(page: str, command: str) -> None:
    """Tasks, suites, methods and ranges, too; nothing is started."""
    name, *arguments = shlex.split(command.partition("python ")[2])
    PARSERS[name](arguments)


def test_an_invalid_value_would_be_found() -> None:
    with pytest.raises(UserError, match="mt31"):
        PARSERS["sweeps/launch.py"](["suite=mt31"])
