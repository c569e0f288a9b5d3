"""Datasets built from runs: which episodes are copied and which runs are skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.data import writer as writer_module
from tdmpc2.data.build import build
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.data.options import BuildOptions
from tdmpc2.data.summary import origin
from tdmpc2.envs.tasks import get_task
from tests.datasets.helpers import (
    TWO,
    episodes,
    fake_run,
    four_runs,
    generator,
    options,
)
from tests.runs import tiny

TOYS = ("toy-pointmass-episodic", "toy-pointmass")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of each of two tasks."""
    return four_runs(tmp_path / "runs")


def numbers(dataset: Dataset, task: str) -> list[int]:
    """Return the numbers of a task's episodes, in order."""
    found: list[int] = []
    for shard in dataset.shards(task):
        starts = np.cumsum(shard.episodes()[:, 0] + 1) - (shard.episodes()[:, 0] + 1)
        found += shard.rows()[starts, 0].astype(int).tolist()
    return found


# --- from real runs ------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a finished tiny run of each of two tasks; tests must not change it."""
    runs = tmp_path_factory.mktemp("trained")
    for task in TOYS:
        done = tiny(runs, task=task, keep_replay="true", seed=3)
        assert done.code == 0, done
    return runs


def test_every_sampled_row_is_one_that_was_played(trained: Path, tmp_path: Path) -> None:
    """Batches from trained runs equal the contents of the runs' replay buffers."""
    said: list[str] = []
    dataset = build(
        BuildOptions(tasks=",".join(TOYS), runs=trained, out=tmp_path / "d"), said.append
    )
    assert said == []
    played = {}
    for task in TOYS:
        (directory,) = (path.parent for path in trained.glob(f"*/*/{task}/*/spec.json"))
        store = CheckpointStore(directory)
        manifest = read_json(store.existing()[-1] / "manifest.json")
        played[task] = list(store.episodes(manifest))
        # The rounding of matrix multiplications affects the length of an episode that terminates,
        # and so by how much the last episode exceeds the budget of 200.
        assert dataset.facts(task)["transitions"] == sum(map(len, played[task])) >= 200
        assert dataset.facts(task)["episodes"] == len(played[task])
    assert all(not found for _, found in dataset.verify())

    total = sum(len(one) for task in TOYS for one in played[task])
    replay = OfflineReplay(dataset, TOYS, 1, 6, 3, generator=generator())
    assert replay.num_starts == total
    seen = set()
    first = {  # rows before each episode, as `start` counts them
        int(row): one
        for row, one in zip(
            np.cumsum([0, *(len(one) + 1 for task in TOYS for one in played[task])]),
            [one for task in TOYS for one in played[task]],
            strict=False,
        )
    }
    begins = np.array(sorted(first))
    for _ in range(10):
        batch = replay.sample(total)
        for b, start in enumerate(batch.start.tolist()):
            begin = int(begins[begins <= start].max())
            one, t = first[begin], start - begin
            seen.add(start)
            np.testing.assert_array_equal(batch.obs[:, b, :4].numpy(), one.obs[t : t + 2])
            np.testing.assert_array_equal(batch.action[0, b, :2].numpy(), one.action[t])
            assert batch.reward[0, b] == one.reward[t]
            assert batch.terminated[0, b] == float(one.terminated and t == len(one) - 1)
    assert len(seen) == total
    ends = sum(one.terminated for task in TOYS for one in played[task])
    assert ends > 0
    assert sum(int(shard.episodes()[:, 1].sum()) for shard in dataset.all_shards) == ends


def test_provenance_names_the_runs(trained: Path, tmp_path: Path) -> None:
    dataset = build(BuildOptions(tasks=",".join(TOYS), runs=trained, out=tmp_path / "d"))
    provenance = dataset.manifest["provenance"]
    assert provenance["command"] == "build"
    assert {"created", "version", "commit"} <= provenance.keys()
    for task, source in zip(TOYS, provenance["sources"], strict=True):
        (path,) = trained.glob(f"*/*/{task}/*/spec.json")
        spec = read_json(path)
        for key in ("task", "method", "variant", "seed", "identity", "overrides", "commit"):
            assert source[key] == spec[key]
        reached = read_json(path.parent / "status.json")["env_step"]
        assert (source["task"], source["seed"], source["env_steps"]) == (task, 3, reached)


