"""Own runs at the paper's settings beside the released seeds: tables, figure, command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import claims
from analysis import evidence as command
from analysis.figures.figure_specs import FigureSpec
from analysis.figures.page import paper_style
from analysis.figures.registry import shipped_catalog
from analysis.ledger.inputs import Inputs
from analysis.ledger.own_runs import (
    RUN_TABLE,
    VERDICT_TABLE,
    machine,
    run_table,
    verdict_table,
)
from analysis.ledger.rendering import with_part
from analysis.records.load import load, load_curves, merge
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import recorded_folders
from tests.analysis.pictures import assert_nothing_overlaps_or_is_clipped, draw
from tests.analysis.run_files import HEADER, eval_line, write_run, write_table
from tests.test_architecture import ROOT

STEPS = (0, 100_000, 200_000)
NUMERIC = {
    "device": "cpu",
    "cpu": "A CPU",
    "cpu_capability": "AVX2",
    "threads": 1,
    "precision": "fp32",
    "bf16_kernels": False,
}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Released curves of a task with returns and of one with success."""
    tasks = (("walker-walk", "reward", (900, 910, 920)), ("mw-reach", "success", (1, 0.8, 1)))
    for task, metric, scores in tasks:
        lines = [
            f"{step},{score * step / 200_000},{seed}"
            for step in STEPS
            for seed, score in enumerate(scores, start=1)
        ]
        path = tmp_path / "paper" / "tdmpc2" / f"{task}.csv"
        write_table(path, f"step,{metric},seed", lines)
    return tmp_path / "paper"


def inputs_of(runs: Path, released: Path) -> Inputs:
    return Inputs.read([runs], released, shipped_catalog())


def rows(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without header."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_tables_of_the_documentation_are_current(published_curves: Path) -> None:
    """If this fails: make evidence."""
    inputs = Inputs.read(recorded_folders(), published_curves, shipped_catalog())
    verdicts = verdict_table(inputs)
    page, readme = ((ROOT / name).read_text() for name in ("docs/evidence.md", "README.md"))
    assert page == with_part(page, RUN_TABLE, run_table(inputs))
    assert page == with_part(page, VERDICT_TABLE, verdicts)
    assert readme == with_part(readme, VERDICT_TABLE, verdicts)


def test_seeds_stand_side_by_side_at_the_common_step(tmp_path: Path, released: Path) -> None:
    for seed, score in ((2, 455.0), (1, 450.0), (3, 452.0)):
        write_run(tmp_path / "runs", {0: 0.0, 100_000: score}, seed=seed)
    facts = {"task": "mw-reach", "domain": "metaworld", "metric": "success"}
    for seed, score in ((1, 0.5), (2, 0.4)):
        write_run(tmp_path / "runs", {0: 0.0, 100_000: score}, seed=seed, **facts)
    walker, reach = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert walker[:4] == [
        *("TD-MPC2, `walker-walk`", "100,000 (50 %)", "450, 455, 452", "450, 455, 460")
    ]
    assert walker[4].startswith("-0.3 [")
    assert walker[5] == "reproduced so far"
    assert reach[2:4] == ["50, 40 %", "50, 40, 50 %"]
    assert reach[5] == "not enough data"


def test_a_run_that_ends_before_the_released_curves_is_shown_at_its_own_step(
    tmp_path: Path, released: Path
) -> None:
    write_run(tmp_path / "runs", {0: 0.0, 40_000: 945.0}, state="INTERRUPTED")
    ((_, *row),) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert row == [
        *("40,000 (1 %)", "945", "at 100,000: 450, 455, 460", "–", "not enough data"),
    ]


def test_runs_at_other_settings_are_not_listed(tmp_path: Path, released: Path) -> None:
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 945.0}, variant="smoke", model_size="smoke")
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 945.0}, seed=2, overrides={"lr": 1e-3})
    inputs = inputs_of(tmp_path / "runs", released)
    assert (verdict_table(inputs), run_table(inputs)) == ("", "")


