"""Search for files below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from analysis.records.file_search import files_below
from analysis.records.load import load_curves
from tests.analysis.run_files import write_table


def test_linked_folders_are_searched_and_circles_end(tmp_path: Path) -> None:
    inside, outside = tmp_path / "curves", tmp_path / "elsewhere"
    for file in (inside / "a.csv", inside / "sub" / "b.csv", outside / "c.csv"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (inside / "b.txt").touch()
    (inside / "folder.csv").mkdir()
    (inside / "broken.csv").symlink_to("nowhere")
    os.mkfifo(inside / "pipe.csv")
    (inside / "link").symlink_to(outside)
    (inside / "twice").symlink_to(outside)
    (inside / "sub" / "up").symlink_to(inside)
    (outside / "back").symlink_to(inside)
    names = [str(path.relative_to(inside)) for path in files_below(inside, "*.csv")]
    assert names == ["a.csv", "link/c.csv", "sub/b.csv", "twice/c.csv"]
    assert files_below(tmp_path / "missing", "*.csv") == []


def test_curves_of_a_linked_method_are_read(tmp_path: Path) -> None:
    """As a user who links the results of several methods into one folder has them."""
    write_table(tmp_path / "archive" / "walker-walk.csv", "step,reward,seed", ["0,4.5,1"])
    curves = tmp_path / "curves"
    curves.mkdir()
    (curves / "theirs").symlink_to(tmp_path / "archive")
    (run,) = load_curves(curves, "lab").runs.to_dict("records")
    assert (run["method"], run["task"]) == ("theirs", "walker-walk")
