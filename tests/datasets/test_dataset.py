"""Faults detected on opening a dataset, and faults detected only by reading all of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.data.rows import HEADER_BYTES, assemble, first_fault, last_rows, npy_header
from tdmpc2.data.summary import summarize
from tests.datasets.helpers import FOUR, episode, four_tasks, generator, make_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a valid dataset of four tasks, in nine shards."""
    dataset, _ = four_tasks(tmp_path / "d", shard_bytes=600)
    assert len(dataset.all_shards) == 9
    return dataset.folder


def faults(folder: Path) -> list[str]:
    return [fault for _, found in Dataset.open(folder).verify() for fault in found]


def change(folder: Path, edit: Callable[[Any], object], *, seal: bool = False) -> None:
    """Edit the manifest; with `seal`, update its checksum."""
    from tdmpc2.data.dataset import checksum_of

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    if seal:
        manifest["checksum"] = checksum_of(manifest["tasks"])
    path.write_text(json.dumps(manifest))


def reseal(folder: Path, shard: int = 0) -> None:
    """Write the current checksums of a shard into the manifest, as if it had been written so."""
    from tdmpc2.common.system.atomic_files import sha256_of

    one = Dataset.open(folder).all_shards[shard]

    def edit(manifest: Any) -> None:
        entries = [entry for task in manifest["tasks"] for entry in task["shards"]]
        entries[shard]["sha256"] = sha256_of(one.path)
        entries[shard]["episodes_sha256"] = sha256_of(one.episodes_path)

    change(folder, edit, seal=True)


# --- contents ------------------------------------------------------------------------


