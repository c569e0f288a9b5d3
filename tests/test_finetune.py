"""Finetuning: initialization, identity of a run, resume, and invalid input."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2 import finetune
from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.common.run.checkpoint_folders import existing_checkpoints
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import PaddedEnv, multitask_spec, padded_spec
from tdmpc2.envs.task_sets import get_task_set
from tdmpc2.envs.tasks import get_suite, get_task
from tdmpc2.envs.toy import PointMass
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.setup import env_spec
from tdmpc2.world_model import WorldModel
from tests.runs import TINY, outcome, run_directory

TASKS = "toy-pointmass,walker-walk,toy-pointmass-episodic"
ARCHITECTURE = ("enc_dim", "mlp_dim", "latent_dim", "num_bins", "horizon")
QUICK = {k: v for k, v in TINY.items() if k not in (*ARCHITECTURE, "model_size", "task")}


def make_model(tasks: str = TASKS, **overrides: Any) -> Model:
    """Return an untrained multi-task model whose task embeddings differ."""
    given = {name: TINY[name] for name in ARCHITECTURE}
    values = {"model_size": "smoke", **given, "task_dim": 3, **overrides}
    config = TDMPC2Config.make(multitask=True, **values)
    env = multitask_spec(get_task_set(tasks)[1])
    torch.manual_seed(3)
    weights = WorldModel(config, env).state_dict()
    return Model(config, env, weights, {"origin": "run", "source": "here"})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "three.pt"
    save_model(path, make_model())
    return path


def arguments(file: Path, runs: Path, **changes: Any) -> list[str]:
    values = {**QUICK, "checkpoint": file, "task": "toy-pointmass", "runs": runs, **changes}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def run(file: Path, runs: Path, **changes: Any) -> Path:
    assert finetune.main(arguments(file, runs, **changes)) == 0
    return run_directory(runs)


# --- initialization of a run ---------------------------------------------------------------


def agent_for(spec: Any) -> Any:
    task = get_task(spec.task)
    env = PaddedEnv(PointMass(task, seed=0), padded_spec(task, dict(spec.start)))
    return make_agent(spec, env_spec(task, env, dict(spec.start)), torch.device("cpu"))


def test_the_model_with_the_embedding_of_one_task() -> None:
    model = make_model()
    spec = finetune.finetune_spec(model, "toy-pointmass", 1)
    agent = agent_for(spec)
    finetune.begin_with(model, "toy-pointmass-episodic", agent)
    ours = agent.model.state_dict()
    assert ours.keys() == model.weights.keys()
    for name, value in model.weights.items():
        expected = value[2:3] if name == "task_embedding" else value
        assert torch.equal(ours[name], expected), name


def test_it_computes_what_the_model_computes_for_that_task() -> None:
    """The finetuned agent without a task index equals the three-task model at task index 0."""
    model = make_model()
    agent = agent_for(finetune.finetune_spec(model, "toy-pointmass", 1))
    finetune.begin_with(model, "toy-pointmass", agent)
    three = WorldModel(model.config, model.env)
    three.load_state_dict(model.weights)
    for each in (three, agent.model):
        with torch.no_grad():
            for parameter in each.q_functions.parameters():
                parameter += 0.1  # the last layers are initialized to zero
    obs, task = torch.randn(5, 24), torch.zeros(5, dtype=torch.long)
    ours, theirs = agent.model.context(None), three.context(task)
    agent.model.renormalize_task_embedding(None)
    three.renormalize_task_embedding(task)
    noise = torch.randn(5, 6)
    for one, other in ((ours, theirs), (agent.model.context(None), three.context(task))):
        latent = agent.model.encode(obs, one)
        torch.testing.assert_close(latent, three.encode(obs, other))
        action = agent.model.pi(latent, noise, one).action
        torch.testing.assert_close(action, three.pi(latent, noise, other).action)
        assert (action[:, 2:] == 0).all()
        for name in ("next", "reward", "q"):
            mine, expected = (getattr(m, name) for m in (agent.model, three))
            torch.testing.assert_close(mine(latent, action, one), expected(latent, action, other))


def test_random_embeddings_differ_between_seeds_and_nothing_else() -> None:
    model = make_model()
    tables = []
    for seed in (1, 2):
        spec = finetune.finetune_spec(model, "toy-pointmass", seed, init_embedding="random")
        agent = agent_for(spec)
        finetune.begin_with(model, "random", agent)
        state = agent.model.state_dict()
        tables.append(state.pop("task_embedding"))
        assert all(torch.equal(state[name], model.weights[name]) for name in state)
    assert not torch.equal(*tables)


def test_identity_and_name() -> None:
    model = make_model()

    def spec(**changes: Any) -> Any:
        return finetune.finetune_spec(model, "toy-pointmass", 1, **changes)

    plain = spec()
    assert plain.variant == "finetuned"
    assert spec(init_embedding="random").variant == "finetuned-random"
    assert spec(overrides={"lr": 1e-3}).variant == "finetuned+lr-0.001"
    assert spec(overrides={"lr": 3e-4, "seed_with": "agent"}) == plain
    other = finetune.finetune_spec(make_model(lr=1e-3), "toy-pointmass", 1, overrides={"lr": 3e-4})
    assert other.variant == "finetuned+lr-0.0003"
    others = [spec(init_embedding="random"), spec(init_embedding="walker-walk")]
    weights = {**model.weights, "task_embedding": model.weights["task_embedding"] + 1}
    others.append(finetune.finetune_spec(model._replace(weights=weights), "toy-pointmass", 1))
    identities = {one.identity for one in (plain, *others)}
    assert len(identities) == 4
    assert spec(env_steps=5).identity == plain.identity
    assert dict(plain.overrides)["task_dim"] == 3
    assert dict(plain.overrides)["seed_with"] == "agent"
    assert "seed_with" not in dict(spec(overrides={"seed_with": "random"}).overrides)
    assert "batch_size" not in dict(plain.overrides)  # finetuning uses the single-task batch size


def test_settings_of_training_that_were_changed_for_the_model_can_be_changed_again() -> None:
    """They are kept if they are not given; a value that is the usual default is given, too."""
    model = make_model(lr=1e-3, num_samples=64, batch_size=32)

    def overrides(**given: Any) -> dict[str, Any]:
        return dict(finetune.finetune_spec(model, "toy-pointmass", 1, overrides=given).overrides)

    kept = overrides()
    assert (kept["lr"], kept["num_samples"], kept.get("batch_size")) == (1e-3, 64, None)
    changed = overrides(lr=3e-4, num_samples=128, horizon=2)
    assert "lr" not in changed
    assert (changed["num_samples"], changed["horizon"]) == (128, 2)


def test_a_model_in_tf32_is_finetuned_on_a_cpu_in_float32(tmp_path: Path) -> None:
    path = tmp_path / "tf32.pt"
    save_model(path, make_model(precision="tf32"))
    wanted = {None: None, "fp32": None, "bf16": "bf16", "tf32": "tf32"}
    for precision, expected in wanted.items():
        _, ((spec,),), _ = finetune.parse(arguments(path, tmp_path, precision=precision))
        assert dict(spec.overrides).get("precision") == expected
    with pytest.raises(UserError, match=r"use precision=fp32$"):
        run(path, tmp_path / "runs", precision="tf32")
    assert not (tmp_path / "runs").exists()
    on_gpu = finetune.finetune_spec(make_model(precision="tf32"), "toy-pointmass", 1)
    assert dict(on_gpu.overrides)["precision"] == "tf32"
    assert on_gpu.variant == "finetuned"


def test_held_out_tasks_are_the_rest_of_mt80() -> None:
    seen = [task.name for task in get_suite("mt80") if task.name not in finetune.HELD_OUT]
    assert len(seen) == 70
    assert set(finetune.HELD_OUT.values()) <= set(seen)
    model = make_model(",".join(seen))
    tasks = finetune._tasks("held-out", model)
    assert sorted(tasks) == sorted(finetune.HELD_OUT)
    for task in tasks:
        assert finetune.source_of(task, model, None) == finetune.HELD_OUT[task]


# --- real runs -----------------------------------------------------------------------------


def test_a_run_resumes_to_the_same_bytes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(file, tmp_path / "whole")
    calls = 0
    update = TDMPC2.update

    def stop(self: Any, replay: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 20:
            signal.raise_signal(signal.SIGTERM)
        return update(self, replay)

    monkeypatch.setattr(TDMPC2, "update", stop)
    with pytest.raises(StoppedError, match="stopped at env step"):
        finetune.main(arguments(file, tmp_path / "cut"))
    monkeypatch.undo()
    *_, newest = existing_checkpoints(run_directory(tmp_path / "cut"))
    os.truncate(newest / "state.pt", 10)
    with pytest.raises(UserError, match=r"damaged .*: remove this folder to resume from it$"):
        finetune.main(arguments(file, tmp_path / "cut"))
    shutil.rmtree(newest)
    run(file, tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    known = (tmp_path / "cut").rglob("spec.json")
    assert '"embedding": "toy-pointmass"' in next(known).read_text()


def test_the_replay_holds_no_action_where_the_task_has_none(file: Path, tmp_path: Path) -> None:
    directory = run(file, tmp_path, keep_replay="true")
    shards = list((directory / "replay").glob("*.npz"))
    assert shards
    for shard in shards:
        with np.load(shard) as arrays:
            assert arrays["action"].shape[1] == 6
            assert (arrays["action"][:, 2:] == 0).all()
            assert (arrays["action"][:, :2] != 0).any(axis=0).all()
            assert (arrays["obs"][:, 4:] == 0).all()


def test_the_finetuned_model_is_a_model(file: Path, tmp_path: Path) -> None:
    model = load_model(run(file, tmp_path))
    assert model.env.task_names == ("toy-pointmass",)
    assert (model.env.obs_shape, model.env.action_dim) == ((24,), 6)


# --- invalid input -------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no checkpoint": ({"checkpoint": None}, "checkpoint= is missing"),
    "no such file": ({"checkpoint": "nowhere.pt"}, "nowhere.pt"),
    "no task": ({"task": None}, "task= is missing"),
    "too large": ({"task": "dog-run"}, "have 223 dimensions, but those of the model only 24"),
    "no source": ({"task": "cartpole-swingup"}, "init_embedding= is missing"),
    "unknown source": (
        {"init_embedding": "walker-run"},
        "init_embedding=walker-run: not a task of the model",
    ),
    "architecture": ({"latent_dim": 16}, "latent_dim: fixed by the model (8)"),
    "key": ({"num_updates": 5}, "unknown key 'num_updates'"),
    "held out without a source": ({"task": "held-out"}, "init_embedding= is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(file: Path, tmp_path: Path, case: str) -> None:
    changes, text = BAD[case]
    with pytest.raises(UserError) as error:
        finetune.main(arguments(file, tmp_path, **changes))
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ("toy-pointmass,toy-pointmass-episodic", "trained on all tasks of mt80 or on none"),
        ("mt80", "trained on all tasks of mt80 or on none"),
        ("mt30", "have 39 dimensions, but those of the model only 24"),
    ],
)
def test_held_out_tasks_are_those_of_mt80(tasks: str, text: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model.pt", make_model(tasks))
    with pytest.raises(UserError, match=text):
        finetune.parse(arguments(tmp_path / "model.pt", tmp_path / "runs", task="held-out"))


def test_a_model_of_one_task_is_refused(tmp_path: Path) -> None:
    config = TDMPC2Config.make(model_size="smoke")
    env = multitask_spec([get_task("walker-walk")])
    model = Model(config, env, WorldModel(config, env).state_dict(), {"source": "here"})
    with pytest.raises(UserError, match="here: a single-task model"):
        finetune.finetune_spec(model, "walker-run", 1)


def test_bounds_of_what_is_drawn_while_seeding() -> None:
    task = get_task("toy-pointmass")
    env = PaddedEnv(PointMass(task, seed=0), make_model().env)
    space: Any = env.action_space
    assert space.low.tolist() == [-1, -1, 0, 0, 0, 0]
    assert space.high.tolist() == [1, 1, 0, 0, 0, 0]


def test_help_lists_what_can_be_changed_and_nothing_else() -> None:
    """Other values of the listed settings keep the shapes of all weights."""
    env = make_model().env
    listed = set(re.findall(r"^  (\w+)=", finetune.usage(), re.MULTILINE))
    assert not listed & set(finetune.ARCHITECTURE)

    def shapes(**changes: Any) -> dict[str, torch.Size]:
        with torch.device("meta"):
            model = WorldModel(TDMPC2Config.make(model_size="smoke", task_dim=3, **changes), env)
        return {name: weight.shape for name, weight in model.state_dict().items()}

    default = TDMPC2Config.make(model_size="smoke", task_dim=3)
    for name, kind in cli.schema_of(TDMPC2Config).items():
        value = getattr(default, name)
        if name in listed and (kind.choices or isinstance(value, bool)):
            for other in kind.choices or (not value,):
                assert shapes(**{name: other}) == shapes(), name
    assert shapes(hidden_norm="none") != shapes()


@pytest.mark.parametrize("name", finetune.ARCHITECTURE)
def test_the_architecture_is_fixed_by_the_model(name: str) -> None:
    model = make_model()
    value = getattr(model.config, name)
    with pytest.raises(UserError, match=f"^{name}: fixed by the model .{value}.; leave it out$"):
        finetune.finetune_spec(model, "toy-pointmass", 1, overrides={name: value})
