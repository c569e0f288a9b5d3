"""Run directories with other settings, damage, a full disk or a second process: no data is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.atomic_files import read_json, write_json
from tests.kill_driver import Blow, Command
from tests.runs import (
    arguments,
    checkpoint_steps,
    evaluated_steps,
    files,
    outcome,
    refusal,
    run_directory,
    snapshot,
    tiny,
)

MID_EPISODE = Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 173)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed during an episode, with checkpoints at 100 and 150; tests only read it."""
    runs = tmp_path_factory.mktemp("killed")
    assert tiny(runs, MID_EPISODE).code == -signal.SIGKILL
    assert checkpoint_steps(runs) == [100, 150]
    return runs


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, which tests may change."""
    return Path(shutil.copytree(killed, tmp_path / "unfinished"))


@pytest.mark.parametrize("changes", [{"eval_every": 50}, {"eval_episodes": 3}])
def test_other_evaluation_settings_are_refused(changes: dict[str, int], killed: Path) -> None:
    ((key, value),) = changes.items()
    before = snapshot(killed)
    assert f"was started with {key}=" in (line := refusal(killed, **changes))
    assert f", not {value}; " in line
    assert snapshot(killed) == before


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bit flip": (
        lambda run: flip(run / "checkpoints/000000000150/state.pt"),
        "checksum of state.pt does not match",
    ),
    "truncated": (
        lambda run: os.truncate(run / "checkpoints/000000000150/state.pt", 1000),
        "checksum of state.pt does not match",
    ),
    "no state": (
        lambda run: (run / "checkpoints/000000000150/state.pt").unlink(),
        "a file is missing",
    ),
    "no manifest": (
        lambda run: (run / "checkpoints/000000000150/manifest.json").unlink(),
        "a file is missing",
    ),
    "torn manifest": (
        lambda run: os.truncate(run / "checkpoints/000000000150/manifest.json", 50),
        "manifest.json: damaged",
    ),
    "no episodes": (
        lambda run: (run / "replay/episodes-000000002-000000002.npz").unlink(),
        "episode shard episodes-000000002-000000002.npz is missing or damaged",
    ),
    "flipped episodes": (
        lambda run: flip(run / "replay/episodes-000000002-000000002.npz"),
        "episode shard episodes-000000002-000000002.npz is missing or damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(
    name: str, unfinished: Path, undisturbed: Path
) -> None:
    damage, hint = DAMAGES[name]
    directory = run_directory(unfinished)
    damage(directory)
    records = {n: (directory / n).read_bytes() for n in ("eval.csv", "train.csv")}
    line = refusal(unfinished)
    assert "000000000150: the checkpoint is damaged" in line
    assert hint in line
    assert "with checkpoint=previous" in line
    assert {n: (directory / n).read_bytes() for n in records} == records
    assert (directory / "checkpoints/000000000100/state.pt").exists()
    if name in ("bit flip", "no episodes"):  # the other kinds of damage take the same path
        assert tiny(unfinished, checkpoint="previous").code == 0
        assert outcome(unfinished) == outcome(undisturbed)
        assert files(unfinished) == files(undisturbed)


def test_damage_without_a_checkpoint_before_it(unfinished: Path) -> None:
    directory = run_directory(unfinished)
    shutil.rmtree(directory / "checkpoints/000000000100")
    assert "there is no checkpoint before the latest" in refusal(unfinished, checkpoint="previous")
    flip(directory / "checkpoints/000000000150/state.pt")
    assert "there is no earlier one: move the run directory away" in refusal(unfinished)


def test_an_evaluation_of_a_damaged_checkpoint_names_the_one_before(unfinished: Path) -> None:
    *_, earlier, newest = sorted((run_directory(unfinished) / "checkpoints").iterdir())
    flip(newest / "state.pt")
    flip(earlier / "state.pt")
    for given, path, advice in (
        (newest.parents[1], newest, f"use an earlier one: {earlier}"),
        (earlier, earlier, "restore it from a copy"),
    ):
        done = Command([f"run={given}", "compile=false"], module="tdmpc2.evaluate").run()
        damage = "the checkpoint is damaged (checksum of state.pt does not match)"
        assert (done.code, done.err) == (2, f"error: {path}: {damage}; {advice}\n")


def test_a_refused_start_does_not_decide_how_the_run_continues(
    unfinished: Path, undisturbed: Path
) -> None:
    directory = run_directory(unfinished)
    names = ("numeric.json", "attempts.json", "checkpoints/000000000150/state.pt")
    before = {name: (directory / name).read_bytes() for name in names}
    flip(directory / names[-1])
    changes = {"threads": 2, "allow_numeric_change": "true", "allow_commit_change": "true"}
    assert "the checkpoint is damaged" in refusal(unfinished, **changes)
    flip(directory / names[-1])
    assert {name: (directory / name).read_bytes() for name in names} == before
    assert tiny(unfinished).code == 0
    assert outcome(unfinished) == outcome(undisturbed)


def test_damaged_records_are_named(unfinished: Path) -> None:
    directory = run_directory(unfinished)
    os.truncate(directory / "eval.csv", 100)
    assert "eval.csv: 100 bytes, but the checkpoint recorded" in refusal(unfinished)
    os.truncate(directory / "spec.json", 100)
    assert "spec.json: damaged" in refusal(unfinished)


def test_a_full_disk_costs_nothing_but_time(undisturbed: Path, tmp_path: Path) -> None:
    """The checkpoint at 150 is the first with Adam's moments and exceeds the file-size limit."""
    done = Command(arguments(tmp_path), file_size=60_000).run()
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert "no space left for a checkpoint (File too large); the previous one is intact" in done.err
    assert checkpoint_steps(tmp_path) == [50, 100]
    status = read_status(run_directory(tmp_path))
    assert status is not None
    assert status["state"] == "FAILED"

    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert files(tmp_path) == files(undisturbed)