def test_the_version_is_unknown_where_the_package_is_not_installed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a checkout in `PYTHONPATH`."""
    monkeypatch.setattr(writer_module, "DISTRIBUTION", "no-such-distribution")
    (made, *_) = origin(build(options(tmp_path)))
    assert ", version unknown" in made


# --- what is copied ------------------------------------------------------------------


def test_the_order_is_tasks_then_seeds_then_time(runs: Path, tmp_path: Path) -> None:
    dataset = build(options(tmp_path))
    assert dataset.tasks == TWO
    assert numbers(dataset, TWO[0]) == [10, 11, 12, 13, 20, 21, 22, 23]
    assert numbers(dataset, TWO[1]) == [30, 31, 32, 33, 40, 41, 42, 43]
    back = build(options(tmp_path, tasks=",".join(TWO[::-1]), out=tmp_path / "back"))
    assert back.tasks == TWO[::-1]
    assert numbers(back, TWO[0]) == numbers(dataset, TWO[0])
    assert [s["seed"] for s in back.manifest["provenance"]["sources"]] == [1, 2, 1, 2]


def test_building_twice_gives_the_same_dataset(runs: Path, tmp_path: Path) -> None:
    one, two = (build(options(tmp_path, out=tmp_path / name)) for name in "de")
    assert one.checksum == two.checksum
    assert {p.name for p in one.folder.iterdir()} == {"manifest.json", "shards"}


def test_chosen_seeds_method_and_variant(runs: Path, tmp_path: Path) -> None:
    for task in TWO:
        fake_run(tmp_path / "runs", task, episodes(task, 60), method="sac")
        overrides = (("num_q", 2),)
        kind = {"variant": "num_q-2", "overrides": overrides}
        fake_run(tmp_path / "runs", task, episodes(task, 50), **kind)
    with pytest.raises(UserError, match=r"several variants \(default, num_q-2\): choose one with"):
        build(options(tmp_path))
    cases = {
        "a": ({"seeds": "2,", "variant": "default"}, [20, 21, 22, 23]),
        "b": ({"method": "sac"}, [60, 61, 62, 63]),
        "c": ({"variant": "num_q-2"}, [50, 51, 52, 53]),
        "d": ({"seeds": "1", "variant": "all"}, [10, 11, 12, 13, 50, 51, 52, 53]),
    }
    for name, (chosen, expected) in cases.items():
        dataset = build(options(tmp_path, out=tmp_path / name, **chosen))
        assert numbers(dataset, TWO[0]) == expected


def test_a_suite_gives_its_name(tmp_path: Path) -> None:
    for task in ("walker-walk", "cartpole-swingup"):
        fake_run(tmp_path / "runs", task, episodes(task, 1))
    dataset = build(options(tmp_path, suite="smoke", tasks=None))
    assert dataset.name == "smoke"
    assert dataset.tasks == ("walker-walk", "cartpole-swingup")


def test_small_shards_hold_the_same_rows(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(options(tmp_path))
    monkeypatch.setattr(writer_module, "MB", 1500)
    parts = build(options(tmp_path, out=tmp_path / "parts", shard_mb=1))
    assert len(parts.all_shards) > len(whole.all_shards) == 2
    for task in TWO:
        (one,) = whole.shards(task)
        rows = np.concatenate([shard.rows() for shard in parts.shards(task)])
        np.testing.assert_array_equal(rows, one.rows())
        pairs = np.concatenate([shard.episodes() for shard in parts.shards(task)])
        np.testing.assert_array_equal(pairs, one.episodes())
        assert all(shard.path.stat().st_size <= 1500 for shard in parts.shards(task))


# --- what is skipped or rejected -------------------------------------------------------


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "unfinished": ({"state": "RUNNING"}, "unfinished (RUNNING at env step 1,000)"),
    "diverged": ({"state": "DIVERGED"}, "unfinished (DIVERGED at env step 1,000)"),
    "not kept": ({"keep": False}, "has kept no episodes (train with keep_replay=true)"),
    "pixels": ({"obs": "rgb"}, "its observations are rgb, not states"),
    "stand-ins": ({"assets": "standin"}, "uses standin assets, not the official ones"),
    "protocol": (
        {"protocol": {"seeded_resets": False}},
        "differs from the paper's tasks (seeded_resets=false)",
    ),
    "newer version": (
        {"protocol": {"later": True}},
        "differs from the paper's tasks (later=true)",
    ),
    "finetuned": ({"start": {"obs_dim": 17}}, "starts from a pretrained model"),
    "offline": ({"budget_unit": "num_updates"}, "trained offline, without episodes of its own"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_runs_that_cannot_be_used_are_named(name: str, runs: Path, tmp_path: Path) -> None:
    changes, why = LEFT_OUT[name]
    directory = fake_run(runs, TWO[0], episodes(TWO[0], 90), seed=3, **changes)
    said: list[str] = []
    dataset = build(options(tmp_path), said.append)
    assert said == [f"skipped: {directory}: {why}"]
    assert 90 not in numbers(dataset, TWO[0])


def test_a_run_whose_first_episodes_were_not_kept_is_named(runs: Path, tmp_path: Path) -> None:
    """As if `keep_replay=true` had been set after its buffer was full."""
    said: list[str] = []
    kept = build(options(tmp_path, out=tmp_path / "all"), said.append)
    assert not said
    (directory,) = runs.glob(f"*/*/{TWO[0]}/seed1*")
    (manifest,) = directory.glob("checkpoints/*/manifest.json")
    content = read_json(manifest, dict[str, Any])
    lost = content["shards"].pop(0)["count"]
    write_json(manifest, content)
    dataset = build(options(tmp_path), said.append)
    total = lost + sum(shard["count"] for shard in content["shards"])
    assert said == [
        f"incomplete: {directory}: {lost} of {total} episodes were not kept (they had left its "
        "replay buffer; use keep_replay=true from the start)"
    ]
    assert numbers(dataset, TWO[0]) == numbers(kept, TWO[0])[lost:]


def test_missing_tasks_are_listed_together(runs: Path, tmp_path: Path) -> None:
    fake_run(runs, "cup-catch", episodes("cup-catch", 1), state="RUNNING")
    said: list[str] = []
    with pytest.raises(
        UserError,
        match=r"no finished tdmpc2 run with kept episodes of cup-catch, cup-spin \(2 of 4 tasks\)",
    ):
        build(options(tmp_path, tasks=f"{','.join(TWO)},cup-catch,cup-spin"), said.append)
    assert len(said) == 1
    with pytest.raises(UserError, match=r"and 23 more \(28 of 30 tasks\)"):
        build(options(tmp_path, tasks=None, suite="mt30"), said.append)
    assert not (tmp_path / "d").exists()


def test_damaged_episodes_are_refused(runs: Path, tmp_path: Path) -> None:
    path = next(runs.glob("*/*/walker-walk/seed2*/replay/*.npz"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{path.name}: missing or damaged"):
        build(options(tmp_path))


def test_values_no_dataset_may_hold_are_refused(tmp_path: Path) -> None:
    for task in TWO:
        broken = episodes(task, 1)
        broken[2].reward[3] = np.nan
        fake_run(tmp_path / "runs", task, broken, saves=1)
    with pytest.raises(UserError, match=r"\.npz: cheetah-run, row 16: reward is nan"):
        build(options(tmp_path))  # 6 + 7 rows, then the fourth


def test_other_dims_are_refused(runs: Path, tmp_path: Path) -> None:
    """For example a run with an older task table."""
    spec = next(runs.glob("*/*/walker-walk/seed1*")) / "spec.json"
    write_json(spec, {**read_json(spec), "task": "hopper-stand"})
    with pytest.raises(
        UserError, match=r"obs of hopper-stand has shape \(\d+, 24\), expected \(\d+, 15\)"
    ):
        build(options(tmp_path, tasks="hopper-stand"))


def test_bad_options(tmp_path: Path) -> None:
    for changes, hint in (
        ({"suite": "mt30"}, "either suite=NAME or tasks="),
        ({"tasks": None}, "either suite=NAME or tasks="),
        ({"out": None}, "out= is missing"),
        ({"shard_mb": 0}, "shard_mb=0: must lie in"),
        ({"tasks": "cup-catch,cup-catch"}, "cup-catch is named twice"),
        ({"tasks": ","}, "no task; give a list"),
        ({"tasks": "cup-cach"}, "did you mean 'cup-catch'"),
        ({"tasks": "cup-catch,gym:Pendulum-v1"}, "tasks=gym:Pendulum-v1: datasets and multi-task"),
        ({"tasks": None, "suite": "mt40"}, "did you mean 'mt"),
        ({"seeds": "x"}, "seeds=x"),
        ({}, "no such folder of runs"),
    ):
        with pytest.raises(UserError, match=hint):
            build(options(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []


# --- the manifest ------------------------------------------------------------------


def test_the_manifest_is_json_that_says_what_is_there(runs: Path, tmp_path: Path) -> None:
    dataset = build(options(tmp_path))
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    for entry in manifest["tasks"]:
        row = get_task(entry["name"])
        assert entry["obs_dim"] == row.obs_dim
        assert entry["action_dim"] == row.action_dim
        assert (entry["episode_length"], entry["action_repeat"]) == (500, 2)
        assert (entry["episodes"], entry["transitions"]) == (8, 2 * (5 + 6 + 7 + 8))
