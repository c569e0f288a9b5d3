"""Power in the plan of a launch: comparisons, sources of the spreads, and what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations import run as ablations_run
from sweeps import launch
from sweeps.planning.options import SweepOptions
from sweeps.planning.request import SweepRequest
from sweeps.studies.power_lines import TITLE, power_lines
from tests.analysis.run_files import write_run, write_table

STEPS = 200_000
VARIANTS = (("default", {}), ("two", {"num_q": 2}), ("ten", {"num_q": 10}))


def request(runs: Path, *, variants: tuple = VARIANTS, **options) -> SweepRequest:
    chosen = {"tasks": "walker-walk", "env_steps": STEPS, **options}
    return SweepRequest(SweepOptions(**chosen), {"runs": runs}, variants=variants)


def lines(tmp_path: Path, wanted: SweepRequest, **claims) -> list[str]:
    return power_lines(wanted, claims, 5.0, tmp_path / "paper")


@pytest.fixture
def released(tmp_path: Path) -> None:
    """Three seeds that spread by 5 points (returns by 50), evaluated twice."""
    for method in ("tdmpc2", "sac"):
        rows = [
            f"{step},{score},{seed}"
            for step in (0, STEPS // 2, STEPS)
            for seed, score in enumerate((450, 500, 550), start=1)
        ]
        write_table(tmp_path / "paper" / method / "walker-walk.csv", "step,reward,seed", rows)


def complete(wanted: SweepRequest, scores: tuple[float, ...], variant: str = "default") -> None:
    """Write completed runs of a variant, in the folders that the plan gives them."""
    chosen = [run for run in wanted.planned if run.spec.variant == variant]
    for run, score in zip(chosen, scores, strict=True):
        write_run(
            wanted.runs,
            {0: 0.0, STEPS: score},
            variant=variant,
            seed=run.spec.seed,
            budget=STEPS,
            overrides=dict(run.spec.overrides),
            tag=run.directory.name.partition("-")[2],
        )


@pytest.mark.usefixtures("released")
def test_one_line_per_claim(tmp_path: Path) -> None:
    title, lower, undirected = lines(tmp_path, request(tmp_path / "runs"), two="lower")
    assert title == TITLE
    # Error 5 √(2/3) = 4.1 points, times 4.3: t and power with about four degrees of freedom. Two
    # degrees of the spread: 0.52 to 6.3 times.
    assert lower.startswith("  two: 3 seeds find a loss of 17 points (9.1 to over 100) with 80 %")
    assert "; 5 points need 17 seeds (6 to over 100); " in lower
    assert lower.endswith("; spread 5.0 from the released curves at 200k env steps")
    assert undirected.startswith("  ten: 3 seeds find a difference of 17 points")
    (_, same, _) = lines(tmp_path, request(tmp_path / "runs"), two="same")
    assert same.startswith("  two: 3 seeds show equal agents to be equal within ")


@pytest.mark.usefixtures("released")
def test_methods_are_compared_with_the_first(tmp_path: Path) -> None:
    wanted = request(tmp_path / "runs", variants=(), methods="tdmpc2,sac")
    (_, line) = lines(tmp_path, wanted)
    assert line.startswith("  sac against tdmpc2: 3 seeds find a difference of 17 points")


@pytest.mark.usefixtures("released")
def test_own_runs_come_first_if_they_are_as_many(tmp_path: Path) -> None:
    wanted = request(tmp_path / "runs", variants=VARIANTS[:2])
    complete(wanted, (510.0, 500.0, 490.0))
    (_, line) = lines(tmp_path, wanted)
    assert "; spread 1.0 from own runs at 200k env steps" in line
    complete(wanted, (530.0, 500.0, 470.0), "two")
    (_, line) = lines(tmp_path, wanted)
    assert "; spread 2.2 from own runs at 200k env steps" in line  # √((1² + 3²) / 2)


@pytest.mark.usefixtures("released")
def test_runs_of_other_settings_or_too_short_do_not_count(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    longer = request(runs, variants=VARIANTS[:2], env_steps=2 * STEPS)
    complete(request(runs, variants=VARIANTS[:2]), (510.0, 500.0, 490.0))
    (_, line) = lines(tmp_path, longer)
    assert "power unknown: no 2 finished runs of tdmpc2 default on walker-walk at 400k" in line
    other = request(runs, variants=(("default", {"lr": 1e-4}), ("two", {"num_q": 2, "lr": 1e-4})))
    (_, line) = lines(tmp_path, other)
    assert line.endswith("and the released curves are of other settings")


def test_without_any_source_it_says_so(tmp_path: Path) -> None:
    (_, line) = lines(tmp_path, request(tmp_path / "runs"))
    assert "power unknown: no 2 finished runs" in line
    assert "fetch_published.py" in line


@pytest.mark.usefixtures("released")
def test_a_task_of_unknown_spread_is_named(tmp_path: Path) -> None:
    (_, line) = lines(tmp_path, request(tmp_path / "runs", tasks="walker-walk,cup-catch"))
    assert "power unknown: no 2 finished runs of tdmpc2 default on cup-catch at 200k" in line


@pytest.mark.usefixtures("released")
def test_damaged_released_curves_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "paper" / "tdmpc2" / "walker-walk.csv"
    damaged.write_text("no,curve\n1,2\n")
    (_, line) = lines(tmp_path, request(tmp_path / "runs"))
    assert "power unknown" in line
    assert str(damaged) in capsys.readouterr().err


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert lines(tmp_path, request(tmp_path / "runs", variants=())) == []
    (line,) = lines(tmp_path, request(tmp_path / "runs", seeds="1"))
    assert "single seed" in line


@pytest.mark.usefixtures("released")
def test_both_commands_print_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "paper"))
    common = ["tasks=walker-walk", f"env_steps={STEPS}", f"runs={tmp_path / 'runs'}"]
    common += ["dry_run=true", "cluster=local"]
    assert ablations_run.main(["--no-simnorm", *common]) == 0
    assert "  no-simnorm: 3 seeds find a loss of 17 points" in capsys.readouterr().out
    assert launch.main(["variants=default,num_q=2", *common]) == 0
    assert "  num_q-2: 3 seeds find a difference of 17 points" in capsys.readouterr().out
