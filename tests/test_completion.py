"""Completion of options and values, by the module and in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablations.command_line import flag_values
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.completion import SHELLS, completions, main
from tdmpc2.envs.tasks import TASKS
from tdmpc2.runners.registry import METHODS, config_class
from tests.test_architecture import ROOT
from tests.test_help import SLOW

PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_of_the_method_in_the_line(method: str) -> None:
    found = completions(f"python tdmpc2/train.py method={method} ")
    assert {f"{name}=" for name in cli.schema_of(config_class(method))} < set(found)
    assert {"task=", "runs=", "physics="} < set(found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("python tdmpc2/train.py obs=", ["obs=state", "obs=rgb"]),
        ("python tdmpc2/train.py task=mt30 data=x --log-e", ["--log-every="]),
        ("python -m tdmpc2.train save_video=t", ["save_video=true"]),
        (f"python {ROOT}/sweeps/launch.py --dry", ["--dry-run"]),
        ("python sweeps/launch.py tasks=dog-run,cup-", [
            f"tasks=dog-run,{name}" for name in TASKS if name.startswith("cup-")
        ]),
        ("python sweeps/launch.py methods=sac alpha", []),
        ("python sweeps/launch.py methods=tdmpc2,dr", ["methods=tdmpc2,dreamerv3"]),
        ("python sweeps/launch.py --cluster ", ["auto", "slurm", "local", "inline"]),
        ("python sweeps/launch.py data=none ", []),  # an invalid argument
        ("python sweeps/status.py fo", ["follow="]),
        ("python tdmpc2/finetune.py init_e", ["init_embedding="]),
        ("python analysis/make_figures.py emb", ["embeddings="]),
        ("python ablations/run.py --num-q", ["--num-q"]),
        ("python ablations/run.py --num-q ", flag_values()["num-q"]),
        ("python ablations/run.py --no-sim", ["--no-simnorm"]),
        ("python ablations/run.py num_q", ["num_q="]),
        ("python tdmpc2/train.py data=x task=mt", ["task=mt30", "task=mt80"]),
        ("python -m tdmpc2.bundle ", ["out=", "runs="]),
        ("python -m tdmpc2.data convert fi", ["files="]),
        ("python -m tdmpc2.data ", []),
        ("python -m tdmpc2.checkpoints fetch dr", ["dry_run="]),
        ("python -m tdmpc2.envs.assets fetch ycb a", ["archive="]),
        ("python tdmpc2/config.py ", []),  # is no command
        ("python -m http.server ", []),
        ("python /etc/hosts ", []),
        ("python ", []),
    ],
)  # fmt: skip
def test_a_line(line: str, found: list[str]) -> None:
    assert completions(line) == found


def test_bad_input() -> None:
    for arguments, message in (([], "one argument"), (["bsh"], "did you mean 'bash'")):
        with pytest.raises(UserError, match=message):
            main(arguments)


def test_nothing_slow_is_imported() -> None:
    lines = [f"python {name} m" for name in ("tdmpc2/train.py", "sweeps/launch.py")]
    code = (
        "import sys; from tdmpc2.completion import completions\n"
        f"for line in {[*lines, 'python ablations/run.py --n']}: assert completions(line), line\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert SLOW.isdisjoint(done.stdout.split())


class Bash:
    """An interactive bash in a terminal of its own."""

    def __init__(self) -> None:
        process, self.terminal = pty.fork()
        if not process:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            more = {"PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "PS1": "$ "}
            os.execve(shutil.which("bash"), ["bash", "--norc", "--noprofile"], os.environ | more)

    def type(self, keys: str, expected: str) -> str:
        """Type some keys and return what is shown until the expected text."""
        os.write(self.terminal, keys.encode())
        shown, deadline = "", time.monotonic() + PATIENCE
        while expected not in shown and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 1.0)[0]:
                shown += os.read(self.terminal, 4096).decode(errors="replace")
        return shown.replace("\a", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_a_real_bash() -> None:
    """What the tab key adds: a key, a value after the equals sign, and the flag of an ablation."""
    bash = Bash()
    try:
        script = 'eval "$(python -m tdmpc2.completion bash)"; echo rea""dy\n'
        assert "ready\r\n" in bash.type(script, "ready\r\n")
        assert "suite=smoke" in bash.type("python sweeps/launch.py sui\tsmo\t", "suite=smoke")
        # The cursor follows the "=", without a blank; after a value there is one.
        assert "cluster=slurm dry_run=" in bash.type("clus\tsl\tdry\t", "dry_run=")
        bash.type("\x15", "")
        shown = bash.type("python ablations/run.py --no-sim\t", "--no-simnorm")
        assert "--no-simnorm" in shown
    finally:
        os.close(bash.terminal)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([shell]) == 0
    script = capsys.readouterr().out
    assert "tdmpc2.completion" in script
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)
