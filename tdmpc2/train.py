"""Composition root: from a run's settings to its records; `python tdmpc2/train.py task=…`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tdmpc2.common import cli
from tdmpc2.common.checkpoint import CheckpointStore
from tdmpc2.common.device import apply_numeric_path, choose_device, record_failed_compilation
from tdmpc2.common.errors import UserError, did_you_mean
from tdmpc2.common.files import remove_leftovers
from tdmpc2.common.lease import Lease
from tdmpc2.common.protocols import Agent, EnvSpec
from tdmpc2.common.records import RunRecords
from tdmpc2.common.run_directory import RunRecord, existing_outcome, register_attempt
from tdmpc2.common.seeding import derive_seed, seed_globals
from tdmpc2.common.session import run_session
from tdmpc2.common.spec import RunOptions, RunSpec, overrides_of, variant_name
from tdmpc2.common.tracker import Tracker, track
from tdmpc2.common.trainer import Schedule, StoppedError, Trainer
from tdmpc2.envs.assets import find_assets
from tdmpc2.envs.factory import check_obs, make_env
from tdmpc2.envs.rendering import renderer_in_use
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, get_task
from tdmpc2.parts import (
    check_fits,
    env_arguments,
    env_spec,
    evaluation_workers,
    make_env_group,
    make_replay,
)

# Method name → where its agent is; imported only when used.
METHODS: dict[str, str] = {"tdmpc2": "tdmpc2.agent:TDMPC2"}
SPEC_WORDS: dict[str, Any] = {
    "method": str,
    "task": str,
    "seed": int,
    "env_steps": int | None,
    "variant": str | None,
    "obs": str,
    "assets": str,
}


def agent_class(method: str) -> type[Any]:
    """The agent of a method.

    Raises:
        UserError: unknown method.
    """
    if method not in METHODS:
        raise UserError(f"unknown method '{method}'{did_you_mean(method, METHODS)}")
    module, _, name = METHODS[method].partition(":")
    return getattr(importlib.import_module(module), name)


def parse(words: Sequence[str]) -> tuple[RunSpec, RunOptions]:
    """Turns `key=value` words into what to run and how.

    Raises:
        UserError: unknown key, task or method, or a value out of range.
    """
    pairs = cli.split_words(words)
    config_class = agent_class(pairs.get("method", "tdmpc2")).config_class
    config_schema = cli.schema_of(config_class)
    options_schema = cli.schema_of(RunOptions)
    values = cli.parse_words(words, SPEC_WORDS | options_schema | config_schema)
    if "task" not in values:
        raise UserError("task= is missing, e.g. task=walker-walk")
    options = RunOptions(**{k: values[k] for k in options_schema if k in values})
    overrides = {k: values[k] for k in config_schema if k in values}
    spec = make_spec(
        values.get("method", "tdmpc2"),
        values["task"],
        values.get("seed", 1),
        env_steps=values.get("env_steps"),
        variant=values.get("variant"),
        overrides=overrides,
        obs=values.get("obs", "state"),
        assets=values.get("assets", "official"),
    )
    return spec, options


def make_spec(
    method: str,
    task: str,
    seed: int,
    *,
    env_steps: int | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    obs: str = "state",
    assets: str = "official",
) -> RunSpec:
    """A checked `RunSpec`; overrides that equal the defaults are dropped from it.

    Args:
        method: a key of `METHODS`.
        task: name or alias in the task table.
        seed: of everything random.
        env_steps: budget; the task's own if None.
        variant: name of the set of overrides; derived from them if None.
        overrides: settings of the method.
        obs: `state` or `rgb`.
        assets: source of the models, for the tasks that need some; others pass it over.

    Raises:
        UserError: anything unknown or out of range; models missing, or of another source.
    """
    table_row = get_task(task)
    check_obs(table_row, obs)
    if obs == "rgb":
        table_row = dataclasses.replace(table_row, env_steps=PIXEL_ENV_STEPS)
    models = find_assets(table_row.assets, assets).label if table_row.assets else None
    config_class = agent_class(method).config_class
    config = config_class.make(**(overrides or {}))
    size = {"model_size": config.model_size} if hasattr(config, "model_size") else {}
    changed = dict(overrides_of(config, config_class.make(**size)))
    if size and config.model_size != config_class.make().model_size:
        changed.update(size)
    budget = table_row.env_steps if env_steps is None else env_steps
    if budget < 1:
        raise UserError(f"env_steps={budget}: must be at least 1")
    if not 0 <= seed < 2**32:  # what every library accepts
        raise UserError(f"seed={seed}: must lie in 0..{2**32 - 1}")
    if variant is not None and (
        not 0 < len(variant) <= 100 or variant.startswith(".") or "/" in variant
    ):
        raise UserError(f"variant={variant}: must be usable as a folder's name")
    what = tuple(sorted(changed.items()))
    return RunSpec(
        method=method,
        task=table_row.name,
        seed=seed,
        budget=budget,
        overrides=what,
        variant=variant or variant_name(what),
        obs=obs,
        assets=models,
    )


def make_agent(spec: RunSpec, env: EnvSpec, device: torch.device) -> Agent:
    """The agent of a run, freshly initialised."""
    cls = agent_class(spec.method)
    config = cls.config_class.make(**dict(spec.overrides))
    return cls(config, env, seed=spec.seed, device=device)


def run(spec: RunSpec, options: RunOptions) -> RunRecord:
    """Trains a run to the end of its budget, resuming it where it stands.

    Args:
        spec: what to run.
        options: how.

    Returns:
        How it ended; a finished or diverged run is returned as it is.

    Raises:
        UserError: a run directory of other settings, in use, or damaged; other bad input.
    """
    device = choose_device(options.device)
    task = get_task(spec.task)
    envs = env_arguments(spec, render=options.save_video)
    env = make_env(**envs, seed=derive_seed(spec.seed, "environment"))
    shapes = env_spec(task, env)
    agent = make_agent(spec, shapes, device)  # fails on impossible settings before writing
    memory_place = check_fits(agent, shapes, spec.budget, device)
    directory = spec.run_dir(options.runs)
    eval_every = options.eval_every or task.eval_every
    fixed = {"eval_every": eval_every, "eval_episodes": options.eval_episodes}
    settled = existing_outcome(directory, spec, fixed, options)
    if settled is not None:
        return settled

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror}); use runs=") from None
    with Lease(directory) as lease, _restored_threads(), contextlib.ExitStack() as stack:
        store = CheckpointStore(directory, keep_replay=options.keep_replay)
        remove_leftovers(directory, store.folder, store.shard_folder, directory / "videos")
        facts = {"domain": task.domain, "metric": task.metric}
        facts["model_size"] = getattr(agent.config, "model_size", None)  # type: ignore[attr-defined]
        records = RunRecords(directory, spec, facts)
        numeric = apply_numeric_path(
            directory / "numeric.json",
            device,
            options.threads,
            allow_change=options.allow_numeric_change,
            compiled=options.compile,
            precision=agent.config.precision,  # type: ignore[attr-defined]
            renderer=renderer_in_use() if spec.obs == "rgb" else None,
        )
        if numeric["compile"]:
            agent.compile(lambda: record_failed_compilation(directory / "numeric.json"))
        attempt = register_attempt(directory, allow_change=options.allow_commit_change)
        seed_globals(spec.seed)
        stack.enter_context(contextlib.closing(env))
        eval_envs = make_env_group(envs, options.eval_episodes, evaluation_workers(options))
        stack.enter_context(contextlib.closing(eval_envs))
        trainer = Trainer(
            agent,
            env,
            eval_envs,
            make_replay(agent, shapes, spec.seed, memory_place),
            records,
            store,
            Schedule(
                env_steps=spec.budget,
                eval_every=eval_every,
                checkpoint_seconds=60 * options.checkpoint_minutes,
                keep_replay=options.keep_replay,
            ),
            seed=spec.seed,
            videos=directory / "videos" if options.save_video else None,
        )
        trainer.restore(options.checkpoint)
        recorded = {"keep_replay": options.keep_replay, "commit": attempt["commit"]}
        records.write_spec(fixed | recorded)

        def body(tracker: Tracker) -> RunRecord:
            seed_globals(spec.seed)  # Sacred seeds them too; ours comes last
            return run_session(trainer, records, tracker, lease, options)

        config = {**dataclasses.asdict(spec), "overrides": dict(spec.overrides)}
        return track(
            directory / "sacred",
            spec.method,
            config,
            {"attempt": attempt, "numeric": numeric},
            body,
            interrupts=(StoppedError,),
        )


@contextlib.contextmanager
def _restored_threads() -> Iterator[None]:
    """Leaves torch's thread count as it was found."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def usage() -> str:
    """Text of `--help`."""
    config_class = agent_class("tdmpc2").config_class
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASK [key=value …]",
            "",
            "Trains one agent on one task. The same command again resumes an unfinished run and",
            "skips a finished one. Numbers may be written 100_000 or 1e5.",
            "",
            "What to run:",
            "  task=                                      e.g. walker-walk",
            "  seed=1                                     of everything random",
            f"  method=tdmpc2                              {' | '.join(METHODS)}",
            "  env_steps=                                 budget; default: the task's",
            "  variant=                                   name of these settings; default: derived",
            "  obs=state                                  state | rgb (DMControl only)",
            "  assets=official                            of pick-ycb and turn-faucet: official |",
            "                                             rebuilt | standin | unknown, or several,",
            "                                             by preference (official,unknown)",
            "",
            "How (no influence on results):",
            cli.describe_fields(RunOptions),
            "",
            "Settings of tdmpc2 (each is part of the run's identity):",
            cli.describe_fields(config_class),
        ]
    )


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code."""
    spec, options = parse(words)
    try:
        record = run(spec, options)
    except StoppedError as error:
        print(f"{error}; run the same command again to continue", file=sys.stderr)
        return 130
    text = f"{record.state} at env step {record.env_step:,}: {record.directory}"
    print(f"{text} ({record.message})" if record.message else text)
    return 1 if record.state == "DIVERGED" else 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
