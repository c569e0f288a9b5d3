"""Evaluation of a checkpoint of a single-task run."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2 import acceleration
from tdmpc2.checkpoints.runs import find_checkpoint
from tdmpc2.common.numerics.numeric_path import numeric_path, usable_precision
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch, torch_as_found
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.run.video import VideoFile
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.evaluation import Evaluation, evaluate
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.physics import recorded_physics
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.setup import env_arguments, env_spec, make_env_group
from tdmpc2.runners.specs import make_spec

if TYPE_CHECKING:
    from tdmpc2.evaluate import EvaluateOptions


@torch_as_found()
def evaluate_checkpoint(options: EvaluateOptions) -> tuple[dict[str, Any], Evaluation]:
    """Evaluate one checkpoint without exploration noise.

    Args:
        options: see `EvaluateOptions`. In the run directory, only `videos/` is written to.

    Returns:
        Facts about the run and the checkpoint, and the result of the evaluation.

    Raises:
        UserError: `run` is no run or checkpoint, is damaged, is a multi-task run, or was trained
            with other 3D models than those that are installed.
    """
    directory, checkpoint = find_checkpoint(options.run)
    spec = _spec_of(directory, options.run)
    device = choose_device(options.device)
    arguments = env_arguments(spec, render=options.save_video)
    with contextlib.closing(make_env(**arguments, seed=0)) as env:
        shapes = env_spec(arguments["task"], env, dict(spec.start))
    agent = make_agent(spec, shapes, device, to_train=False)
    precision = usable_precision(device, getattr(agent.config, "precision", "fp32"))
    numeric = numeric_path(device, options.threads, compiled=options.compile, precision=precision)
    set_up_torch(numeric)
    if numeric["compile"]:
        acceleration.install(agent)
    state = CheckpointStore(directory).load_agent(checkpoint)
    agent.load_state_dict(state["agent"])
    agent.seed_evaluation(derive_seed(options.seed, "evaluation noise"))
    seeds = [derive_seed(options.seed, "evaluation", i) for i in range(options.episodes)]
    facts = {
        "method": spec.method,
        "variant": spec.variant,
        "task": spec.task,
        "run_seed": spec.seed,
        "agent_step": state["progress"]["decisions"],
        "checkpoint": str(checkpoint),
        "seed": options.seed,
    }
    with contextlib.ExitStack() as stack:
        envs = make_env_group(arguments, options.episodes, options.workers)
        stack.enter_context(contextlib.closing(envs))
        on_frame = None
        if options.save_video:
            step = state["progress"]["decisions"]
            path = directory / "videos" / f"evaluate-{step}-seed{options.seed}.mp4"
            on_frame = stack.enter_context(VideoFile(path)).add
            facts["video"] = str(path)
        return facts, evaluate(agent, envs, seeds, film=on_frame)


def _spec_of(directory: Path, path: Path) -> RunSpec:
    """Return the specification of a run.

    Args:
        directory: the run directory.
        path: the run or checkpoint that the user named, for the error message.
    """
    saved_spec = read_json(directory / "spec.json", SpecFile)
    if saved_spec.get("tasks"):
        raise UserError(
            f"{directory}: a multi-task agent; evaluate it with python -m tdmpc2.checkpoints "
            f"evaluate {path} task=all (or the name of one task)"
        )
    spec = make_spec(
        saved_spec["method"],
        saved_spec["task"],
        saved_spec["seed"],
        env_steps=saved_spec["budget"],
        variant=saved_spec["variant"],
        overrides=saved_spec["overrides"],
        obs=saved_spec.get("obs", "state"),
        assets=(saved_spec.get("assets") or "official").partition("-")[0],
        task_switches=saved_spec.get("protocol", {}),
        start=saved_spec.get("start", {}),
    )
    if saved_spec.get("assets"):  # not the installed models: `env_arguments` compares them
        spec = dataclasses.replace(spec, assets=saved_spec["assets"])
    if recorded_physics(saved_spec) == "0.4.0":
        print(
            f"{directory}: trained with the physics of version 0.4.0; evaluated with the paper's "
            "(docs/fidelity.md)",
            file=sys.stderr,
        )
    return spec
