"""Official files against the datasets converted from them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.data import chunks, writer
from tdmpc2.data.convert import convert
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.data.options import ConvertOptions
from tdmpc2.data.writer import DatasetWriter
from tdmpc2.envs.tasks import get_suite, get_task
from tests.datasets.helpers import exit_code_of, generator
from tests.datasets.official import LAYOUTS, Layout, Tensors, half, items, save, split
from tests.disk_errors import make_hole

SUITES = ("mt30", "mt80")


def options(tmp_path: Path, suite: str = "mt80", **changes: Any) -> ConvertOptions:
    values = {"files": str(tmp_path / "in"), "suite": suite, "out": tmp_path / "d", "trust": True}
    return ConvertOptions(**{**values, **changes})


def write(tmp_path: Path, tensors: Tensors, *cuts: int, layout: Layout = "0.15") -> list[Path]:
    """Write chunks to a new folder, numbered from 8."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    parts = enumerate(split(tensors, *cuts), 8)
    return [save(folder / f"chunk_{i}.pt", part, layout) for i, part in parts]


def assert_converted(dataset: Dataset, tensors: Tensors, suite: str, dtype: str) -> None:
    """All numbers agree: the action and reward of row t + 1 there belong to row t here."""
    task_of, num_rows = tensors["task"][:, 0].numpy(), tensors["task"].shape[1]
    assert dataset.tasks == tuple(task.name for task in get_suite(suite))
    for index, task in enumerate(get_suite(suite)):
        rows = np.concatenate([shard.rows() for shard in dataset.shards(task.name)])
        episodes = np.concatenate([shard.episodes() for shard in dataset.shards(task.name)])
        chosen = np.flatnonzero(task_of == index)
        assert rows.dtype == np.dtype(dtype)
        assert episodes.tolist() == [[num_rows - 1, 0]] * len(chosen)
        for i, item in enumerate(chosen):
            one = rows[i * num_rows : (i + 1) * num_rows]
            o, a = task.obs_dim, task.action_dim
            np.testing.assert_array_equal(one[:, :o], tensors["obs"][item, :, :o].numpy())
            np.testing.assert_array_equal(one[:-1, o:-1], tensors["action"][item, 1:, :a].numpy())
            np.testing.assert_array_equal(one[:-1, -1], tensors["reward"][item, 1:].numpy())
            assert np.isnan(one[-1, o:]).all()
    assert all(not found for _, found in dataset.verify())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("filler", [float("nan"), 1e4])
def test_both_datasets_with_any_filler(
    filler: float, stored: str, suite: str, tmp_path: Path
) -> None:
    tensors = items(suite, filler=filler)
    write(tmp_path, half(tensors) if stored == "float16" else tensors, 7, 20)
    dataset = convert(options(tmp_path, suite))
    assert dataset.name == suite
    assert_converted(dataset, tensors, suite, stored)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: Layout, tmp_path: Path) -> None:
    tensors = items("mt80", per_task=2)
    write(tmp_path, tensors, 50, 90, layout=layout)
    dataset = convert(options(tmp_path))
    assert_converted(dataset, tensors, "mt80", "float32")


def test_files_of_a_real_tensordict(tmp_path: Path) -> None:
    tensordict = pytest.importorskip("tensordict")
    tensors = items("mt80")
    made = tensordict.TensorDict(half(tensors), batch_size=tensors["task"].shape)
    (tmp_path / "in").mkdir()
    torch.save(made[:30].clone(), tmp_path / "in" / "chunk_0.pt")
    torch.save(torch.cat([made[30:31], made[31:]]), tmp_path / "in" / "chunk_1.pt")
    assert_converted(convert(options(tmp_path)), tensors, "mt80", "float16")


@pytest.mark.parametrize(("stored", "wanted"), [("float32", "float16"), ("float16", "float32")])
def test_another_dtype(stored: str, wanted: Any, tmp_path: Path) -> None:
    tensors = items("mt80")
    write(tmp_path, half(tensors) if stored == "float16" else tensors)
    assert_converted(convert(options(tmp_path, dtype=wanted)), tensors, "mt80", wanted)


def test_the_widest_dtype_of_all_files(tmp_path: Path) -> None:
    tensors = items("mt80")
    write(tmp_path, half(tensors), 40)
    second = list(split(tensors, 40))[1]
    save(tmp_path / "in" / "chunk_9.pt", {**half(second), "reward": second["reward"]})
    assert_converted(convert(options(tmp_path)), tensors, "mt80", "float32")


def test_small_blocks_and_shards_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = items("mt80", per_task=3)
    write(tmp_path, tensors, 100)
    whole = convert(options(tmp_path))
    assert len(whole.all_shards) == 80
    monkeypatch.setattr(chunks, "_BLOCK_BYTES", 7 * 101 * 46 * 4)
    monkeypatch.setattr(writer, "MB", 20_000)
    parts = convert(options(tmp_path, out=tmp_path / "e", shard_mb=1))
    assert len(parts.all_shards) > 160
    assert_converted(parts, tensors, "mt80", "float32")