def test_runs_of_any_precision_are_compared_together(tmp_path: Path, released: Path) -> None:
    """Of two runs with the same seed, the one that was evaluated further counts."""
    for seed, score in ((1, 450.0), (2, 455.0)):
        tf32 = {"variant": "precision-tf32", "overrides": {"precision": "tf32"}}
        write_run(tmp_path / "runs", {0: 0.0, 100_000: score}, seed=seed, **tf32)
    write_run(tmp_path / "runs", {0: 0.0, 50_000: 1.0}, seed=1)
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 452.0}, seed=3)
    inputs = inputs_of(tmp_path / "runs", released)
    (row,) = rows(verdict_table(inputs))
    assert row[:3] == ["TD-MPC2, `walker-walk`", "100,000 (50 %)", "450, 455, 452"]
    assert len(rows(run_table(inputs))) == 4


def test_runs_from_pixels_have_rows_of_their_own(tmp_path: Path, released: Path) -> None:
    """One seed from states and from pixels, the latter in any precision."""
    lines = [f"{step},{0.7 * step / 200},{seed}" for step in STEPS for seed in (1, 2, 3)]
    pixels = released / "tdmpc2-pixels" / "walker-walk.csv"
    write_table(pixels, "step,reward,seed", lines)
    bf16 = {"variant": "precision-bf16", "overrides": {"precision": "bf16"}}
    for seed in (1, 2):
        write_run(tmp_path / "runs", {0: 0.0, 100_000: 450.0 + seed}, seed=seed)
        facts = {"obs": "rgb", "tag": "pixels", **(bf16 if seed == 2 else {})}
        write_run(tmp_path / "runs", {0: 0.0, 100_000: 350.0 + seed}, seed=seed, **facts)
    write_run(tmp_path / "runs", {0: 0.0, 50_000: 9.0}, obs="rgb", tag="bf16", **bf16)
    inputs = inputs_of(tmp_path / "runs", released)
    assert [row[::2][:2] for row in rows(verdict_table(inputs))] == [
        ["TD-MPC2, `walker-walk`", "451, 452"],
        ["TD-MPC2, `walker-walk` (pixels)", "351, 352"],
    ]
    names = [row[0] for row in rows(run_table(inputs))]
    assert sum("(pixels)" in name for name in names) == 3
    assert len(names) == 5


def test_of_records_of_one_seed_that_reach_equally_far_the_finished_one_counts(
    tmp_path: Path, released: Path
) -> None:
    bf16 = {"variant": "precision-bf16", "overrides": {"precision": "bf16"}}
    write_run(tmp_path / "runs", {0: 0.0, 40_000: 945.0}, state="INTERRUPTED")
    write_run(tmp_path / "runs", {0: 0.0, 40_000: 918.0}, budget=40_000, **bf16)
    (row,) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert row[2] == "918"


def test_a_seed_that_is_not_compared_is_named(tmp_path: Path, released: Path) -> None:
    """Whether it has no score at the common step, or one that its later evaluations replace."""
    for seed, last in ((1, 100_000), (2, 100_000), (3, 50_000)):
        write_run(tmp_path / "runs", {0: 0.0, last: 450.0 + seed}, seed=seed, state="INTERRUPTED")
    (row,) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert row[2:4] == ["451, 452; seed 3 is at 50,000 env steps", "450, 455, 460"]


def test_one_seed_at_the_first_released_score_is_shown_without_the_others(
    tmp_path: Path, released: Path
) -> None:
    for seed, last in ((1, 50_000), (2, 100_000), (3, 50_000)):
        write_run(tmp_path / "runs", {0: 0.0, last: 450.0 + seed}, seed=seed, state="INTERRUPTED")
    (row,) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    left_out = "seed 1 is at 50,000 env steps; seed 3 is at 50,000 env steps"
    assert row[1:4] == ["100,000 (50 %)", f"452; {left_out}", "450, 455, 460"]
    assert row[5] == "not enough data"


