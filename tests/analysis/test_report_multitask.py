"""The report's page on multi-task agents."""

from __future__ import annotations

import pytest

from analysis import report
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.report_files import content
from tests.analysis.run_files import write_run


@pytest.mark.parametrize("single", [True, False])
def test_runs_of_several_tasks_have_a_page(tmp_path, single):
    if single:
        write_run(tmp_path / "runs", {0: 1.0, 1000: 2.0})
    facts = {"task_set": "mine", "num_parameters": 5_000_000, "state": "DIVERGED"}
    points = {0: (0.0, 0.0), 864_000: (30.0, 50.0)}
    write_multitask_run(tmp_path / "runs", points, **facts)
    out = tmp_path / "report.html"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200"]) == 0
    data = content(tmp_path)
    assert [task["name"] for task in data["tasks"]] == ["walker-walk"] * single
    assert "1 multi-task run (1 on mine): on the page Multi-task" in data["facts"]
    page = data["multitask"]
    sizes = [dict(zip(page["sizes"]["columns"], row, strict=True)) for row in page["sizes"]["rows"]]
    own = sizes[0]
    assert (own["agents"], own["tasks"], own["score (%)"]) == ("TD-MPC2", "mine", "40.0")
    # 864,000 updates take one day at 10 per second.
    assert (own["updates"], own["days"]) == ("864,000", "1 CPU-days")
    assert len(sizes) == 9
    claims = page["claims"]
    row = dict(zip(claims["columns"], claims["rows"][0], strict=True))
    assert (row["verdict"], row["remark"]) == ("open", "no published score")
    assert [row[2:] for row in page["tasks"]["rows"]] == [
        ["Walker Walk", "30.0"],
        ["Reach", "50.0"],
    ]
    assert ["mine", "diverged"] in [row[1:4:2] for row in data["audit"]["rows"]]


def test_without_runs_of_several_tasks_there_is_no_page(tmp_path):
    write_run(tmp_path / "runs", {0: 1.0, 1000: 2.0})
    arguments = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'report.html'}", "reps=200"]
    assert report.main(arguments) == 0
    assert content(tmp_path)["multitask"] is None