def test_files_by_name_and_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Of chunk_8 … chunk_10, the tenth is last, although its name sorts first."""
    tensors = items("mt80", per_task=2)
    paths = write(tmp_path, tensors, 50, 90)
    dataset = convert(options(tmp_path))
    assert [path.name for path in paths][-1] == "chunk_10.pt"
    assert_converted(dataset, tensors, "mt80", "float32")
    named = convert(options(tmp_path, files=",".join(map(str, paths)), out=tmp_path / "e"))
    assert named.checksum == dataset.checksum
    assert named.manifest["provenance"]["files"] == [
        {"name": p.name, "bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in paths
    ]


def test_it_can_be_sampled(tmp_path: Path) -> None:
    write(tmp_path, items("mt80", per_task=2))
    dataset = convert(options(tmp_path))
    replay = OfflineReplay(dataset, dataset.tasks, 3, 39, 6, generator=generator())
    assert replay.num_transitions == 160 * 100
    assert replay.num_starts == 160 * 98
    batch = replay.sample(256)
    assert not batch.terminated.any()
    assert all(torch.isfinite(x).all() for x in batch[:4])


# --- rejected ------------------------------------------------------------------------


def test_without_trust_nothing_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a pickle can run any program when it is opened"):
        options(tmp_path, trust=False)


def at(key: str, *place: Any, value: float) -> Callable[[Tensors], None]:
    """Return a function that sets one number of a tensor."""

    def edit(tensors: Tensors) -> None:
        tensors[key][place] = value

    return edit


def item_of(tensors: Tensors, task: str) -> int:
    """Return the first item of a task."""
    names = [each.name for each in get_suite("mt80")]
    return int((tensors["task"][:, 0] == names.index(task)).nonzero()[0])


FAULTS: dict[str, tuple[str, tuple[Any, ...], float, str]] = {
    "padded obs": ("obs", (5, 8), 1e-3, r"row 5: obs 8 is 0\.001.*, not 0, but .* has only 8"),
    "last obs": ("obs", (100, 38), 1.0, r"row 100: obs 38 is 1\.0, not 0"),
    "NaN padding": ("obs", (0, 20), np.nan, "row 0: obs 20 is nan, not 0"),
    "padded action": ("action", (1, 2), -1.0, r"row 1: action 2 is -1\.0, not 0, .* has only 2"),
    "NaN obs": ("obs", (4, 3), np.nan, "row 4: observation 3 is nan"),
    "NaN action": ("action", (3, 1), np.nan, "row 3: action 1 is nan"),
    "action": ("action", (100, 0), 1.5, r"row 100: action 0 is 1\.5 \(not in \[-1, 1\]\)"),
    "reward": ("reward", (1,), np.inf, "row 1: reward is inf"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_file_item_task_and_row(name: str, tmp_path: Path) -> None:
    key, place, value, hint = FAULTS[name]
    tensors = items("mt80")
    item = item_of(tensors, "cup-catch")  # obs_dim 8, action_dim 2
    tensors[key][(item, *place)] = value
    write(tmp_path, tensors, 10)
    file, item = ("chunk_8", item) if item < 10 else ("chunk_9", item - 10)
    with pytest.raises(UserError, match=rf"{file}\.pt: item {item} \(cup-catch\), {hint}"):
        convert(options(tmp_path))
    assert not (tmp_path / "d" / "manifest.json").exists()


def test_what_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    tensors = items("mt80")
    item = item_of(tensors, "walker-walk")
    tensors["obs"][item, 7, 23] = 1e6
    write(tmp_path, tensors)
    with pytest.raises(UserError, match=rf"item {item} \(walker-walk\), row 7: obs.* 23 is inf"):
        convert(options(tmp_path, dtype="float16"))


def test_wrong_tasks_are_named(tmp_path: Path) -> None:
    for edit, hint in (
        (at("task", 3, slice(None), value=80), r"item 3: task 80, but the suite has 80 \(0 to 79"),
        (at("task", 3, slice(None), value=-1), "item 3: task -1, but"),
        (at("task", 4, 50, value=7), "item 4: its rows have different task indices"),
    ):
        tensors = items("mt80")
        tensors["task"][4] = 8
        edit(tensors)
        write(tmp_path, tensors)
        with pytest.raises(UserError, match=rf"chunk_8\.pt: {hint}"):
            convert(options(tmp_path))
    assert not (tmp_path / "d").exists()


def test_tasks_may_be_stored_as_floats_if_they_are_whole(tmp_path: Path) -> None:
    tensors = items("mt80")
    write(tmp_path, {**tensors, "task": tensors["task"].half()})
    assert_converted(convert(options(tmp_path)), tensors, "mt80", "float32")
    for value, hint in ((0.5, "item 2: its rows have different"), (float("nan"), "not finite")):
        wrong = tensors["task"].half()
        wrong[2] = value
        write(tmp_path, {**tensors, "task": wrong})
        with pytest.raises(UserError, match=hint):
            convert(options(tmp_path, out=tmp_path / "e"))


BAD_FILES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "rows of the other suite": (
        lambda t: {k: x[:, :100] for k, x in t.items()},
        r"'obs' has shape \(80, 100, 39\), expected \(80, 101, 39\)",
    ),
    "other dims": (
        lambda t: {**t, "obs": t["obs"][..., :24]},
        r"\(80, 101, 24\), expected \(80, 101, 39",
    ),
    "other items": (
        lambda t: {**t, "reward": t["reward"][:9]},
        r"\(9, 101\), expected \(80, 101\)",
    ),
    "no task": (
        lambda t: {k: x for k, x in t.items() if k != "task"},
        "has no 'task', only action",
    ),
    "no rows": (
        lambda t: {**t, "obs": torch.zeros(())},
        r"'obs' has shape \(\), expected \(101, 39\)",
    ),
    "other tasks": (
        lambda t: {**t, "task": t["task"].bfloat16()},
        "'task' has dtype torch.bfloat16",
    ),
    "doubles": (lambda t: {**t, "obs": t["obs"].double()}, "'obs' has dtype torch.float64"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_of_another_shape_are_refused(name: str, tmp_path: Path) -> None:
    edit, hint = BAD_FILES[name]
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "chunk_8.pt", edit(items("mt80")))
    with pytest.raises(UserError, match=rf"chunk_8\.pt: .*{hint}"):
        convert(options(tmp_path))
    assert not (tmp_path / "d").exists()


def test_a_dataset_of_the_other_suite_is_refused(tmp_path: Path) -> None:
    write(tmp_path, items("mt30"))
    with pytest.raises(UserError, match=r"\(30, 501, 24\), expected \(30, 101, 39\)"):
        convert(options(tmp_path, "mt80"))


def test_a_missing_chunk_is_noticed(tmp_path: Path) -> None:
    tensors = items("mt80")
    first = {key: x[tensors["task"][:, 0] < 70] for key, x in tensors.items()}
    write(tmp_path, first)
    with pytest.raises(UserError, match=r"no episodes of .* \(10 of 80 tasks\); give all files"):
        convert(options(tmp_path))


def test_a_copy_of_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Such as that of a second download; its episodes would be sampled twice as often."""
    path, *_ = write(tmp_path, items("mt80"), 40)
    copy = path.with_name("chunk_8 (1).pt")
    shutil.copyfile(path, copy)
    with pytest.raises(UserError, match=r"chunk_8.*\.pt: a copy of chunk_8.*\.pt; leave one of"):
        convert(options(tmp_path))
    assert not (tmp_path / "d").exists()