def test_the_end_of_a_completed_run_must_be_recorded(tmp_path: Path, released: Path) -> None:
    """Its last value is not a score at a step at which it was not evaluated."""
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", {0: 0.0, 50_000: 300.0 + seed}, seed=seed)
    (row,) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert row[1:3] == ["50,000 (1.25 %)", "301, 302, 303"]
    assert row[5] == "not enough data"


def test_released_scores_are_those_that_are_compared(tmp_path: Path, released: Path) -> None:
    """If no evaluation is common, they lie between two released ones."""
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", {0: 0.0, 150_000: 680.0 + seed}, seed=seed, budget=150_000)
    (row,) = rows(verdict_table(inputs_of(tmp_path / "runs", released)))
    assert row[1:4] == ["150,000 (75 %)", "681, 682, 683", "675, 682, 690"]


def test_a_precision_with_another_setting_is_another_setting(
    tmp_path: Path, released: Path
) -> None:
    named = {"variant": "precision-tf32", "overrides": {"precision": "tf32", "lr": 1e-3}}
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 450.0}, **named)
    assert not run_table(inputs_of(tmp_path / "runs", released))


def test_every_run_is_listed_with_its_machine_and_state(tmp_path: Path, released: Path) -> None:
    done = write_run(tmp_path / "runs", {0: 1.0, 50_000: 300.0, 100_000: 900.0})
    status = {"state": "COMPLETED", "env_step": 100_000, "env_steps_per_second": 10.0}
    (done / "status.json").write_text(json.dumps(status))
    (done / "numeric.json").write_text(json.dumps(NUMERIC))
    attempts = [{"commit": "1234567890abcdef"}, {"commit": "1234567890abcdef"}]
    (done / "attempts.json").write_text(json.dumps(attempts))
    write_run(tmp_path / "runs", {0: 1.0, 30_000: 2.0, 40_000: 3.0}, seed=2, state="INTERRUPTED")
    first, second = rows(run_table(inputs_of(tmp_path / "runs", released)))
    assert first == [
        *("TD-MPC2, `walker-walk`, seed 1", "`1234567890`", "A CPU, AVX2, fp32, 1 thread"),
        "completed, 100,000 env steps, 2.8 core-hours",
        "every 50,000 env steps: 1, 300, 900 (10 episodes)",
    ]
    assert second[3:] == [
        "stopped, evaluated up to 40,000 of 100,000",
        "1 at 0, 2 at 30,000, 3 at 40,000 (10 episodes)",
    ]


def test_a_run_without_budget_and_a_file_with_repeated_lines_are_listed(
    tmp_path: Path, released: Path
) -> None:
    text = "".join(
        [f"{HEADER}\n", *(eval_line(*at) for at in ((200, 3), (0, 1), (100, 4), (100, 2)))]
    )
    for seed, state in ((1, "COMPLETED"), (2, "RUNNING")):
        write_run(tmp_path / "runs", {}, seed=seed, state=state, eval_csv=text, budget=None)
    first, second = rows(run_table(inputs_of(tmp_path / "runs", released)))
    assert first[3:] == ["completed", "every 100 env steps: 1, 3, 3 (10 episodes)"]
    assert second[3:] == ["stopped, evaluated up to 200 env steps", first[4]]


