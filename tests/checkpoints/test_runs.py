"""Models from run directories: single-task, multi-task and finetuned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.checkpoints.exporting import export_model
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import padded_spec
from tdmpc2.envs.tasks import get_task
from tdmpc2.world_model import WorldModel
from tests.checkpoints.models import TASKS, model, refused, same
from tests.runs import run_directory, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a finished tiny run with the shapes of the smoke size."""
    runs = tmp_path_factory.mktemp("runs")
    sizes = dict.fromkeys(("enc_dim", "mlp_dim", "latent_dim", "num_bins"))
    assert tiny(runs, **sizes).code == 0
    return run_directory(runs)


def test_a_run_its_checkpoint_and_its_state_are_one_model(run: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    models = [load_model(path) for path in (run, checkpoint, checkpoint / "state.pt")]
    state = torch.load(checkpoint / "state.pt", weights_only=True)["agent"]["model"]
    assert all(same(one.weights, state) for one in models)
    assert models[0].env.task_names == ("toy-pointmass",)
    assert (models[0].facts["step"], models[0].facts["step_unit"]) == (200, "decisions")
    assert models[0].config.num_samples == 8
    export_model(models[0], tmp_path / "a.pt", "official")
    assert same(load_model(tmp_path / "a.pt", tasks="toy-pointmass").weights, state)
    save_model(tmp_path / "b.pt", models[0])
    copy = load_model(tmp_path / "b.pt")
    assert (copy.config, copy.env, copy.facts) == models[0][:2] + models[0][3:]


@pytest.mark.parametrize("name", ["best", "000000000200.replaced"])
def test_a_checkpoint_of_another_name_has_its_step(name: str, run: Path, tmp_path: Path) -> None:
    """A copy, and what a process leaves that is killed while it replaces a checkpoint."""
    shutil.copytree(run, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    checkpoint = checkpoint.rename(checkpoint.with_name(name))
    assert load_model(checkpoint).facts["step"] == 200


def as_run(folder: Path, of: Model, like: Path, **spec: Any) -> Path:
    """Write a run directory with the weights of a model."""
    checkpoint = folder / "checkpoints" / "000000000007"
    checkpoint.mkdir(parents=True)
    torch.save({"agent": {"model": of.weights}}, checkpoint / "state.pt")
    (manifest,) = like.glob("checkpoints/*/manifest.json")
    said = json.loads(manifest.read_text()) | {"state_sha256": sha256_of(checkpoint / "state.pt")}
    (checkpoint / "manifest.json").write_text(json.dumps(said))
    known = json.loads((like / "spec.json").read_text()) | spec
    (folder / "spec.json").write_text(json.dumps(known))
    return folder


def test_runs_of_several_tasks_are_read_by_their_list(run: Path, tmp_path: Path) -> None:
    """`spec.json` contains the task set and its tasks, in the order of the embedding."""
    original = model(*TASKS)
    spec = {"task": "three", "tasks": TASKS, "overrides": {"model_size": "smoke"}}
    loaded = load_model(as_run(tmp_path, original, run, budget_unit="num_updates", **spec))
    assert loaded.env == original.env
    assert same(loaded.weights, original.weights)
    assert loaded.facts["step_unit"] == "updates"


def test_a_finetuned_model_keeps_the_shapes_it_began_with(run: Path, tmp_path: Path) -> None:
    """One task with an embedding and padded observations; its official file loads again."""
    start = {"obs_dim": 39, "action_dim": 6, "episodic": False}
    env = padded_spec(get_task("cup-spin"), start)
    config = TDMPC2Config.make(model_size="smoke", task_dim=96)
    original = Model(config, env, dict(WorldModel(config, env).state_dict()), {})
    spec = {"task": "cup-spin", "overrides": {"model_size": "smoke", "task_dim": 96}}
    loaded = load_model(as_run(tmp_path, original, run, start=start, **spec))
    assert (loaded.env, loaded.config.task_dim) == (env, 96)
    export_model(loaded, tmp_path / "a.pt", "official")
    again = load_model(tmp_path / "a.pt", tasks="cup-spin")
    assert again.env == env
    assert same(again.weights, original.weights)
    refused(tmp_path / "a.pt", "masks in the file do not fit", tasks="walker-walk")


def test_a_run_of_another_method_is_refused(tmp_path: Path, run: Path) -> None:
    known = json.loads((run / "spec.json").read_text()) | {"method": "sac"}
    (tmp_path / "spec.json").write_text(json.dumps(known))
    refused(tmp_path, "has no checkpoint yet")
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    refused(tmp_path, "a run of sac; only tdmpc2 is")
