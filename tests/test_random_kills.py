"""Runs killed at random points and resumed end with the same bytes as undisturbed runs.

All four methods, one task of each simulator, pixels, a seed batch, training from a dataset, and
finetuning; 60 kills in total.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tdmpc2.checkpoints.model_file import save_model
from tdmpc2.envs.tasks import get_task
from tests.baselines.test_runs import COMMON, SMALL
from tests.kill_driver import AnyCall, Command
from tests.runs import TINY, flattened, outcome_of
from tests.test_finetune import QUICK, make_model
from tests.test_offline import OFFLINE, make_data

KILLS = 5  # of each kind of run

pytestmark = pytest.mark.slow


class Inputs(NamedTuple):
    """Files that runs need: a dataset, and a model to finetune."""

    data: Path
    model: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "model.pt", make_model())
    return Inputs(make_data(folder), folder / "model.pt")


def on(task: str, episodes: int, **settings: Any) -> dict[str, Any]:
    """Return the settings of a run of some episodes, with updates in the last of them."""
    row = get_task(task)
    budget = episodes * row.episode_length * row.action_repeat
    return {
        "task": task,
        "env_steps": budget,
        "seed_decisions": (episodes - 1) * row.episode_length + row.episode_length // 2,
        "eval_every": budget,
        "eval_episodes": 1,
        **settings,
    }


def of(method: str, **settings: Any) -> dict[str, Any]:
    return {"method": method, **COMMON, **SMALL[method], **settings}


PIXELS = {"obs": "rgb", "num_channels": 2, "latent_dim": 32, "planning": "false"}
KINDS: Mapping[str, Callable[[Inputs], dict[str, Any]]] = {
    "tdmpc2": lambda _: {**TINY, "prioritized_replay": "true", "buffer_size": 120},
    "sac": lambda _: of("sac"),
    "tdmpc": lambda _: of("tdmpc"),
    "dreamerv3": lambda _: of("dreamerv3"),
    "tdmpc2, Meta-World": lambda _: {**TINY, **on("mw-push", 4)},
    "sac, DMControl": lambda _: of("sac", **on("cartpole-swingup", 2)),
    "tdmpc, ManiSkill2": lambda _: of("tdmpc", **on("lift-cube", 4)),
    "dreamerv3, MyoSuite": lambda _: of("dreamerv3", **on("myo-hand-reach-hard", 4)),
    "pixels": lambda _: {**TINY, **on("reacher-easy", 2), **PIXELS},
    "seed batch": lambda _: {**TINY, "seeds": "3,1,4"},
    "dataset": lambda inputs: {**OFFLINE, "data": inputs.data},
    "finetuning": lambda inputs: {**QUICK, "checkpoint": inputs.model, "task": "toy-pointmass"},
}
assert len(KINDS) * KILLS == 60


def command(settings: Mapping[str, Any], runs: Path, blow: AnyCall | None = None) -> Command:
    values = {**settings, "runs": runs}
    if "data" not in settings:
        values["keep_replay"] = "true"
    arguments = [f"{key}={value}" for key, value in values.items()]
    module = "tdmpc2.finetune" if "checkpoint" in settings else "tdmpc2.train"
    return Command(arguments, blow, module=module)


def results(runs: Path) -> dict[str, Any]:
    """Return checksums of the results of all runs, their final checkpoints and episodes."""
    found: dict[str, Any] = {}
    for spec in runs.rglob("spec.json"):
        directory, name = spec.parent, str(spec.parent.relative_to(runs))
        (last,) = (directory / "checkpoints").iterdir()
        state = torch.load(last / "state.pt", weights_only=True)
        del state["records"]["timing"]  # clock values
        shards = {path.name: path.read_bytes() for path in directory.glob("replay/*.npz")}
        found[name] = (outcome_of(directory), flattened(state), shards)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_and_resumed(kind: str, inputs: Inputs, tmp_path: Path) -> None:
    """Every attempt is killed at a random call, until `KILLS` attempts were; the last completes.

    A resumed attempt has less to do than the undisturbed run, so some end before their kill.
    These complete a run, too, and the next attempt starts a new one.
    """
    settings, rng = KINDS[kind](inputs), random.Random(kind)
    undisturbed = command(settings, tmp_path / "undisturbed", AnyCall())
    done = undisturbed.run()
    assert done.code == 0, done
    expected = results(tmp_path / "undisturbed")
    assert expected
    kills = completed = 0
    while True:
        runs = tmp_path / f"killed-{completed}"
        at = AnyCall(rng.randrange(undisturbed.calls.value)) if kills < KILLS else None
        done = command(settings, runs, at).run()
        if done.code == -signal.SIGKILL:
            kills += 1
            continue
        assert done.code == 0, done
        assert results(runs) == expected
        completed += 1
        if kills == KILLS:
            break
