"""Launch, monitor, retry and cancel sweeps on a real cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import cancel, launch, retry, status
from sweeps.execution import slurm_queries
from sweeps.tracking.sweep_folder import all_sweeps
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json
from tests.slurm import sweeping
from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")

SHORT = {"env_steps": 150, "eval_every": 150}
EIGHT = tuple(range(1, 9))


@pytest.fixture(scope="module")
def swept(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run eight runs in one array, then the figures; return the folder and the printed text."""
    runs = tmp_path_factory.mktemp("array") / "runs"
    command = [sys.executable, "-m", "sweeps.launch"]
    arguments = sweeping.arguments(runs, seeds=8, max_parallel=4, after="figures", **SHORT)
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sweeping.until_empty(cluster)
    return runs, done.stdout


def test_an_array_of_eight_runs_equals_runs_on_this_machine(
    swept: tuple[Path, str], tmp_path: Path
) -> None:
    runs, printed = swept
    assert "8 runs, 0 finished already, 8 to do" in printed
    assert "8 jobs, as arrays of 8" in printed
    assert "At most 4 jobs run at a time." in printed
    assert [view.state for view in sweeping.views(runs).values()] == ["done"] * 8
    assert sweeping.sweep(tmp_path, seeds=8, cluster="inline", **SHORT) == 0
    assert all(sweeping.same_as(runs, tmp_path, seed) for seed in EIGHT)
    assert all(len(sweeping.attempts(runs, seed)) == 1 for seed in EIGHT)


