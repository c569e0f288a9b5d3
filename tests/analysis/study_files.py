"""Folders of studies for tests: two claims at looks of 2 and 3 seeds on one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REGISTERED = """\
label = "tasks"
seeds = [1, 2, 3]
looks = [2, 3]
margin = 5.0

[tests]
family_level = 0.05

[tasks]
"walker-walk" = 200000

[[claims]]
name = "no-x"
method = "tdmpc2"
variant = "no-x"
base_method = "tdmpc2"
base = "default"
expected = "lower"
text = "x is <b>needed</b>"

[[claims]]
name = "other-y"
method = "tdmpc2"
variant = "other-y"
base_method = "tdmpc2"
base = "default"
text = ""
"""
RESULTS = """\
seeds,claim,expected,difference,standard_error,freedom,low,high,decision,missing_runs
2,no-x,lower,-20.0,1.0,2.0,-24.3,-15.7,supported,0
2,other-y,,1.0,2.0,2.0,-7.6,9.6,next look,0
3,other-y,,0.5,1.0,4.0,-2.3,3.3,no difference,0
"""
WAITING = "3,other-y,,,,,,,waits for runs,2\n"
BOUNDARIES = """\
seeds,claim,decision,low,high
2,no-x,supported,-inf,-15.0
2,no-x,contradicted,20.0,inf
2,other-y,lower,-inf,-25.0
3,other-y,no difference,-4.0,4.0
3,other-y,higher,9.0,inf
"""
HEAD = "method,variant,task,seed,registered,hours,unit,directory\n"
HOURS = {"default": (1.0, 2.0, 3.0), "no-x": (4.0, 5.0), "other-y": (0.5, 0.5, 0.5)}
"""Hours of the runs of each variant; "no-x" needs no third seed."""


def run_lines(variant: str, hours: Sequence[float | None], *, registered: bool = True) -> str:
    """Return the lines of `runs.csv` of the first seeds of a variant; None is an unknown time."""
    return "".join(
        f"tdmpc2,{variant},walker-walk,{seed},{registered},"
        + (f",,seed{seed}\n" if one is None else f"{one},core-hours,seed{seed}\n")
        for seed, one in enumerate(hours, start=1)
    )


def write_study_folder(
    runs: Path,
    *,
    results: str = RESULTS,
    run_rows: str | None = "".join(run_lines(name, hours) for name, hours in HOURS.items()),
) -> Path:
    """Write the folder of a study that has begun, and return it.

    Args:
        runs: folder of all runs.
        results: content of `decisions.csv`.
        run_rows: lines of `runs.csv`; without the file if None.
    """
    folder = runs / "studies" / "tasks-0123abcd"
    folder.mkdir(parents=True)
    files = {
        "registered.toml": REGISTERED,
        "study.toml": REGISTERED,
        "decisions.csv": results,
        "boundaries.csv": BOUNDARIES,
        **({} if run_rows is None else {"runs.csv": HEAD + run_rows}),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
