"""Studies: registration, decisions from records, and looks that continue after interruptions."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.records.run_hours import CORE_HOURS
from analysis.records.studies import FILE, RESULTS, RUN_COLUMNS, digest, read_study
from analysis.stats.ablation_claims import Expected
from analysis.stats.group_sequential import Design
from analysis.stats.study_results import describe_study
from sweeps import launch
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from sweeps.studies import go_on
from sweeps.studies.decisions import Look, judge
from sweeps.studies.running import make_study
from sweeps.studies.scores import Scores, read_scores
from sweeps.studies.study import Claim, Study, check_unchanged, parse_looks, register
from sweeps.studies.tables import describe, summary, write
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tests.analysis.run_files import write_run
from tests.runs import TINY
from tests.sweeps.example_study import CLAIM, STUDY, scores

SETTINGS = [f"{key}={value}" for key, value in TINY.items() if key != "task"]


@pytest.mark.parametrize("text", ["", "1,2", "3,2", "2,2", "two", "2,,x", "2,101"])
def test_looks_that_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="ascending numbers of seeds"):
        parse_looks(text)


def test_a_study_reads_as_it_was_written(tmp_path: Path) -> None:
    mark = register(STUDY, tmp_path)
    assert Study.read(tmp_path / FILE) == STUDY
    assert register(STUDY, tmp_path) == mark == digest(tmp_path / FILE)
    assert STUDY.name != replace(STUDY, design=Design((2, 5))).name


def test_a_study_that_has_begun_keeps_its_tests(tmp_path: Path) -> None:
    """Those of an earlier version, too: they have no limit for nearly equal returns."""
    earlier = replace(STUDY, design=replace(STUDY.design, tied_within=0.0))
    register(earlier, earlier.folder(tmp_path))
    assert STUDY.begun_in(tmp_path) == earlier.begun_in(tmp_path) == earlier
    register(STUDY, STUDY.folder(tmp_path))
    assert STUDY.begun_in(tmp_path) == STUDY
    assert earlier.begun_in(tmp_path) == earlier


def test_texts_and_settings_of_any_kind_are_read_again(tmp_path: Path) -> None:
    claim = replace(CLAIM, text='scores "lower" 😀 é \x7f \\ \n')
    settings = {"tdmpc2 no-x": {"num_q": 2, "lr": 1e-4, "obs": "rgb", "planning": False}}
    one = replace(STUDY, claims=(claim,), settings=settings)
    register(one, tmp_path)
    assert Study.read(tmp_path / FILE) == one


def test_other_settings_are_another_study(tmp_path: Path) -> None:
    """Runs of an edited ablation, or from pixels, must not continue a study of other runs."""

    def named(*more: str, dim: int = 64) -> str:
        request = SweepRequest.from_arguments(replaced(study(tmp_path), more))
        variants = (("default", {}), ("narrow", {"latent_dim": dim}))
        everything = replace(request, variants=variants)
        return make_study(everything, "x", 5.0, lambda _: [CLAIM]).name

    assert named() == named()
    assert len({named(), named(dim=32), named("num_q=3"), named("precision=bf16")}) == 4
    assert len({named(), named("eval_every=70"), named("eval_episodes=3")}) == 3


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"eval_episodes": 5}, "eval_episodes=5, not 2"),
        ({"score_range": [0, 500]}, r"score_range=\[0, 500\], not \[0.0, 1000.0\]"),
        ({"score_range": None}, "score_range=None, not .*"),
        ({"metric": "success"}, "metric=success, not return"),
    ],
)
def test_runs_that_were_evaluated_in_another_way_are_refused(
    tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    """Also if a later look would use them: their variance would change the earlier decisions."""
    run = SweepRequest.from_arguments([*study(tmp_path), "seeds=3"]).planned[-1]
    write_run(tmp_path, {}, variant=run.spec.variant, task=run.spec.task, seed=run.spec.seed,
              tag=run.directory.name.partition("-")[2], **facts)  # fmt: skip
    with pytest.raises(UserError, match=f"seed3-.*has {message}; .*use that value"):
        launch.main(study(tmp_path))
    assert not (tmp_path / "studies").exists()


def test_a_changed_study_is_refused_with_what_was_changed(tmp_path: Path) -> None:
    register(STUDY, tmp_path)
    file = tmp_path / FILE
    file.write_text(file.read_text().replace("margin = 5.0", "margin = 9.0"))
    with pytest.raises(UserError, match=r"margin: 5.0 is now 9.0"):
        check_unchanged(tmp_path)
    with pytest.raises(UserError, match="restore it"):
        register(STUDY, tmp_path)


def test_a_damaged_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("claims = 3")
    with pytest.raises(UserError, match="not the file of a study"):
        Study.read(tmp_path / FILE)


def summarized(
    folder: Path, study: Study, looks: list[Look], older: Collection[tuple[str, str, int]] = ()
) -> str:
    """Write a study whose runs take half a core-hour each, and return its summary.

    Args:
        folder: folder of the study.
        study: the study.
        looks: its looks.
        older: variant, task and seed of the runs that it has not started.
    """
    register(study, folder)
    runs = [
        ("tdmpc2", variant, task, seed, (variant, task, seed) not in older, 0.5, CORE_HOURS, "")
        for variant in ("default", "no-x")
        for task in study.tasks
        for seed in study.seeds[: looks[-1][0].seeds]
    ]
    write(folder, looks, pd.DataFrame(runs, columns=list(RUN_COLUMNS)))
    return summary(read_study(folder))


def test_a_large_loss_ends_the_study_early(tmp_path: Path) -> None:
    looks = judge(STUDY, scores(30.0))
    assert looks[-1][0].decision == "supported"
    assert len(looks) < 3
    text = summarized(tmp_path, STUDY, looks, {("default", task, 1) for task in STUDY.tasks})
    assert "* stopped early" in text
    assert "no: 2 runs were not started by this study" in text
    used = 4 * looks[-1][0].seeds
    assert f"Runs: {used} of 20 with 5 seeds for every claim" in text
    assert f"Time: {used / 2:.1f} core-hours, about {(20 - used) / 2:.1f} core-hours saved" in text


@pytest.mark.parametrize("base", [50.0, 50.0 + 1e-13, 0.0])
@pytest.mark.parametrize("expected", ["lower", "same", None])
def test_scores_that_never_vary_decide_nothing(
    tmp_path: Path, base: float, expected: Expected | None
) -> None:
    equal = replace(STUDY, claims=(replace(CLAIM, expected=expected),))
    points = {
        key: np.full(5, base if "default" in key else round(base)) for key in scores(0).points
    }
    looks = judge(equal, Scores(points, dict.fromkeys(STUDY.tasks)))
    assert [look[0].decision for look in looks] == ["next look", "next look", "not enough seeds"]
    text = summarized(tmp_path, equal, looks)
    assert "nan" not in text
    assert "(no score varies)" in text


def test_a_run_that_diverged_has_its_last_score(tmp_path: Path) -> None:
    arguments = study(tmp_path)
    planned = SweepRequest.from_arguments([*arguments, "seeds=3"]).planned
    for run in planned:
        diverged = run.spec.variant != planned[0].spec.variant and run.spec.seed < 3
        points = {0: 7.0, 100: 30.0, 200: 50.0} if not diverged else {0: 7.0}
        if diverged and run.spec.seed == 2:
            points = {0: 7.0, 50: 900.0, 100: 10.0}
        tag = run.directory.name.partition("-")[2]
        write_run(tmp_path, points, variant=run.spec.variant, task=run.spec.task,
                  seed=run.spec.seed, tag=tag, budget=200,
                  state="DIVERGED" if diverged else "COMPLETED")  # fmt: skip
    base, variant = dict.fromkeys(run.spec.variant for run in planned)
    claim = Claim("x", "tdmpc2", variant, "tdmpc2", base)
    one = Study("x", {"toy-pointmass": 200}, (1, 2, 3), Design((2, 3)), 5.0, (claim,))
    found = read_scores(one, planned, tmp_path).points
    ours, theirs = (found["tdmpc2", name, "toy-pointmass"] for name in (variant, base))
    assert ours / theirs == pytest.approx([7 / 40, 10 / 40, 1])


def test_runs_without_a_score_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = SweepRequest.from_arguments([*study(tmp_path), "seeds=3"]).planned
    for run in planned:
        tag = run.directory.name.partition("-")[2]
        write_run(tmp_path, {}, variant=run.spec.variant, task=run.spec.task, seed=run.spec.seed,
                  tag=tag, budget=run.spec.budget, state="DIVERGED")  # fmt: skip
    assert launch.main(study(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "4 runs have no score at the step of the study: " in printed
    assert str(planned[0].directory) in printed
    assert "diverged before its first evaluation never has a score" in printed


def study(runs: Path, *more: str) -> list[str]:
    fixed = ["tasks=toy-pointmass", "cluster=inline", f"runs={runs}", *SETTINGS]
    return [*fixed, "variants=default,num_q=3", "until=decided", "looks=2,3", *more]


def replaced(arguments: Sequence[str], more: Sequence[str]) -> list[str]:
    """Return arguments of which some are replaced, or added."""
    keys = {one.partition("=")[0] for one in more}
    return [*(one for one in arguments if one.partition("=")[0] not in keys), *more]


def attempts(runs: Path) -> dict[str, Any]:
    files = runs.glob("tdmpc2/*/*/seed*/attempts.json")
    return {str(file.parent): json.loads(file.read_text()) for file in files}


def test_a_study_from_beginning_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(study(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "Power of one test with all seeds; looks and several claims reduce it" in printed
    assert "Look at 2 seeds" in printed
    assert "pre-registered" in printed
    folder = next((tmp_path / "studies").iterdir())
    decisions = (folder / "decisions.csv").read_bytes()
    found = attempts(tmp_path)
    assert len(found) in (4, 6)
    assert {one[0]["study"] for one in found.values()} == {digest(folder / FILE)}
    assert launch.main(study(tmp_path)) == 0  # all is decided
    assert go_on.main([f"study={folder}"]) == 0
    line = describe_study(read_study(folder))
    assert digest(folder / FILE) in line
    assert " at 2 seeds" in line or " at 3 seeds" in line
    assert re.search(r"Time: \S+ core-hours", line)
    assert line.split(". ", 1)[1] in printed  # the costs, as the summary states them
    runs = read_study(folder).runs
    assert runs is not None
    assert {str(tmp_path / one) for one in runs["directory"]} == set(found)
    assert attempts(tmp_path) == found
    assert (folder / "decisions.csv").read_bytes() == decisions


def test_seeds_that_exist_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = [one for one in study(tmp_path, "seeds=2") if not one.startswith(("until", "looks"))]
    assert launch.main(plain) == 0
    before = attempts(tmp_path)
    assert launch.main(study(tmp_path)) == 0
    after = attempts(tmp_path)
    assert all(after[key] == value for key, value in before.items())
    assert not any("study" in value[0] for value in before.values())
    assert "no: 4 runs were not started by this study" in capsys.readouterr().out


def test_a_study_with_other_tests_is_read(tmp_path: Path) -> None:
    """A study of an earlier version keeps its error rates."""
    other = replace(STUDY, design=Design((2, 5), claim_level=0.01), evaluations=1)
    register(other, tmp_path)
    assert Study.read(tmp_path / FILE) == other


def test_claims_about_some_tasks_use_only_these(tmp_path: Path) -> None:
    some = replace(CLAIM, tasks=("a",), margin=3.0)
    study = replace(STUDY, claims=(some,))
    looks = judge(study, scores(30.0))
    assert study.margin_of(some) == 3.0
    text = summarized(tmp_path / "own", study, looks, {("default", "a", 1)})
    assert f"Runs: {2 * looks[-1][0].seeds} of 10 with" in text
    assert "no: 1 run was not started by this study" in text
    text = summarized(tmp_path / "other", study, looks, {("default", "b", 1)})
    assert "pre-registered" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["looks=3,2"], "ascending numbers of seeds"),
        (["seeds=2"], "needs 3 seeds"),
        (["seeds=4"], "needs 3 seeds"),
        (["until=none"], "looks=2,3: only valid with until=decided"),
        (["variants=default"], "nothing to compare"),
        (["tasks=toy-pointmass,gym:Pendulum-v1"], "gym:Pendulum-v1: .* need the score_range"),
        (["after=figures"], "after=figures: cannot be combined with until=decided"),
        (["only=failed"], "only=failed: cannot be combined with until=decided"),
    ],
)
def test_what_is_refused_before_anything_is_written(
    tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        launch.main(replaced(study(tmp_path), more))
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (["lower"], "false 'supported': 1.95 % per claim; of a false 'contradicted': 4 %"),
        ([None], "false 'lower' or 'higher': 1.95 % per claim; of a false 'no difference': 4 %"),
        (["same", None], "false 'supported' or 'lower' or 'higher': 1.95 % per claim"),
    ],
)
def test_error_rates_are_those_of_decisions_that_can_be_reached(
    kinds: list[Expected | None], sentence: str
) -> None:
    claims = tuple(replace(CLAIM, name=str(kind), expected=kind) for kind in kinds)
    assert sentence in describe(replace(STUDY, claims=claims))


def test_series_without_tasks_in_common_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="differ in tasks or env steps"):
        launch.main(["suite=smoke", "until=decided", "cluster=inline", f"runs={tmp_path}"])
    assert not (tmp_path / "studies").exists()


def test_a_folder_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a study"):
        go_on.main([f"study={tmp_path}"])


def test_the_recorded_study_is_decided_again_as_it_was() -> None:
    """Decisions are a function of the records; docs/studies.md has them."""
    runs = project_root() / "paper_figures" / "recorded" / "ablations-study"
    (folder,) = (runs / "studies").iterdir()
    recorded = Study.read(folder / "registered.toml")
    assert recorded.design.tied_within == 0  # its version had no such rule
    assert recorded.name == folder.name
    files = runs.glob("tdmpc2/*/*/*/spec.json")
    names = {field.name for field in fields(RunSpec)}
    planned = [
        PlannedRun(
            RunSpec(**{k: v for k, v in json.loads(file.read_text()).items() if k in names}),
            file.parent,
        )
        for file in files
    ]
    looks = judge(recorded, read_scores(recorded, planned, runs))
    found = [
        [str(one.seeds), one.claim.name, f"{one.gap.value:+.1f}", one.decision]
        for look in looks
        for one in look
        if one.gap is not None
    ]
    with open(folder / RESULTS, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert found == [
        [row["seeds"], row["claim"], f"{float(row['difference']):+.1f}", row["decision"]]
        for row in rows
    ]
    text = (project_root() / "docs" / "studies.md").read_text()
    assert all(value in text for _, _, value, _ in found)
