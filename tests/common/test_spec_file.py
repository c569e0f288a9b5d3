"""Files of runs and options: written, read by the train command, and refused if they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tdmpc2 import train
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.spec import OfflineOptions, RunOptions, RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import METHODS
from tdmpc2.runners.specs import make_offline_spec, make_spec

OPTIONS = RunOptions(runs=Path("/runs"), device="cpu", threads=2, checkpoint_minutes=1)
OFFLINE = OfflineOptions(runs=Path("/runs"), data=Path("/data"), accumulate=2, progress=False)


def specs(**more: Any) -> list[RunSpec]:
    values = {"overrides": {"lr": 1e-4, "horizon": 1}, "variant": "mine", **more}
    return [make_spec("tdmpc2", "dog-run", seed, **values) for seed in (3, 1)]


@pytest.mark.parametrize(
    ("runs", "options"),
    [
        (specs(), OPTIONS),
        (specs(obs="rgb"), RunOptions(runs=Path("/runs"), save_video=True)),
        (specs(start={"weights": "abc", "obs_dim": 7, "episodic": False}), OPTIONS),
        *([[make_spec(method, "mw-reach", 5)], OPTIONS] for method in METHODS),
        ([make_offline_spec("tdmpc2", "mt30", 1, "0123", overrides={"lr": 1e-4})], OFFLINE),
    ],
)
def test_what_is_written_is_read(
    runs: list[RunSpec], options: spec_file.Options, tmp_path: Path
) -> None:
    path = tmp_path / "process.json"
    spec_file.write(path, runs, options)
    read, same = train.parse([f"spec={path}"])
    assert (read, same) == (runs, options)
    assert [run.identity for run in read] == [run.identity for run in runs]
    assert [path.name for path in tmp_path.iterdir()] == ["process.json"]


def test_defaults_are_not_written(tmp_path: Path) -> None:
    """So that a later version, with options of its own, reads the files of this one."""
    spec_file.write(tmp_path / "file", specs(), RunOptions(runs=Path("/runs")))
    assert json.loads((tmp_path / "file").read_text())["options"] == {"runs": "/runs"}


def change(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that changes one value of the content of a file."""

    def apply(facts: Any) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda facts: facts.pop("specs"), "the list 'specs' is missing"),
        (change("options", to=[]), "the table 'options' is missing"),
        (lambda facts: facts["specs"].clear(), "the list 'specs' must hold runs that differ only"),
        (change("specs", 0, to=3), "3 is not a table of the fields of a run"),
        (lambda facts: facts["specs"][1].pop("seed"), "the key 'seed' is missing"),
        (change("specs", 0, "sede", to=1), "unknown key 'sede' (did you mean 'seed'?)"),
        (change("specs", 0, "seed", to="1"), "seed='1': must be an integer"),
        (change("specs", 0, "seed", to=True), "seed=True: must be an integer"),
        (change("specs", 0, "task", to=None), "task=None: must be text"),
        (change("specs", 0, "tasks", to="mt30"), "tasks='mt30': must be a list of names"),
        (change("specs", 0, "overrides", to={"lr": []}), "must be a table of values"),
        (change("specs", 0, "budget_unit", to="days"), "must be env_steps or num_updates"),
        (change("specs", 0, "overrides", "lr", to=1e-3), "its settings have the identity"),
        (change("specs", 0, "seed", to=9), "its settings have the identity"),
        (change("specs", 0, "budget", to=9), "must hold runs that differ only in their seed"),
        (change("options", "thread", to=1), "unknown setting 'thread' (did you mean 'threads'?)"),
        (change("options", "threads", to="1"), "threads=1: must be an integer in"),
        (change("options", "runs", to=1), "runs=1: must be a path"),
    ],
)
def test_a_wrong_file_is_one_line(
    damage: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "process.json"
    spec_file.write(path, specs(), OPTIONS)
    facts = json.loads(path.read_text())
    damage(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError) as refused:
        train.main([f"spec={path}"])
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_file_a_torn_file_and_other_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: no such file; spec= names one that a launch"):
        train.main([f"spec={tmp_path / 'nothing'}"])
    (tmp_path / "torn").write_text('{"specs": [')
    with pytest.raises(UserError, match="torn: damaged"):
        train.main([f"spec={tmp_path / 'torn'}"])
    with pytest.raises(UserError, match="omit other arguments"):
        train.main([f"spec={tmp_path / 'torn'}", "seed=2"])


def test_a_pretrained_model_is_not_left_out(tmp_path: Path) -> None:
    spec_file.write(tmp_path / "file", specs(start={"weights": "abc"}), OPTIONS)
    with pytest.raises(UserError, match=r"dog-run: a run that starts from .*finetune.py"):
        train.main([f"spec={tmp_path / 'file'}"])


def test_another_dataset_is_refused(tmp_path: Path) -> None:
    from tests.sweeps.datasets import toy_dataset
    from tests.test_offline import TASKS

    data = toy_dataset(tmp_path / "data")
    spec = make_offline_spec("tdmpc2", ",".join(TASKS), 1, "0123")
    spec_file.write(tmp_path / "file", [spec], OfflineOptions(runs=tmp_path / "runs", data=data))
    with pytest.raises(UserError, match="the run trains from a dataset with the checksum 0123"):
        train.main([f"spec={tmp_path / 'file'}"])
    assert not (tmp_path / "runs").exists()
