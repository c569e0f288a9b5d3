"""Gallery of task frames (appendix B)."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.image
import pandas as pd

from analysis.figures.line_plots import in_table_order, pages_of
from analysis.figures.page import canvas, finish_figure, set_title
from analysis.figures.styles import Drawing, Shown
from analysis.records.problems import Problem
from tdmpc2.envs.tasks import TASKS

_WIDTH, _HEIGHT = 1.09, 1.15
"""Least width and height of a frame with its title, in inches."""


def gallery(shown: Shown) -> Drawing:
    """Draw the frames in `frames=DIR`, `<task>.png`, in the order of the task table.

    `python tdmpc2/frames.py` renders them, as far as the machine has a renderer.
    """
    if shown.frames is None:
        return Drawing((), pd.DataFrame())
    found = [path for path in shown.frames.glob("*.png") if path.is_file()]
    files = {path.stem: path for path in found if path.stem in TASKS}
    numbers = pd.DataFrame(
        [(task, TASKS[task].domain, files[task].name) for task in in_table_order(list(files))],
        columns=["task", "domain", "file"],
    )
    if numbers.empty:
        problem = Problem(str(shown.frames), None, "no <task>.png of a task of the suite")
        return Drawing((), numbers, problems=(problem,))
    pages = []
    for _, own in numbers.groupby("domain", sort=False):
        for tasks in pages_of(own["task"].tolist(), shown.spec.per_page):
            page, axes = canvas(len(tasks), shown.layout, least_width=_WIDTH, height=_HEIGHT)
            for ax, task in zip(axes, tasks, strict=True):
                ax.imshow(matplotlib.image.imread(files[task]))
                ax.set_axis_off()
                set_title(page, ax, TASKS[task].title)
            named = shown.catalog.groups
            domain = own["domain"].iloc[0]
            label = named[domain].label if domain in named else domain
            page.suptitle(label, x=0.01, ha="left", fontweight="bold")
            what = f"{label}: one rendered frame of each of {len(tasks)} tasks."
            finish_figure(page, (), [what])
            pages.append(page)
    return Drawing(pages, numbers)


GALLERY_PLOTS: dict[str, Callable[[Shown], Drawing]] = {"gallery": gallery}
