"""Checkpoints: atomic, verified, at most two, with only the episodes that they need."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Episode
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.storable import from_storable, require_storable, to_storable
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tests.disk_errors import unreadable
from tests.kill_driver import CONTEXT

CAPACITY = 12  # three episodes of 3 transitions


def make_replay() -> Replay:
    return Replay(CAPACITY, 1, (2,), 1, generator=torch.Generator().manual_seed(0))


def episode(number: int, length: int = 3) -> Episode:
    """Return an episode whose values identify its number."""
    return Episode(
        obs=np.full((length + 1, 2), number, dtype=np.float32),
        action=np.full((length, 1), number / 100, dtype=np.float32),
        reward=np.arange(length, dtype=np.float32) + 10 * number,
        terminated=number % 2 == 1,
        task=number % 3,
    )


def state_of(number: int) -> dict[str, Any]:
    return {"number": number, "replay": None}


def filled(directory: Path, steps: int, *, keep_replay: bool = False) -> CheckpointStore:
    """Return a store with one episode and one checkpoint at each of the steps 1, 2, …."""
    store, replay = CheckpointStore(directory, keep_replay=keep_replay), make_replay()
    for step in range(1, steps + 1):
        replay.add(episode(step - 1))
        store.save(step, {"number": step, "replay": replay.state_dict()}, replay)
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def shards(*numbers: int) -> list[str]:
    return [f"episodes-{n:09d}-{n:09d}.npz" for n in numbers]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.load() is None
    state = {
        "float": 0.1,
        "big": 2**127 + 1,  # NumPy's generators hold such integers
        "none": None,
        "array": np.arange(3, dtype=np.uint32),
        "number": np.float64(0.5),
        "tensor": torch.tensor([1.0, float("inf")]),
        "nested": {True: [np.zeros((2, 0)), ("x", 1)]},
    }
    store.save(7, state, None)
    loaded = CheckpointStore(tmp_path).load()
    assert loaded is not None
    back, manifest = loaded
    assert manifest["agent_step"] == 7
    assert back.keys() == state.keys()
    assert (back["float"], back["big"], back["none"], back["number"]) == (
        0.1,
        2**127 + 1,
        None,
        0.5,
    )
    assert back["array"].dtype == np.uint32
    assert back["array"].tolist() == [0, 1, 2]
    assert torch.equal(back["tensor"], state["tensor"])
    assert back["nested"][True][0].shape == (2, 0)
    assert back["nested"][True][1] == ("x", 1)


def test_storable_values_are_copies() -> None:
    """What training does next must not reach into a state that is being written."""
    array = np.zeros(2)
    stored = to_storable({"a": array})
    array += 1
    assert from_storable(stored)["a"].tolist() == [0, 0]


def test_two_checkpoints_are_kept_and_the_episodes_they_need(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    assert names(store.folder) == ["000000000002", "000000000003"]
    assert names(store.shard_folder) == shards(0, 1, 2)
    store = filled(tmp_path / "longer", 5)  # the memory holds the newest three episodes
    assert names(store.folder) == ["000000000004", "000000000005"]
    assert names(store.shard_folder) == shards(1, 2, 3, 4)


def test_all_episodes_stay_where_they_are_to_be_kept(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, keep_replay=True)
    assert names(store.folder) == ["000000000004", "000000000005"]
    assert names(store.shard_folder) == shards(0, 1, 2, 3, 4)


def test_a_shard_is_written_once(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    first = (tmp_path / "replay" / shards(0)[0]).stat()
    filled_again = CheckpointStore(tmp_path)
    loaded = filled_again.load()
    assert loaded is not None
    filled_again.continue_from(loaded[1])
    replay = make_replay()
    replay.load_state_dict(loaded[0]["replay"], filled_again.episodes(loaded[1]))
    replay.add(episode(2))
    filled_again.save(3, state_of(3), replay)
    assert names(filled_again.shard_folder) == shards(0, 1, 2)
    assert (tmp_path / "replay" / shards(0)[0]).stat() == first


def test_episodes_come_back_as_they_were(tmp_path: Path) -> None:
    """Several episodes of different lengths in one shard; the buffer has removed the first."""
    store, replay = CheckpointStore(tmp_path), make_replay()
    lengths = (3, 2, 4, 3)  # 4 + 3 + 5 rows fill the buffer; the fourth episode drops the first
    for number in range(3):
        replay.add(episode(number, lengths[number]))
    store.save(1, {"replay": replay.state_dict()}, replay)
    replay.add(episode(3, lengths[3]))
    store.save(2, {"replay": replay.state_dict()}, replay)
    assert names(store.shard_folder) == ["episodes-000000000-000000002.npz", *shards(3)]

    reopened = CheckpointStore(tmp_path)
    loaded = reopened.load()
    assert loaded is not None
    back = list(reopened.episodes(loaded[1]))
    assert [len(e) for e in back] == [2, 4, 3]
    for number, got in zip((1, 2, 3), back, strict=True):
        wanted = episode(number, lengths[number])
        assert (got.obs == wanted.obs).all()
        assert (got.action == wanted.action).all()
        assert (got.reward == wanted.reward).all()
        assert (got.terminated, got.task) == (wanted.terminated, wanted.task)
    restored = make_replay()
    restored.load_state_dict(loaded[0]["replay"], back)
    assert torch.equal(restored.reward.nan_to_num(-1), replay.reward.nan_to_num(-1))
    assert torch.equal(restored.sample(64, 1).obs, replay.sample(64, 1).obs)


def test_episodes_that_came_and_went_between_checkpoints_are_not_missed(tmp_path: Path) -> None:
    store, replay = CheckpointStore(tmp_path), make_replay()
    for number in range(5):
        replay.add(episode(number))
    store.save(5, {"replay": replay.state_dict()}, replay)
    assert names(store.shard_folder) == ["episodes-000000002-000000004.npz"]
    loaded = CheckpointStore(tmp_path).load()
    assert loaded is not None
    assert [int(e.obs[0, 0]) for e in store.episodes(loaded[1])] == [2, 3, 4]


def test_going_on_from_the_previous_one_forgets_the_latest(tmp_path: Path) -> None:
    """And the shards that were removed after the previous one had listed them."""
    filled(tmp_path, 8)
    store = CheckpointStore(tmp_path)
    loaded = store.load("previous")
    assert loaded is not None
    assert loaded[0]["number"] == 7
    store.continue_from(loaded[1])
    assert names(store.folder) == ["000000000007"]
    assert names(store.shard_folder) == shards(4, 5, 6)
    assert [shard["name"] for shard in store.shards] == shards(4, 5, 6)


def test_a_finished_run_keeps_one_checkpoint_without_episodes(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.save(4, state_of(4), None)
    store.forget_history()
    assert names(store.folder) == ["000000000004"]
    assert names(store.shard_folder) == []


def test_a_finished_run_may_keep_its_episodes(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, keep_replay=True)
    store.forget_history()
    assert names(store.folder) == ["000000000005"]
    assert names(store.shard_folder) == shards(0, 1, 2, 3, 4)


def test_saving_a_step_again_leaves_what_is_there(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    before = (store.folder / "000000000002" / "state.pt").read_bytes()
    store.save(2, state_of(99), None)
    assert (store.folder / "000000000002" / "state.pt").read_bytes() == before


def test_starting_anew_removes_everything(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    store.clear()
    assert store.load() is None
    assert names(store.shard_folder) == []


def test_an_interrupted_save_leaves_nothing_half_done(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    with pytest.raises(Exception, match="pickle"):
        store.save(3, {"not to be saved": (i for i in range(3))}, None)
    assert names(store.folder) == ["000000000001", "000000000002"]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "state": (lambda p: os.truncate(p / "state.pt", 10), "checksum of state.pt does not match"),
    "no state": (lambda p: (p / "state.pt").unlink(), "a file is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "a file is missing"),
    "no object": (lambda p: write_json(p / "manifest.json", [1]), "indices must be integers"),
    "no format": (lambda p: write_json(p / "manifest.json", {}), "'format'"),
    "another format": (
        lambda p: write_json(p / "manifest.json", {"format": 2}),
        "format 2, this code reads 1",
    ),
    "no shard": (
        lambda p: (p.parents[1] / "replay" / shards(1)[0]).unlink(),
        f"episode shard {shards(1)[0]} is missing or damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_the_way_out_too(name: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    damage, what = DAMAGES[name]
    damage(store.folder / "000000000002")
    with pytest.raises(UserError) as caught:
        store.load()
    assert what in str(caught.value)
    assert "with checkpoint=previous" in str(caught.value)
    loaded = store.load("previous")
    assert loaded is not None
    assert loaded[0]["number"] == 1


def test_episodes_no_longer_needed_may_be_missing(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, keep_replay=True)
    for name in shards(0, 1):
        (store.shard_folder / name).unlink()
    assert store.load() is not None  # it needs episodes 2 to 4
    with pytest.raises(UserError, match="is missing or damaged"):
        store.load("previous")


def test_the_agent_loads_without_the_episodes(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    for path in store.shard_folder.iterdir():
        path.unlink()
    assert store.load_agent(store.existing()[-1])["number"] == 2


def test_there_may_be_no_previous_one(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    with pytest.raises(UserError, match="there is no checkpoint before the latest"):
        store.load("previous")
    os.truncate(store.folder / "000000000001" / "state.pt", 10)
    with pytest.raises(UserError, match="there is no earlier one"):
        store.load()


def save_beyond_the_limit(directory: Path, size: int, answer: Any) -> None:
    """Save a state of `size` floats with a file-size limit of 60 kB; send the error message."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        CheckpointStore(directory).save(3, {"weights": torch.zeros(size)}, None)
    except UserError as error:
        answer.send(str(error))


