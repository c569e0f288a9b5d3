"""Cost of multi-task runs, against hand-computed values."""

from __future__ import annotations

import pytest

from analysis.records.multitask_costs import read_cost
from tests.analysis.multitask_files import write_multitask_run

H200 = {"device": "cuda", "gpu": "NVIDIA H200", "cpu": "AMD EPYC"}


def test_days_follow_from_the_median_rate(tmp_path):
    run = write_multitask_run(tmp_path, {}, rates=(1.0, 50.0, 100.0), numeric=H200)
    problems = []
    cost = read_cost(run, problems)
    assert problems == []
    assert (cost.kind, cost.device, cost.processes) == ("GPU", "NVIDIA H200", 1)
    assert cost.days(50 * 86_400 * 3) == pytest.approx(3)


def test_every_process_takes_a_device(tmp_path):
    numeric = {"device": "cpu", "cpu": "AMD EPYC", "split": "4 processes x 2 parts"}
    cost = read_cost(write_multitask_run(tmp_path, {}, rates=(1.0,), numeric=numeric), [])
    assert (cost.kind, cost.device, cost.days(86_400)) == ("CPU", "AMD EPYC", pytest.approx(4))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("numeric.json", None, "is missing"),
        ("numeric.json", "{", "invalid JSON"),
        ("numeric.json", '{"device": "tpu"}', "unknown device 'tpu' (valid: cpu, cuda)"),
        ("timing.csv", None, "no timing yet"),
        ("timing.csv", "num_updates,seconds\n1,1\n", "missing column updates_per_second"),
        (
            "timing.csv",
            "updates_per_second\n0\n",
            "updates_per_second is 0, must be above 0; line skipped",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, name, content, what):
    run = write_multitask_run(tmp_path, {})
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    problems = []
    assert read_cost(run, problems) is None
    (problem,) = problems
    assert problem.where == f"{run / name}"
    assert what in problem.what