@pytest.mark.parametrize("file_size", [150, 300, 700, 2000])
def test_a_disk_full_from_the_start_is_one_line(
    file_size: int, undisturbed: Path, tmp_path: Path
) -> None:
    """The limits are hit by the lease, the attempts, Sacred's start and the first episode."""
    done = Command(arguments(tmp_path), file_size=file_size).run()
    assert done.code == 2, done
    assert "no space left" in done.err
    assert done.err.count("\n") == 1
    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert files(tmp_path) == files(undisturbed)


def test_a_full_file_system_costs_nothing_but_time(undisturbed: Path, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        done = tiny(tmp_path)
        assert done.code == 2, done
        assert done.err.count("\n") == 1
        assert "no space left for a checkpoint (No space left on device)" in done.err
        assert checkpoint_steps(tmp_path)
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        assert tiny(tmp_path).code == 0
        assert outcome(tmp_path) == outcome(undisturbed)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_second_process_is_refused_and_disturbs_nothing(
    undisturbed: Path, tmp_path: Path
) -> None:
    place = Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 173, number=None)
    first = Command(arguments(tmp_path), place)
    pid = first.start_and_reach()
    before = files(tmp_path)
    assert f"in use by process {pid} on host " in refusal(tmp_path)
    assert files(tmp_path) == before
    assert first.go_on().code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


def test_another_numeric_path_must_be_allowed(unfinished: Path, undisturbed: Path) -> None:
    line = refusal(unfinished, threads=2)
    assert "the numeric path has changed (threads 1 → 2)" in line
    assert "allow_numeric_change=true" in line
    assert tiny(unfinished, threads=None).code == 0  # the recorded number of threads is used
    assert outcome(unfinished) == outcome(undisturbed)


def test_an_allowed_numeric_change_is_recorded(unfinished: Path) -> None:
    file = run_directory(unfinished) / "numeric.json"
    path = read_json(file)
    write_json(file, {**path, "cpu": "another", "threads": 2})
    line = refusal(unfinished)
    assert f"(cpu another → {path['cpu']}, threads 2 → 1)" in line
    assert tiny(unfinished, allow_numeric_change="true").code == 0
    assert read_json(file) == path
    assert evaluated_steps(unfinished) == [0, 100, 200]


def test_another_commit_must_be_allowed(unfinished: Path, undisturbed: Path) -> None:
    file = run_directory(unfinished) / "attempts.json"
    (attempt,) = read_json(file)
    write_json(file, [{**attempt, "commit": "0" * 40}])
    line = refusal(unfinished)
    assert f"was run with commit {'0' * 40}, this is {attempt['commit']}" in line
    assert "allow_commit_change=true" in line
    assert tiny(unfinished, allow_commit_change="true").code == 0
    assert outcome(unfinished) == outcome(undisturbed)
    assert [a["commit"] for a in read_json(file)] == ["0" * 40, attempt["commit"]]