def test_runs_without_their_models_are_left_out(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other runs are submitted, and the exit code shows that some were left out."""
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path / "none"))
    arguments = {"tasks": "pick-ycb,toy-pointmass", "seeds": 1, **SHORT}
    assert sweeping.sweep(tmp_path / "runs", **arguments) == launch.LEFT_OUT
    sweeping.until_empty(cluster)
    assert sweeping.sweep(tmp_path / "runs", **arguments) == launch.LEFT_OUT
    rows = status.look(tmp_path / "runs", all_sweeps(tmp_path / "runs"))
    assert {row["task"]: view.state for row, view in rows} == {
        "pick-ycb": "blocked",
        "toy-pointmass": "done",
    }
    monkeypatch.undo()
    assert sweeping.sweep(tmp_path / "runs", **arguments, assets="standin", dry_run=True) == 0


def test_jobs_run_the_code_as_it_was_launched(swept: tuple[Path, str]) -> None:
    """Each record contains the commit, the uncommitted changes and all packages of the launch."""
    runs, _ = swept
    (sweep,) = all_sweeps(runs)
    (submission,) = sweep.submissions()
    assert submission.facts["slurm_cluster"] == slurm_queries.cluster_name() == "lab"
    code = runs / "sweeps" / "code" / submission.facts["code"]
    facts = read_json(code / "source.json")
    for seed in EIGHT:
        (attempt,) = sweeping.attempts(runs, seed)
        assert attempt["commit"] == facts["commit"] == submission.facts["commit"]
        assert attempt["dirty"] is bool(facts["diff"])
        kept = {path.name for path in (sweeping.directory(runs, seed) / "provenance").iterdir()}
        assert f"{attempt['all_packages']}.txt" in kept
        assert not facts["diff"] or f"{attempt['diff']}.diff" in kept
    scripts = [path.read_text() for path in submission.folder.glob("*submission.sh")]
    assert scripts
    setup = (
        f"cd {code} || exit 2  # deleted since the launch\n"
        "export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}\n"
    )
    assert all(setup in script for script in scripts)


def test_the_figures_come_when_all_runs_have_ended(swept: tuple[Path, str]) -> None:
    runs, printed = swept
    assert "draws the figures when all runs have ended" in printed
    drawn = {path.name for path in (runs.parent / "paper_figures").iterdir()}
    assert any(name.endswith(".png") for name in drawn)
    assert (runs / "floors" / "toy-pointmass.json").exists()


def test_launching_again_hands_over_nothing(
    swept: tuple[Path, str], cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, _ = swept
    assert sweeping.sweep(runs, seeds=8, **SHORT) == 0
    assert "8 finished already, 0 to do" in capsys.readouterr().out
    assert len(all_sweeps(runs)[0].submissions()) == 1
    assert not cluster.jobs()


def test_status_shows_what_is_done(
    swept: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, _ = swept
    assert status.main([f"runs={runs}", "list=true"]) == 0
    printed = capsys.readouterr().out
    assert "100.0 %" in printed
    assert printed.count("seed") == 8


def test_held_jobs_are_queued_and_are_not_handed_over_twice(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held jobs (`sbatch=hold`) stay queued; two simultaneous launches submit each run once."""
    command = [sys.executable, "-m", "sweeps.launch"]
    arguments = sweeping.arguments(tmp_path, seeds=4, sbatch="hold", **SHORT)
    both = [subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(cluster.jobs()) == 4
    assert {view.state for view in sweeping.views(tmp_path).values()} == {"queued"}
    # Another sweep with some of the same runs submits only the other runs, and figures of all.
    sweeping.sweep(tmp_path, seeds=6, sbatch="hold", after="figures", **SHORT)
    assert len(cluster.jobs()) == 7
    (waits_for,) = set(cluster.call("squeue", "--noheader", "--format=%E").split()) - {"(null)"}
    assert waits_for.count("afterany:") == 5  # four jobs of one launch, and an array
    capsys.readouterr()
    with pytest.raises(cli.UserError, match="several sweeps found: choose"):
        cancel.main([f"runs={tmp_path}"])
    assert cancel.main([f"runs={tmp_path}", "suite=tasks"]) == 0
    assert "4 jobs cancelled" in capsys.readouterr().out
    assert not cluster.jobs()
    assert {view.state for view in sweeping.views(tmp_path).values()} == {"new"}


def test_jobs_that_no_record_names_are_found(cluster: Cluster, tmp_path: Path) -> None:
    """A launch was killed between `sbatch` and the record of the job's id."""
    held = {"seeds": 3, "sbatch": "hold", "after": "figures", **SHORT}
    sweeping.sweep(tmp_path, **held)
    jobs = cluster.jobs()
    assert len(jobs) == 4  # with the figures
    (path,) = tmp_path.glob("sweeps/*/0001/submission.json")
    known = path.read_text()
    facts = json.loads(known)
    for record in (facts["arrays"][0], facts["follow_up"]):
        record["job"] = None
    path.write_text(json.dumps(facts))
    assert {view.state for view in sweeping.views(tmp_path).values()} == {"queued"}
    assert json.loads(path.read_text()) == json.loads(known)
    sweeping.sweep(tmp_path, **held)
    assert cluster.jobs() == jobs
    path.write_text(json.dumps(facts))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert not cluster.jobs()


def test_a_running_job_can_be_launched_again_once_it_is_cancelled(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The cancellation waits until it has left the queue, where it would count as running."""
    long = {"seeds": 1, "env_steps": 5_000, "eval_every": 5_000}
    sweeping.sweep(tmp_path, **long)
    (job,) = cluster.jobs()
    os.kill(sweeping.hold(tmp_path, (1,))[1], signal.SIGCONT)
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert not cluster.jobs()
    sweeping.sweep(tmp_path, **{**long, "sbatch": "hold"})
    (again,) = cluster.jobs()
    assert again != job
    assert cancel.main([f"runs={tmp_path}"]) == 0


TIMED_OUT = """#!/bin/sh
"{sbatch}" "$@" || exit
case "$*" in
    *--test-only*) ;;
    *) echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2; exit 1
esac
"""


def test_jobs_that_slurm_accepts_without_an_answer_are_found(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end after a minute, as their pickles have no names yet; launching again starts them."""
    runs, programs = tmp_path / "runs", tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(TIMED_OUT.format(sbatch=shutil.which("sbatch")))
    (programs / "sbatch").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(programs), prepend=os.pathsep)
        with pytest.raises(cli.UserError, match=r"did not respond in time: .*Socket timed out"):
            sweeping.sweep(runs, seeds=1, **SHORT)
    assert {view.state for view in sweeping.views(runs).values()} <= {"queued", "running"}
    jobs = cluster.jobs()
    assert len(jobs) == 1
    sweeping.sweep(runs, seeds=1, **SHORT)
    assert cluster.jobs().keys() == jobs.keys()
    sweeping.until_empty(cluster)
    assert sweeping.views(runs)[1].state == "stale"
    sweeping.sweep(runs, seeds=1, **SHORT)
    sweeping.until_empty(cluster)
    assert sweeping.views(runs)[1].state == "done"


