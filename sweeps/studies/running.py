"""Run a study: launch the runs of a look, decide, and go on with the claims that are open."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.records.studies import PUBLISHED, REGISTERED, read_study
from analysis.stats.group_sequential import Design
from sweeps.execution import slurm_queries
from sweeps.execution.job import FollowUp
from sweeps.execution.launching import ADVICE, launch
from sweeps.planning.options import SweepOptions
from sweeps.planning.request import Part, SweepRequest
from sweeps.studies import tables
from sweeps.studies.decisions import WAITING, Look, judge
from sweeps.studies.go_on import REQUEST
from sweeps.studies.power_lines import STUDY_TITLE, print_power
from sweeps.studies.registration import run_table
from sweeps.studies.scores import read_scores
from sweeps.studies.study import Claim, Study, parse_looks, register
from sweeps.tracking.run_states import ENDED, Observer, View
from sweeps.tracking.sweep_folder import Submission, SweepFolder
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.run.spec import CommonOptions, list_of_seeds, parse_seeds, unusual
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.texts import counted
from tdmpc2.envs.task_variants import departures
from tdmpc2.envs.tasks import RETURN_RANGE, get_task
from tdmpc2.runners.fixed_options import fixed_options

INCOMPLETE = 1
"""Exit code if runs of a look have no score, and of a launch in which a run failed."""
UNFINISHED = ("failed", "stale", "resumable", "damaged", "blocked")
"""States of runs that were started and have ended without a result."""
EVALUATION = ("eval_every", "eval_episodes")
"""Options of runs that change their scores."""
Series = tuple[str, str]
"""Method and variant."""
MakeClaims = Callable[[Sequence[Series]], Sequence[Claim]]


@dataclass(frozen=True)
class StudyRequest:
    """A study to run.

    Attributes:
        study: the study.
        launch: request of all its runs.
        advice: advice on a plan that is too long for this machine.
    """

    study: Study
    launch: SweepRequest
    advice: str = ADVICE


def start_study(
    request: SweepRequest,
    label: str,
    margin: float,
    claims: MakeClaims,
    *,
    seeds_given: bool,
    advice: str = ADVICE,
) -> int:
    """Print the power of a study and run it; see `run_study`.

    Args:
        request: request of the sweep.
        label: beginning of the name of the study.
        margin: margin in points.
        claims: returns the claims, from method and variant of each series; the first is the base.
        seeds_given: whether the user has named the seeds.
        advice: advice on a plan that is too long for this machine.
    """
    everything = with_all_seeds(request, parse_looks(request.sweep.looks), given=seeds_given)
    study = make_study(everything, label, margin, claims)
    expected = {one.variant: one.expected for one in study.claims}
    print_power(everything, expected, margin, STUDY_TITLE)
    return run_study(StudyRequest(study, everything, advice))


def with_all_seeds(request: SweepRequest, looks: tuple[int, ...], *, given: bool) -> SweepRequest:
    """Return the request with the seeds of the last look.

    Args:
        request: request of the sweep.
        looks: seeds after each look.
        given: whether the user has named the seeds.

    Raises:
        UserError: another number of seeds is named than the last look needs, or an option is given
            that studies do not have.
    """
    for name in ("after", "only"):
        if (value := getattr(request.sweep, name)) != getattr(SweepOptions, name):
            raise UserError(f"{name}={value}: cannot be combined with until=decided; omit it")
    seeds = parse_seeds(request.sweep.seeds) if given else tuple(range(1, looks[-1] + 1))
    if len(seeds) != looks[-1]:
        raise UserError(
            f"seeds={request.sweep.seeds}: the last of looks={','.join(map(str, looks))} needs "
            f"{looks[-1]} seeds; omit seeds=, or name as many"
        )
    return replace(request, sweep=replace(request.sweep, seeds=list_of_seeds(seeds)))


def make_study(request: SweepRequest, label: str, margin: float, claims: MakeClaims) -> Study:
    """Build the study of a request with all seeds.

    Args:
        request: result of `with_all_seeds`.
        label: beginning of its name.
        margin: margin in points.
        claims: returns the claims, from method and variant of each series; the first is the base.

    Raises:
        UserError: the series have no tasks in common, their runs end at different steps, or a task
            has no normalized score.
    """
    series, tasks = common_tasks(request)
    unscaled = [one for one in tasks if math.isnan(get_task(one).normalized_score(0.0, 0.0))]
    if unscaled:
        raise UserError(
            f"until=decided: {', '.join(unscaled)}: differences in points need the score_range of "
            "the task (docs/environments.md)"
        )
    if len(series) < 2:
        raise UserError(
            "until=decided: nothing to compare; give several variants= or methods=, or an ablation,"
            " or against=published"
        )
    design = Design(parse_looks(request.sweep.looks))
    return Study(
        label,
        tasks,
        parse_seeds(request.sweep.seeds),
        design,
        margin,
        tuple(claims(series)),
        settings=settings_of_series(request),
    )


def settings_of_series(request: SweepRequest) -> dict[str, dict[str, Any]]:
    """Return what is not the default in the runs of each series, for `Study.settings`."""
    given = {name: getattr(request.how, name) for name in EVALUATION}
    evaluation = {k: v for k, v in given.items() if v != getattr(CommonOptions, k)}
    found: dict[str, dict[str, Any]] = {}
    for spec in (run.spec for run in request.planned):
        own = found.setdefault(f"{spec.method} {spec.variant}", dict(evaluation))
        own |= dict(spec.overrides) | dict(departures(spec.task_switches)) | unusual(vars(spec))
    return {series: settings for series, settings in found.items() if settings}


def common_tasks(request: SweepRequest) -> tuple[list[Series], dict[str, int]]:
    """Return the series of a request, and the env steps of each of their tasks.

    Raises:
        UserError: the series have no tasks in common, or their runs end at different steps.
    """
    tasks: dict[Series, dict[str, int]] = {}
    for run in request.planned:
        own = tasks.setdefault((run.spec.method, run.spec.variant), {})
        own[run.spec.task] = run.spec.budget
    first, *others = tasks
    for one in others:
        if tasks[one] != tasks[first]:
            raise UserError(
                f"{' '.join(one)} and {' '.join(first)} differ in tasks or env steps; a study "
                "needs the same for both"
            )
    return list(tasks), tasks[first]


def check_evaluations(request: SweepRequest) -> None:
    """Check that runs that exist were evaluated as those that a study starts.

    Raises:
        UserError: one was evaluated at other steps, with another number of episodes or in another
            environment, or has another score.
    """
    for run in request.planned:
        recorded: Mapping[str, Any] = {}
        with contextlib.suppress(UserError):  # damaged: the launch says so
            recorded = read_json(run.directory / "spec.json", SpecFile) or {}
        if not recorded:
            continue
        task = get_task(run.spec.task)
        wanted = fixed_options(run.spec, replace(request.how, **run.options))
        wanted["metric"] = task.metric
        if task.metric == "return":  # its range is not recorded if it is the usual one
            wanted["score_range"] = task.score_range and list(task.score_range)
            recorded = {"score_range": list(RETURN_RANGE), **recorded}
        for key, value in wanted.items():
            if recorded.get(key, value) != value:
                raise UserError(
                    f"{run.directory}: has {key}={recorded[key]}, not {value}; all runs of a "
                    "study need the same: use that value, or another folder with runs="
                )


def run_study(request: StudyRequest, *, again: bool = True) -> int:
    """Run a study, or continue it, and return the exit code.

    Its state is the records of its runs: the same command continues a study that was interrupted
    anywhere. On SLURM, each look is submitted with a job that continues the study after it.

    Args:
        request: the study.
        again: whether to start runs again that have failed or were stopped.

    Returns:
        0 if all claims are decided, or the next look was submitted; 1 if a run of a look has no
        score; else the exit code of a launch that started nothing (see `launching.launch`).

    Raises:
        UserError: the study was changed since it began, a run was evaluated in another way, or an
            invalid request.
    """
    everything = request.launch
    study = request.study.begun_in(everything.runs)
    check_evaluations(everything)
    if everything.sweep.dry_run:
        print(tables.describe(study))
        if everything.sweep.seeds_per_process > 1:
            print(
                "Seeds of different looks are not trained as one batch, so that the study may have "
                "more processes than this plan, and may need more time on a GPU."
            )
        return launch(everything, request.advice)
    folder = study.folder(everything.runs)
    mark = register(study, folder)
    write_json(folder / REQUEST, everything.to_json())
    print(f"{tables.describe(study)}\nStudy {study.name}: {folder}", flush=True)
    shown, launched = 0, 0
    while True:
        scores = read_scores(study, everything.planned, everything.runs)
        looks = judge(study, scores)
        runs = run_table(everything.planned, mark, everything.runs)
        tables.write(folder, looks, runs)
        for look in looks[shown:]:
            if look[0].decision != WAITING:
                print(tables.of_look(look), flush=True)
                shown += 1
        current = looks[-1]
        if current[0].decision != WAITING:
            print(tables.summary(read_study(folder)), flush=True)
            return 0
        if launched == len(looks):  # its runs were launched
            wanted = _runs_of(study, current, everything, mark)
            print(
                f"Look at {current[0].seeds} seeds: {scores.describe_missing(wanted.planned)}. The "
                "same command goes on, and starts runs again that failed or were stopped. A run "
                "that diverged before its first evaluation never has a score: start another study "
                "without its claim or task."
            )
            return INCOMPLETE
        launched = len(looks)
        wanted = _runs_of(study, current, everything, mark)
        views = _look(wanted)
        if not again and (ended := _ended_early(wanted, views)):
            print(
                f"Look at {current[0].seeds} seeds: {counted(ended, 'run')} failed or stopped "
                "(`python sweeps/status.py`). Launch the study again: it starts them again and "
                "goes on."
            )
            return INCOMPLETE
        if _all_ended(views):
            continue  # to read the scores of runs that have just ended
        code = launch(wanted, request.advice, _then(folder))
        if code not in (0, INCOMPLETE):
            return code
        # After failures on this machine, the scores show which runs are missing. On SLURM, the next
        # job goes on, unless the last runs have ended before the launch read their states.
        slurm = slurm_queries.choose(everything.sweep.cluster) == "slurm"
        if slurm and not _all_ended(_look(wanted)):
            return code


def _runs_of(study: Study, look: Look, request: SweepRequest, mark: str) -> SweepRequest:
    """Return the request of the runs that a look needs."""
    seeds = parse_seeds(request.sweep.seeds)[: look[0].seeds]
    if request.sweep.seeds_per_process > 1:  # seeds of earlier looks would take places in a batch
        seeds = seeds[max((n for n in study.looks if n < len(seeds)), default=0) :]
    parts: dict[Part, None] = {}
    for place in (1, 0):  # bases first
        for claim in (one.claim for one in look):
            series = claim.series[place]
            parts |= {(*series, task): None for task in study.tasks_of(claim)}
    return replace(
        request,
        sweep=replace(request.sweep, seeds=list_of_seeds(seeds)),
        given={**request.given, "study": mark},
        parts=tuple(part for part in parts if part[1] != PUBLISHED),
    )


def read_request(folder: Path) -> StudyRequest:
    """Return the request of a study that has begun.

    Its runs are those of the folder that holds the study, which may have been moved.

    Raises:
        UserError: the folder is not that of a study, or its files are damaged.
    """
    launch = SweepRequest.from_json(read_json(folder / REQUEST))
    runs = folder.resolve().parent.parent
    launch = replace(launch, given={**launch.given, "runs": runs})
    return StudyRequest(Study.read(folder / REGISTERED), launch)


def _ended_early(request: SweepRequest, views: Sequence[View]) -> int:
    """Return how many runs of a request were started and have ended without a result.

    A run whose job has ended before the run began, since it was cancelled for example, looks like
    one that was never submitted. The record of the look's last launch with jobs tells them apart.
    """
    sweep = SweepFolder.of(request.runs, request.sweep.label, request.planned)
    waited_for: set[str] = set()
    for submission in sweep.submissions():
        waited_for = _waited_for(submission) or waited_for
    ended = 0
    for view in views:
        submitted = view.job is not None and view.job.partition("_")[0] in waited_for
        ended += view.state in UNFINISHED or (view.state == "new" and submitted)
    return ended


def _look(request: SweepRequest) -> list[View]:
    """Return the states of the runs of a request."""
    observer = Observer(request.runs)
    return [
        observer.look(str(run.directory.relative_to(request.runs)), run.spec.budget)
        for run in request.planned
    ]


def _all_ended(views: Sequence[View]) -> bool:
    return all(view.state in ENDED for view in views)


def _waited_for(submission: Submission) -> set[str]:
    """Return the ids of the job arrays that a launch of a look has submitted, or waits for."""
    follow_up = submission.follow_up() or {"after": ()}
    after = [*follow_up["after"], *(array["job"] for array in submission.arrays())]
    return {job.partition("_")[0] for job in after}


def _then(folder: Path) -> FollowUp:
    """Return the job that continues the study."""
    command = ("sweeps.studies.go_on", f"study={folder}")
    return FollowUp(command, f"{folder}#look", "decides and starts the next look")