@pytest.mark.parametrize("size", [16_000, 200_000])
def test_a_full_disk_leaves_the_checkpoint_before(size: int, tmp_path: Path) -> None:
    """For large tensors torch raises a RuntimeError of its own instead of the OSError."""
    store = filled(tmp_path, 2)
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=save_beyond_the_limit, args=(tmp_path, size, theirs))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "no space left for a checkpoint (File too large)" in ours.recv()
    assert names(store.folder) == ["000000000001", "000000000002"]
    assert store.load() is not None


def test_the_manifest_says_what_the_checkpoint_needs(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    manifest = read_json(store.folder / "000000000005" / "manifest.json")
    assert manifest["oldest_episode"] == 2
    assert [shard["name"] for shard in manifest["shards"]][-3:] == shards(2, 3, 4)


def test_a_checkpoint_of_the_same_step_is_replaced_on_request(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.save(3, state_of(30), None, replace=True)
    assert names(store.folder) == ["000000000002", "000000000003"]
    state, manifest = store.load() or ({}, {})
    assert state["number"] == 30
    store.continue_from(manifest)
    assert names(store.folder) == ["000000000002", "000000000003"]


@pytest.mark.parametrize("renamed", [1, 2], ids=["old one", "both"])
def test_a_kill_while_a_checkpoint_is_replaced(
    renamed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one rename the replaced checkpoint is the newest, after two the new one."""
    store = filled(tmp_path, 3)
    rename, calls = os.rename, 0

    def stop(old: Path, new: Path) -> None:
        nonlocal calls
        if calls == renamed:
            raise KeyboardInterrupt
        calls += 1
        rename(old, new)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stop)
        if renamed == 2:
            patch.setattr("tdmpc2.common.run.checkpoint.fsync_directory", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(3, state_of(30), None, replace=True)
    for which, numbers in {"latest": (3, 30), "previous": (2, 3), 2: (2, 2)}.items():
        state, _ = CheckpointStore(tmp_path).load(which) or ({}, {})  # type: ignore[arg-type]
        assert state["number"] == numbers[renamed - 1]
    store = CheckpointStore(tmp_path)
    state, manifest = store.load("previous") or ({}, {})
    store.continue_from(manifest)
    remaining = [store.load_agent(path)["number"] for path in store.existing()]
    assert remaining[-1] == state["number"]
    store.save(3, state_of(31), None, replace=True)
    assert names(store.folder) == ["000000000002", "000000000003"]
    assert store.load_agent(store.existing()[-1])["number"] == 31


def test_a_state_that_cannot_be_loaded_again_is_refused() -> None:
    good = {"a": 2**100, "b": np.zeros(2), "c": [np.float32(1), (None, "x")]}
    require_storable("env: generator_state()", good)
    for bad in (np.random.default_rng(0), {"rng": np.random.RandomState(0)}, lambda: 3):
        with pytest.raises(UserError, match=r"^env: generator_state\(\) returned .*, which"):
            require_storable("env: generator_state()", bad)


@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "episodes"])
def test_a_checkpoint_that_cannot_be_read_at_present_is_not_damaged(
    name: str, tmp_path: Path
) -> None:
    """The advice to move the run away would lose the run because of a passing error."""
    store = filled(tmp_path, 2)
    path = store.existing()[-1] / name
    if name == "episodes":
        path = tmp_path / "replay" / shards(1)[0]
    with unreadable(path), pytest.raises(UserError) as caught:
        store.load()
    what = "cannot be read (Input/output error); check the disk or the file server, and run"
    assert str(caught.value).startswith(f"{path}: {what}")
    loaded = store.load()
    assert loaded is not None
    assert loaded[0]["number"] == 2


def test_an_error_of_the_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    temporary = store.folder / f".{2:012d}.tmp" / "state.pt"

    class Broken:
        """A value at whose saving the file becomes one that cannot be written."""

        def __reduce__(self) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(temporary))

    with pytest.raises(UserError, match=r"cannot be written \(Input/output error\); the previous"):
        store.save(2, {"number": Broken()}, None)
    assert names(store.folder) == [f"{1:012d}"]
    loaded = store.load()
    assert loaded is not None
    assert loaded[0]["number"] == 1