@pytest.mark.parametrize("change", ["deleted", "edited"])
def test_a_job_without_its_copy_of_the_code_fails(
    change: str, cluster: Cluster, tmp_path: Path
) -> None:
    """The shell or the job says so in the log, which status shows."""
    sweeping.sweep(tmp_path, seeds=1, sbatch="hold", **SHORT)
    (code,) = (tmp_path / "sweeps" / "code").iterdir()
    if change == "deleted":
        shutil.rmtree(code)
    else:
        (code / "tdmpc2" / "planner.py").write_text("edited = True\n")
    (job,) = cluster.jobs()
    cluster.call("scontrol", "release", job)
    sweeping.until_empty(cluster)
    (view,) = sweeping.views(tmp_path).values()
    assert not list(tmp_path.glob("tdmpc2/*/*/*/spec.json"))
    assert status.main([f"runs={tmp_path}"]) == 1
    if change == "edited":
        assert view.state == "failed"
        assert "the code has changed since the launch" in view.message
    else:
        assert view.state == "stale"
        assert view.message.startswith("its job ended without recording the run: ")
        assert view.message.endswith(f"{code}: No such file or directory")


@pytest.mark.parametrize("path", ["sweeps/code/*/tdmpc2/planner.py", "*/*/0001", "*/*/0001/*.pkl"])
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_a_job_does_not_start_what_another_user_could_have_written(
    path: str, change: str, cluster: Cluster, tmp_path: Path
) -> None:
    """Both of its runs have failed, though there is only the log of the first process."""
    sweeping.sweep(tmp_path, seeds=2, runs_per_gpu=2, sbatch="hold", **SHORT)
    (changed,) = tmp_path.glob(path)
    if change == "owner":
        os.chown(changed, 65534, -1)
    else:
        changed.chmod(0o777)
    (job,) = cluster.jobs()
    cluster.call("scontrol", "release", job)
    sweeping.until_empty(cluster)
    assert not list(tmp_path.glob("tdmpc2/*/*/*/spec.json"))
    (log,) = tmp_path.glob("sweeps/*/0001/*_log.err")
    named = "./tdmpc2/planner.py" if changed.suffix == ".py" else str(changed)
    message = f"{named}: another user could have written it; launch again"
    assert f"error: {message}\n" in log.read_text()
    views = sweeping.views(tmp_path).values()
    assert [(view.state, view.message) for view in views] == [("failed", message)] * 2