def test_a_cut_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    paths = write(tmp_path, items("mt80"), 40)
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    with pytest.raises(UserError, match=r"chunk_9\.pt: incomplete"):
        convert(options(tmp_path))
    assert not (tmp_path / "d").exists()


def test_a_file_with_a_hole_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A download that was interrupted has the right size, and zeros where data are missing."""
    paths = write(tmp_path, items("mt80"), 40)
    name = make_hole(paths[1], 10_000)
    message = rf"chunk_9\.pt: damaged, the checksum of {name} does not match; get the file again"
    with pytest.raises(UserError, match=message):
        convert(options(tmp_path))
    assert not (tmp_path / "d").exists()


def test_bad_options(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for changes, hint in (
        ({"files": None}, "files=None"),
        ({"suite": None}, "suite=None"),
        ({"out": None}, "out=None"),
        ({"shard_mb": 0}, "shard_mb=0"),
        ({}, r"contains no \.pt files"),
        ({"files": "x.pt,x.pt"}, "a file is named twice"),
        ({"files": str(tmp_path / "x.pt")}, r"x\.pt: no such file"),
    ):
        with pytest.raises(UserError, match=hint):
            convert(options(tmp_path, **changes))


# --- nothing is overwritten, and nothing is lost ---------------------------------------


def test_a_killed_conversion_begins_again(tmp_path: Path) -> None:
    tensors = items("mt80")
    write(tmp_path, tensors)

    def body() -> None:
        made, calls = DatasetWriter.finish_task, []

        def struck(*args: Any) -> None:
            calls.append(1)
            if len(calls) == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            made(*args)

        DatasetWriter.finish_task = struck  # type: ignore[method-assign]
        convert(options(tmp_path))

    assert exit_code_of(body) == -signal.SIGKILL
    assert len(list((tmp_path / "d" / "shards").glob("*-000.npy"))) == 19
    dataset = convert(options(tmp_path))
    assert_converted(dataset, tensors, "mt80", "float32")
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"manifest.json", "shards"}
    with pytest.raises(UserError, match="contains a finished dataset"):
        convert(options(tmp_path))


def test_the_dims_of_the_suites_are_the_official_ones() -> None:
    """The official tensors are padded to 24 and 6 dimensions (mt30), or 39 and 6 (mt80)."""
    for suite, dims in (("mt30", (24, 6)), ("mt80", (39, 6))):
        layout = chunks.layout_of(suite, get_suite(suite))
        assert (layout.obs_dim, layout.action_dim) == dims
    assert get_task("mw-push").obs_dim == 39
