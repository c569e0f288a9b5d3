"""Loading and saving models: round trips, and models of other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.checkpoints.exporting import Format, export_model
from tdmpc2.checkpoints.model import Model, describe_model, model_as_described
from tdmpc2.checkpoints.model_file import load_agent, load_model, save_model
from tdmpc2.checkpoints.official import KeyFormat
from tdmpc2.checkpoints.reading import read_weights
from tdmpc2.common.system.errors import UserError
from tests.checkpoints.models import TASKS, model, official_file, refused, same

SET = ",".join(TASKS)


@pytest.mark.parametrize("keys", ["old", "new"])
@pytest.mark.parametrize("tasks", [("walker-walk",), TASKS])
def test_official_files_give_back_the_model(
    tmp_path: Path, keys: KeyFormat, tasks: tuple[str, ...]
) -> None:
    original = model(*tasks)
    loaded = load_model(official_file(tmp_path / "a.pt", original, keys), tasks=",".join(tasks))
    assert same(loaded.weights, original.weights)
    assert loaded.env == original.env
    assert loaded.config.task_dim == original.config.task_dim
    assert loaded.facts["keys"] == keys
    forms: dict[KeyFormat, Format] = {"old": "official-old", "new": "official"}
    export_model(loaded, tmp_path / "b.pt", forms[keys])
    first, second = (read_weights(tmp_path / name).weights for name in ("a.pt", "b.pt"))
    assert list(first) == list(second)
    assert all(torch.equal(v, second[k]) for k, v in first.items() if isinstance(v, torch.Tensor))


def test_entries_that_are_no_tensors_do_no_harm(tmp_path: Path) -> None:
    original = model()
    noted: dict[str, Any] = {
        "_Qs.params.__device": torch.device("cuda", 0),
        "_Qs.module.0.__batch_size": None,
    }
    path = official_file(tmp_path / "a.pt", original, "new", **noted)
    assert same(load_model(path, tasks="walker-walk").weights, original.weights)


def test_the_log_std_of_a_new_file_is_kept(tmp_path: Path) -> None:
    loaded = load_model(
        official_file(tmp_path / "a.pt", model(log_std_min=-20.0)), tasks="walker-walk"
    )
    assert (loaded.config.log_std_min, loaded.config.log_std_max) == (-20.0, 2.0)


def test_models_that_predict_termination(tmp_path: Path) -> None:
    original = model("toy-pointmass-episodic")
    path = official_file(tmp_path / "a.pt", original)
    loaded = load_model(path, tasks="toy-pointmass-episodic")
    assert loaded.env.episodic
    assert same(loaded.weights, original.weights)
    with pytest.raises(
        UserError, match="cannot represent a model that predicts termination; use format=official"
    ):
        export_model(original, tmp_path / "old.pt", "official-old")
    other = official_file(tmp_path / "b.pt", model("toy-pointmass"))
    refused(other, "the model does not predict termination", tasks="toy-pointmass-episodic")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("tasks", [("walker-walk",), TASKS])
def test_model_files_give_back_everything(
    tmp_path: Path, suffix: str, tasks: tuple[str, ...]
) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    original = model(*tasks, tau=0.02, seed_decisions=7)
    path = tmp_path / f"a{suffix}"
    save_model(path, original)
    loaded = load_model(path, tasks=",".join(tasks))
    assert same(loaded.weights, original.weights)
    assert loaded._replace(weights=original.weights) == original
    refused(path, "not of cheetah-run", tasks="cheetah-run")


def test_safetensors_with_official_keys(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    original = model()
    state = read_weights(official_file(tmp_path / "a.pt", original, "old")).weights
    (tmp_path / "a.safetensors").write_bytes(library.save(state))
    loaded = load_model(tmp_path / "a.safetensors", tasks="walker-walk")
    assert same(loaded.weights, original.weights)


def test_an_agent_acts_with_the_weights(tmp_path: Path) -> None:
    original = model(*TASKS)
    agent = load_agent(official_file(tmp_path / "a.pt", original), tasks=SET, seed=1)
    assert same(dict(agent.model.state_dict()), original.weights)
    action = agent.act(
        np.zeros((2, 39), np.float32),
        first=np.ones(2, bool),
        explore=False,
        task=np.array([1, 2]),
    )
    assert action.shape == (2, 4)
    assert not action[0, 1:].any()
    assert agent.discounts.tolist() == pytest.approx([0.95, 0.99, 0.95])


@pytest.mark.parametrize(
    ("facts", "min_std"),
    [
        ({"step": 5_000, "step_unit": "decisions"}, 0.41),
        ({"step": 90_000, "step_unit": "decisions"}, 0.05),
        ({"step": 10, "step_unit": "updates"}, 0.05),
        ({}, 0.05),
    ],
)
def test_an_agent_plans_as_at_the_end_of_its_training(
    tmp_path: Path, facts: dict[str, Any], min_std: float
) -> None:
    original = model(policy_prior="gaussian_noise")
    save_model(tmp_path / "a.pt", original._replace(facts=original.facts | facts))
    assert load_agent(tmp_path / "a.pt").min_std() == pytest.approx(min_std)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, "does not contain its task: give it with task="),
        ("cheetah-run", "obs_dim 24 and action_dim 6, but cheetah-run has 17 and 6"),
        ("mt30", "a single-task model, but 30 tasks are given"),
        ("walker-wlk", "did you mean 'walker-walk'"),
        ("mt31", "did you mean 'mt30'"),
        ("walker-walk,walker-walk", "named twice"),
        (",", "a task, a suite, or a list"),
    ],
)
def test_a_single_task_model_of_other_tasks(
    tmp_path: Path, tasks: str | None, message: str
) -> None:
    refused(official_file(tmp_path / "a.pt", model()), message, tasks=tasks)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, "a model of 3 unknown tasks"),
        ("walker-walk", "a model of 3 tasks, but 1 tasks are given"),
        (
            "cartpole-balance,toy-pointmass,mw-reach",
            "2 action dimensions, but cartpole-balance has 1",
        ),
        ("toy-pointmass,cartpole-balance,cup-catch", "obs_dim 39 and action_dim 4, but"),
    ],
)
def test_a_model_of_other_sets(tmp_path: Path, tasks: str | None, message: str) -> None:
    refused(official_file(tmp_path / "a.pt", model(*TASKS)), message, tasks=tasks)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bias: dict[str, Any] = {"_pi.2.bias": torch.full((12,), torch.nan)}
    bad = official_file(tmp_path / "a.pt", model(), "new", **bias)
    refused(bad, "weights 'policy.2.bias' contain NaN or Inf", tasks="walker-walk")


def test_an_odd_model_is_taken_only_when_told(tmp_path: Path) -> None:
    original = model(num_q=3)
    path = official_file(tmp_path / "a.pt", original)
    refused(path, r"fits no model size; the nearest is smoke.*any_size=true", tasks="walker-walk")
    loaded = load_model(path, tasks="walker-walk", any_size=True)
    assert loaded.config.num_q == 3
    assert same(loaded.weights, original.weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "format version 2"),
        ({"config": {"latnet_dim": 3}}, "did you mean 'latent_dim'"),
        ({"config": {"num_q": "many"}}, "num_q=many"),
        ({"env": {}}, "damaged description"),
        ({"facts": None}, "damaged description"),
        ({"facts": {"step_unit": "decisions"}}, "damaged description of the model .'step'"),
        ({"facts": {"step_unit": "decisions", "step": "many"}}, "damaged description"),
    ],
)
def test_damaged_descriptions(change: dict[str, Any], message: str) -> None:
    good = model()
    with pytest.raises(UserError, match=message):
        model_as_described(describe_model(good) | change, good.weights)


@pytest.mark.parametrize(
    "change",
    [
        *({"obs_shape": value} for value in (24, ["24"], [-24], [], None)),
        *({"action_dim": value} for value in ("6", 6.5, None, -6)),
        *({"action_dims": value} for value in (6, ["6"], [6, 6], [])),
        *({"episode_lengths": value} for value in (["500"], [])),
        *({"task_names": value} for value in ([3], ["walker-walk", "walker-run"])),
        {"episodic": "no"},
    ],
)
def test_damaged_shapes(change: dict[str, Any]) -> None:
    good = model()
    about = describe_model(good)
    with pytest.raises(UserError, match="damaged description"):
        model_as_described(about | {"env": about["env"] | change}, good.weights)


def test_weights_of_another_model_in_a_model_file() -> None:
    good = model()
    assert isinstance(model_as_described(describe_model(good), good.weights), Model)
    with pytest.raises(UserError, match="do not fit the model's configuration"):
        model_as_described(describe_model(good), model("cheetah-run").weights)