def test_drained_nodes_are_a_warning(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for node in ("n1", "n2"):
        cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        assert sweeping.sweep(tmp_path, seeds=1, **SHORT) == 0
        assert "they wait until nodes return (n1 drained, n2 drained)" in capsys.readouterr().out
        assert len(cluster.jobs()) == 1
    finally:
        for node in ("n1", "n2"):
            cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    sweeping.until_empty(cluster)
    assert sweeping.views(tmp_path)[1].state == "done"


def test_a_failed_run_is_shown_and_retried_alone(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An episode of 50 decisions does not fit a replay buffer of 10 rows, so the run fails."""
    runs = tmp_path / "runs"
    sweeping.sweep(runs, seeds=1, **SHORT)
    sweeping.sweep(runs, seeds="2,", buffer_size=10, after="figures", **SHORT)
    sweeping.until_empty(cluster)
    assert {s: view.state for s, view in sweeping.views(runs).items()} == {1: "done", 2: "failed"}
    capsys.readouterr()
    assert status.main([f"runs={runs}"]) == 1
    printed = capsys.readouterr().out
    assert "one episode takes 51 rows" in printed.replace("\n", " ")
    assert "_log.err" in printed
    assert (runs.parent / "paper_figures").is_dir()  # figures of the run that did not fail
    assert retry.main([f"runs={runs}", "sbatch=hold"]) == 0
    assert "1 failed" in capsys.readouterr().out
    assert list(cluster.jobs().values()) == ["PENDING"] * 2  # the run, and its figures
    assert retry.main([f"runs={runs}"]) == 0
    assert len(cluster.jobs()) == 2


@pytest.mark.slow
def test_runs_share_a_job_and_seeds_a_process(cluster: Cluster, tmp_path: Path) -> None:
    """Two processes per job, two seeds per process; a signal requeues all of them."""
    runs = tmp_path / "runs"
    changes = {"env_steps": 400, "eval_every": 200}
    sweeping.sweep(runs, seeds=4, seeds_per_process=2, runs_per_gpu=2, gpus=1, **changes)
    (job,) = cluster.jobs()
    held = sweeping.hold(runs, (1, 3))
    assert sweeping.lease(runs, 2)["pid"] == held[1]
    cluster.call("scancel", "--signal=USR2", job)
    for pid in held.values():
        wait_for(lambda pid=pid: sweeping.is_warned(pid), 60, "both to be warned")
        os.kill(pid, signal.SIGCONT)
    sweeping.until_empty(cluster)
    assert {view.state for view in sweeping.views(runs).values()} == {"done"}
    alone = tmp_path / "alone"
    sweeping.sweep(alone, seeds=2, seeds_per_process=2, cluster="inline", **changes)
    assert all(sweeping.same_as(runs, alone, seed) for seed in (1, 2))
    for seed in (1, 2, 3, 4):
        assert len(sweeping.attempts(runs, seed)) == 2
        assert sweeping.evaluated(runs, seed) == [0, 200, 400]
    assert "between episodes (signal 12)" in sweeping.views(runs)[3].log.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": "mian"}, "did you mean 'main'?"),
        ({"partition": "short", "timeout_min": 60}, "partition short allows 5"),
        ({"mem_gb": 100_000}, "SLURM refuses such jobs"),
        ({"sbatch": "account=nobody,constraint=none"}, "SLURM refuses such jobs"),
        ({"sbatch": "time=5"}, "time is set by timeout_min="),
        ({"gpus": 64}, "SLURM refuses such jobs"),
        ({"num_qq": 3}, "unknown key 'num_qq'"),
    ],
)
def test_what_slurm_would_refuse_is_one_line_and_submits_nothing(
    change: dict[str, object], message: str, cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(cli.UserError) as refused:
        sweeping.sweep(tmp_path / "runs", seeds=1, **{**SHORT, **change})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs" / "sweeps").exists()
    assert not cluster.jobs()


def test_another_commit_is_refused_before_anything_is_handed_over(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {**SHORT, "keep_replay": "true"}
    assert sweeping.sweep(tmp_path, seeds=1, cluster="inline", **kept) == 0
    monkeypatch.setattr("sweeps.execution.launching.git_commit", lambda: "another")
    with pytest.raises(cli.UserError, match=r"was run with commit .* allow_commit_change=true"):
        sweeping.sweep(tmp_path, seeds=2, **{**kept, "env_steps": 200})
    assert not cluster.jobs()


def test_a_short_partition_sets_the_time_limit(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeping.sweep(tmp_path, seeds=1, partition="short", dry_run=True, **SHORT)
    assert "time limit 0:05 h (then requeued)" in capsys.readouterr().out


def test_arrays_stay_below_what_the_cluster_takes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_queries.max_array_size() == 1001
    monkeypatch.setattr(slurm_queries, "max_array_size", lambda: 4)
    sweeping.sweep(tmp_path, seeds=9, max_parallel=5, sbatch="hold", **SHORT)
    (submission,) = all_sweeps(tmp_path)[0].submissions()
    assert [len(array["elements"]) for array in submission.facts["arrays"]] == [4, 4, 1]
    assert len(cluster.jobs()) == 9
    scripts = [path.read_text() for path in sorted(submission.folder.glob("*submission.sh"))]
    assert re.findall(r"--array=(\S+)", " ".join(scripts)) == ["0-3%2", "0-3%2"]
