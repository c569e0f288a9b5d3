"""Runs recorded with TensorBoard and Sacred, written by those packages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sacred import Experiment
from sacred.observers import FileStorageObserver
from torch.utils.tensorboard import SummaryWriter

from analysis.records.load import Records, load_curves


def board(path: Path, scalars: dict[str, list[tuple[int, float]]]) -> None:
    with SummaryWriter(str(path)) as writer:
        for tag, points in scalars.items():
            for step, value in points:
                writer.add_scalar(tag, value, step)


def experiment(path: Path, config: dict[str, object], scalars: dict[str, list[tuple[int, float]]]):
    ex = Experiment("test", save_git_info=False)
    ex.add_config(config)
    ex.observers.append(FileStorageObserver(path))

    @ex.main
    def run() -> None:
        for name, points in scalars.items():
            for step, value in points:
                ex.log_scalar(name, value, step)

    ex.run()


def points(records: Records) -> dict[tuple[str, str, int], list[tuple[int, float]]]:
    found: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for row in records.table.itertuples():
        found.setdefault((row.method, row.task, row.seed), []).append((row.step, row.value))
    return found


def test_tensorboard_runs(tmp_path):
    curve = [(0, 1.5), (1000, 250.0)]
    board(tmp_path / "mine" / "walker-walk" / "seed3", {"eval/episode_reward": curve, "loss": []})
    board(tmp_path / "mine" / "mw-reach" / "1" / "tb", {"eval/success": [(0, 0.5)]})
    # Evaluations take precedence over returns of exploration.
    both = {"episode_reward": [(0, 9.0)], "eval/episode_reward": [(0, 2.0)]}
    board(tmp_path / "mine" / "cup-catch" / "2", both)
    records = load_curves(tmp_path, "board", "tensorboard")
    assert records.problems == ()
    assert points(records) == {
        ("mine", "cup-catch", 2): [(0, 2.0)],
        ("mine", "mw-reach", 1): [(0, 0.5)],
        ("mine", "walker-walk", 3): curve,
    }
    assert set(records.table["source"]) == {"board"}


def test_sacred_runs(tmp_path):
    curve = [(0, 1.5), (1000, 250.0)]
    config = {"task": "walker-walk", "seed": 4}
    experiment(tmp_path / "runs", {**config, "method": "mine"}, {"episode_return": curve})
    experiment(tmp_path / "runs", {**config, "task": "mw-reach"}, {"eval/success": [(0, 0.25)]})
    records = load_curves(tmp_path / "runs", "lab", "sacred")
    assert records.problems == ()
    assert points(records) == {
        ("mine", "walker-walk", 4): curve,
        ("lab", "mw-reach", 4): [(0, 0.25)],
    }


@pytest.mark.parametrize(
    ("place", "scalars", "what"),
    [
        ("mine/walker-walk/1", {"eval/return": [(0, 1e6)]}, "returns of walker-walk lie between"),
        ("walker-walk/1", {"eval/return": [(0, 1.0)]}, "not <method>/<task>/<seed>/"),
        ("mine/walker-walk/one", {"eval/return": [(0, 1.0)]}, "not <method>/<task>/<seed>/"),
        ("mine/walker-walk/1", {"loss": [(0, 1.0)]}, "no evaluation return .*loss"),
        ("mine/walker-walk/1", {"eval/success": [(0, 1.0)]}, "no evaluation return"),
    ],
)
def test_what_tensorboard_does_not_tell_is_a_problem(tmp_path, place, scalars, what):
    board(tmp_path / place, scalars)
    records = load_curves(tmp_path, "board", "tensorboard")
    assert records.table.empty
    (problem,) = records.problems
    assert problem.severity == "error"
    assert str(tmp_path / place) == problem.where
    assert re.search(what, problem.what)


def test_what_sacred_does_not_tell_is_a_problem(tmp_path):
    experiment(tmp_path, {"seed": 1}, {"episode_return": [(0, 1.0)]})
    experiment(tmp_path, {"seed": 1, "task": "walker-walk"}, {"episode_return": [(0, 1.0)]})
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "config.json").write_text(json.dumps({"seed": 1, "task": "walker-run"}))
    (tmp_path / "3" / "metrics.json").write_text("{")
    records = load_curves(tmp_path, "lab", "sacred")
    assert set(records.table["task"]) == {"walker-walk"}
    assert sorted(problem.where for problem in records.problems) == [
        *(str(tmp_path / "1"), str(tmp_path / "3")),
    ]


@pytest.mark.parametrize("form", ["tensorboard", "sacred"])
def test_an_empty_folder_is_an_error(tmp_path, form):
    (problem,) = load_curves(tmp_path, "x", form).problems
    assert (problem.where, problem.severity) == (str(tmp_path), "error")


def test_a_task_of_ones_own_is_read(tmp_path):
    board(tmp_path / "mine" / "my-robot" / "1", {"eval/mean_reward": [(0, 5000.0)]})
    records = load_curves(tmp_path, "board", "tensorboard")
    assert points(records) == {("mine", "my-robot", 1): [(0, 5000.0)]}
    (problem,) = records.problems
    assert problem.severity == "warning"
    assert "unknown task 'my-robot'" in problem.what


def test_scalars_encoded_as_tensors(tmp_path):
    place = tmp_path / "mine" / "walker-walk" / "3"
    with SummaryWriter(str(place)) as writer:
        writer.add_scalar("eval/episode_reward", 250.0, 1000, new_style=True)
    records = load_curves(tmp_path, "board", "tensorboard")
    assert records.problems == ()
    assert points(records) == {("mine", "walker-walk", 3): [(1000, 250.0)]}


def test_arrays_and_numpy_scalars_of_sacred(tmp_path):
    values = [{"dtype": "float64", "py/object": "numpy.float64", "value": 1.5}, [2.0, 4.0], "text"]
    (tmp_path / "1").mkdir()
    config = {"seed": 1.0, "task": "walker-walk"}
    (tmp_path / "1" / "config.json").write_text(json.dumps(config))
    metrics = {"episode_return": {"steps": [0, 1, 2], "values": values, "timestamps": []}}
    (tmp_path / "1" / "metrics.json").write_text(json.dumps(metrics))
    records = load_curves(tmp_path, "lab", "sacred")
    assert points(records) == {("lab", "walker-walk", 1): [(0, 1.5), (1, 3.0)]}
    (problem,) = records.problems
    assert "episode_return, entry 3: episode_return is not a number: 'text'" in problem.what


def test_a_damaged_tensorboard_file_takes_nothing_down(tmp_path):
    board(tmp_path / "mine" / "walker-walk" / "1", {"eval/return": [(0, 1.0)]})
    place = tmp_path / "mine" / "walker-walk" / "2"
    place.mkdir()
    (place / "events.out.tfevents.1").write_bytes(b"\x00" * 100)
    records = load_curves(tmp_path, "board", "tensorboard")
    assert set(records.table["seed"]) == {1}
    assert [problem.where for problem in records.problems] == [str(place)]


def test_a_run_in_percent_is_left_out_as_a_whole(tmp_path):
    board(tmp_path / "mine" / "mw-reach" / "1", {"eval/success": [(0, 1.0), (1, 60.0), (2, 70.0)]})
    records = load_curves(tmp_path, "board", "tensorboard")
    assert records.table.empty
    (problem,) = records.problems
    assert "entry 2: eval/success is 60.0, not a fraction" in problem.what
    assert problem.what.endswith("percent? divide by 100; run skipped")