def test_records_that_are_left_out_are_named(
    tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table must not look complete if a run is missing."""
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 450.0}, task="toy-pointmass")
    damaged = write_run(tmp_path / "runs", {0: 0.0, 100_000: 450.0}, seed=2) / "spec.json"
    damaged.write_text("{")
    sources = [f"runs={tmp_path / 'runs'}", f"published={released}"]
    assert command.main(sources) == 0
    printed = capsys.readouterr()
    assert f"error: {damaged}:1: invalid JSON" in printed.err
    assert printed.out.startswith("| run |")  # nothing to compare, and no blank lines
    assert claims.main(sources) == 0
    assert f"error: {damaged}:1: invalid JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "A CPU, AVX2, fp32, 1 thread"),
        ({"bf16_kernels": True, "precision": "bf16", "cpu_capability": "AVX512", "threads": 2},
         "A CPU, AVX-512, bf16, native kernels, 2 threads"),
        ({"device": "cuda:0", "gpu": "A GPU", "precision": "tf32", "seed_batch": "1 of 3"},
         "A GPU, tf32, batch of 3 seeds"),
    ],
)  # fmt: skip
def test_the_machine_of_a_run(facts: dict[str, object], expected: str) -> None:
    assert machine({**NUMERIC, **facts}) == expected
    assert machine({}) == ""


def test_the_figure_shows_our_runs_and_the_released_seeds_they_can_be_compared_with(
    tmp_path: Path, released: Path
) -> None:
    write_run(tmp_path / "runs", {0: 1.0, 20_000: 300.0, 40_000: 900.0})
    write_run(tmp_path / "runs", {0: 1.0, 40_000: 900.0}, task="cup-catch")
    records = merge([load(tmp_path / "runs"), load_curves(released, "published")])
    with paper_style():
        drawing = draw(records, FigureSpec("evidence", "own_and_released"))
        (page,) = drawing.pages
        assert_nothing_overlaps_or_is_clipped(page)
    numbers = drawing.numbers
    assert set(numbers["task"]) == {"walker-walk"}  # the only one with both
    ours, theirs = (numbers[numbers["source"] == name] for name in ("runs", "published"))
    assert ours["value"].tolist() == [1.0, 300.0, 900.0]
    assert sorted(set(theirs["step"])) == [0, 100_000]  # the first that our run has not passed
    lines = page.figure.axes[0].lines
    assert [line.get_linestyle() for line in lines].count("None") == 3


def test_without_released_curves_the_figure_is_empty(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {0: 1.0, 20_000: 300.0})
    assert draw(load(tmp_path / "runs"), FigureSpec("evidence", "own_and_released")).pages == ()


def test_the_command_replaces_the_tables(tmp_path: Path, released: Path) -> None:
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 450.0})
    parts = "".join(f"<!-- {n}: begin -->\nold\n<!-- {n}: end -->\n" for n in ("verdicts", "runs"))
    page, readme = tmp_path / "evidence.md", tmp_path / "README.md"
    for path in (page, readme):
        path.write_text(f"before\n{parts}after\n")
    sources = [f"runs={tmp_path / 'runs'}", f"published={released}"]
    assert command.main([*sources, f"page={page}", f"readme={readme}"]) == 0
    assert page.read_text().count("`walker-walk`") == 2
    assert readme.read_text().count("`walker-walk`") == 1
    for path in (page, readme):
        assert path.read_text().startswith("before\n<!-- verdicts: begin -->\n| method, task |")
        assert path.read_text().endswith("<!-- runs: end -->\nafter\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=/nowhere"], "runs=/nowhere does not exist"),
        (["published=/nowhere"], "published=/nowhere does not exist"),
        ([], "the released curves are missing"),
        (["published={paper}"], "no run at the paper's settings in {runs}"),
        (["published={paper}", "runs={full}", "page=/nowhere/page.md"], "page=/nowhere/page.md"),
        (["published={paper}", "runs={full}", "page={paper}"], "page={paper}"),
        (["published={paper}", "runs={full}", "readme={file}"], "verdicts: begin --> and"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, released: Path
) -> None:
    write_run(tmp_path / "full", {0: 0.0, 100_000: 450.0})
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.md").write_text("no table\n")
    names = {
        **{"paper": released, "runs": tmp_path / "empty"},
        **{"full": tmp_path / "full", "file": tmp_path / "page.md"},
    }
    given = [one.format(**names) for one in arguments]
    if not any(one.startswith("runs=") for one in given):
        given.append(f"runs={tmp_path / 'empty'}")
    with pytest.raises(UserError) as caught:
        command.main(given)
    assert message.format(**names) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "page.md").read_text() == "no table\n"