def test_shards_hold_whole_episodes_of_one_task(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert (dataset.name, dataset.tasks) == (None, FOUR)
    assert dataset.num_episodes == 11
    assert dataset.num_transitions == sum((9, 3, 14, 2, 6, 11, 1, 4, 5, 8, 3))
    for task in FOUR:
        for shard in dataset.shards(task):
            rows, episodes = shard.rows(), shard.episodes()
            assert (rows.dtype, episodes.dtype) == (np.float32, np.int32)
            assert isinstance(rows, np.memmap)
            assert len(rows) == shard.num_rows == (episodes[:, 0] + 1).sum()
            last = last_rows(episodes[:, 0])
            assert np.isnan(rows[last, shard.obs_dim :]).all()
            assert np.isfinite(rows[~last]).all()
            assert rows.nbytes + HEADER_BYTES == shard.path.stat().st_size
            assert shard.path.stat().st_size <= 600 or len(episodes) == 1
    ends = [shard.episodes()[:, 1].tolist() for shard in dataset.shards(FOUR[3])]
    assert [end for shard in ends for end in shard] == [1, 0, 1]


def test_a_whole_dataset_has_no_fault(folder: Path) -> None:
    assert faults(folder) == []


def test_its_checksum_is_of_the_content_not_of_the_folder(folder: Path, tmp_path: Path) -> None:
    one = Dataset.open(folder)
    moved = Dataset.open(shutil.copytree(folder, tmp_path / "elsewhere"))
    again, _ = four_tasks(tmp_path / "again", shard_bytes=600)
    assert one.checksum == moved.checksum == again.checksum
    other, _ = four_tasks(tmp_path / "other", shard_bytes=600, dtype="float16")
    swapped = make_dataset(tmp_path / "s", {task: [episode(task, 1, 5)] for task in FOUR[::-1]})
    plain = make_dataset(tmp_path / "p", {task: [episode(task, 1, 5)] for task in FOUR})
    assert len({one.checksum, other.checksum, swapped.checksum, plain.checksum}) == 4


def test_the_header_is_what_numpy_reads(tmp_path: Path) -> None:
    for shape, dtype in (((0, 5), "float16"), ((10**9, 47), "float32"), ((7, 2), "int32")):
        path = tmp_path / "x.npy"
        path.write_bytes(npy_header(shape, dtype))
        assert path.stat().st_size == HEADER_BYTES
        with open(path, "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0(file)
        assert read == (shape, False, np.dtype(dtype))


# --- opening -------------------------------------------------------------------------


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a dataset \(there is no manifest\.json\)"):
        Dataset.open(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        Dataset.open(tmp_path / "nowhere")
    (tmp_path / "unfinished.json").write_text("{}")
    with pytest.raises(UserError, match="unfinished: run the command"):
        Dataset.open(tmp_path)


BAD_MANIFESTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "format": (lambda m: m.update(format=2), "format 2, but this version reads 1"),
    "no format": (lambda m: m.pop("format"), "damaged"),
    "no tasks": (lambda m: m.pop("tasks"), "damaged"),
    "tasks of another kind": (lambda m: m.update(tasks=3), "damaged"),
    "a task gone": (lambda m: m["tasks"].pop(), "its checksum does not match"),
    "another order": (lambda m: m["tasks"].reverse(), "its checksum does not match"),
    "another count": (lambda m: m["tasks"][1].update(episodes=2), "counts of cheetah-run"),
    "another dtype": (lambda m: m["tasks"][1]["shards"][0].update(dtype="int8"), "dtype int8"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_damaged_manifests_are_refused(name: str, folder: Path) -> None:
    edit, hint = BAD_MANIFESTS[name]
    change(folder, edit)
    with pytest.raises(UserError, match=hint):
        Dataset.open(folder)


def test_a_cut_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:300])
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        Dataset.open(folder)


def test_dims_must_be_the_task_tables(folder: Path) -> None:
    change(folder, lambda m: m["tasks"][2].update(obs_dim=7), seal=True)
    with pytest.raises(UserError, match="cartpole-swingup has obs_dim 7 in the dataset, but 5"):
        Dataset.open(folder)
    change(folder, lambda m: m["tasks"][2].update(obs_dim=5, name="cartpole"), seal=True)
    with pytest.raises(UserError, match="unknown task 'cartpole'"):
        Dataset.open(folder)


@pytest.mark.parametrize("name", ["cheetah-run-000.npy", "cheetah-run-000.episodes.npy"])
def test_missing_and_cut_files_are_found_at_once(name: str, folder: Path) -> None:
    path = folder / "shards" / name
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    size = len(content)
    hint = f"{path.name}: {size - 3:,} bytes instead of {size:,}: incomplete or damaged"
    with pytest.raises(UserError, match=hint):
        Dataset.open(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}: missing"):
        Dataset.open(folder)


def test_unknown_tasks_are_answered_with_the_closest(folder: Path) -> None:
    with pytest.raises(UserError, match=r"has no task 'walker-wlak' \(did you mean 'walker-walk'"):
        Dataset.open(folder).shards("walker-wlak")


# --- verifying -----------------------------------------------------------------------


def overwrite(path: Path, position: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(content)


def test_one_flipped_bit_is_named(folder: Path) -> None:
    shard = Dataset.open(folder).all_shards[3]
    position = HEADER_BYTES + 9
    overwrite(shard.path, position, bytes([shard.path.read_bytes()[position] ^ 1]))
    (fault,) = faults(folder)
    assert fault.startswith(f"{shard.path}: its checksum differs from the manifest")


def test_changed_episodes_are_used_nowhere(folder: Path) -> None:
    """A longer episode would move the borders of the others, or exceed the rows."""
    dataset = Dataset.open(folder)
    shard = dataset.all_shards[0]
    overwrite(shard.episodes_path, HEADER_BYTES, bytes([shard.episodes()[0, 0] ^ 2]))
    for read in (
        lambda: summarize(dataset, shard.task),
        lambda: OfflineReplay(dataset, [shard.task], 1, 24, 6, generator=generator()),
    ):
        with pytest.raises(UserError, match=f"{shard.episodes_path}: its checksum differs"):
            read()


def test_a_damaged_header_is_named(folder: Path) -> None:
    shard = Dataset.open(folder).all_shards[0]
    overwrite(shard.path, 0, b"junk")
    found = faults(folder)
    assert "checksum" in found[0]
    assert f"{shard.path}: cannot be read" in found[1]
    overwrite(shard.path, 0, npy_header((shard.num_rows, 2), "float32"))
    assert "holds" in faults(folder)[1]


def test_damaged_episodes_are_named(folder: Path) -> None:
    shard = Dataset.open(folder).all_shards[0]
    for place, value, hint in (
        (0, 8, "10 rows, but the episodes of walker-walk take 9"),
        (0, 0, "episode 0 of walker-walk has no transition"),
        (4, 2, "episode 0 of walker-walk has a termination flag other than 0 and 1"),
    ):
        before = shard.episodes_path.read_bytes()
        overwrite(shard.episodes_path, HEADER_BYTES + place, int(value).to_bytes(4, "little"))
        found = faults(folder)
        assert len(found) == 2
        assert hint in found[1]
        shard.episodes_path.write_bytes(before)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("row", "column", "value", "hint"),
    [
        (4, 2, np.nan, "row 4: observation 2 is nan"),
        (9, 16, -np.inf, "row 9: observation 16 is -inf"),
        (1, 18, -1.001, "row 1: action 1 is -1.00"),
        (1, 17, np.nan, "row 1: action 0 is nan"),
        (3, 23, np.inf, "row 3: reward is inf"),
        (3, 23, np.nan, "row 3: reward is nan"),
        (6, 23, 0.0, "row 6: reward is 0.0 after the last transition, not NaN"),
        (10, 20, np.inf, "row 10: action 3 is inf after the last transition, not NaN"),
    ],
)
def test_values_that_do_not_belong_are_named(
    row: int, column: int, value: float, hint: str, dtype: str, tmp_path: Path
) -> None:
    """Written by other software, with valid checksums: 6 + 3 transitions of cheetah-run."""
    pair = [episode("cheetah-run", 1, 6), episode("cheetah-run", 2, 3)]
    folder = make_dataset(tmp_path / "d", {"cheetah-run": pair}, dtype=dtype).folder
    shard = Dataset.open(folder).all_shards[0]
    rows = np.load(shard.path)
    rows[row, column] = value
    shard.path.write_bytes(npy_header(rows.shape, dtype) + rows.tobytes())
    reseal(folder)
    (fault,) = faults(folder)
    assert fault.startswith(f"{shard.path}: cheetah-run, {hint}")


def test_the_limits_themselves_belong() -> None:
    """Actions of ±1, and the largest finite numbers."""
    for dtype in (np.float32, np.float16):
        most = np.finfo(dtype).max
        rows = np.array([[most, 1, -most], [-most, -1, most], [0.0, np.nan, np.nan]], dtype)
        last = np.array([False, False, True])
        assert first_fault(rows, last, 1) is None
        rows[1, 1] = np.nextafter(rows[1, 1], dtype(-2))
        assert first_fault(rows, last, 1).row == 1


def test_rows_of_several_episodes_are_put_together() -> None:
    """Computed by hand: T of 2 and 1, obs_dim 1 and action_dim 1."""
    rows = assemble(
        np.arange(5.0)[:, None],
        np.array([[0.1], [0.2], [0.3]]),
        np.array([1.0, 2.0, 3.0]),
        np.array([2, 1]),
    )
    nan = np.nan
    expected = [[0, 0.1, 1], [1, 0.2, 2], [2, nan, nan], [3, 0.3, 3], [4, nan, nan]]
    np.testing.assert_array_equal(rows, np.array(expected, np.float32))
