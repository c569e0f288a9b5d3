"""Inspect, convert, evaluate and download trained models: `python -m tdmpc2.checkpoints`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints import names
from tdmpc2.checkpoints.description import describe
from tdmpc2.checkpoints.evaluation import (
    EvaluateOptions,
    TaskResult,
    choose_tasks,
    evaluate_tasks,
)
from tdmpc2.checkpoints.exporting import Format, export_model
from tdmpc2.checkpoints.fetch import fetch, url_of
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import agent_of, load_model, save_model
from tdmpc2.checkpoints.reading import check_target, make_room
from tdmpc2.common.numerics.numeric_path import choose_device, numeric_path, set_up_torch
from tdmpc2.common.run.spec import parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import cache_dir

T = TypeVar("T", bound=Settings)


@dataclass(frozen=True)
class InspectOptions(Settings):
    """Options of `inspect`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")


@dataclass(frozen=True)
class ImportOptions(Settings):
    """Options of `import`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")
    out: Path = setting(REQUIRED, "path of the new file, .pt or .safetensors")
    task: str | None = setting(
        None,
        "tasks of an official checkpoint, which does not contain them: a task, a suite (mt30, "
        "mt80), or a list in the order of the task embedding",
    )
    any_size: bool = setting(False, "accept a model whose shapes fit none of the paper's sizes")


@dataclass(frozen=True)
class ExportOptions(Settings):
    """Options of `export`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")
    out: Path = setting(
        REQUIRED, "path of the new file, .pt, or .safetensors with format=safetensors"
    )
    format: Format = setting("official", "format of the new file")
    task: str | None = setting(None, "as for import, if FILE is an official checkpoint")
    any_size: bool = setting(False, "as for import")


@dataclass(frozen=True)
class FetchOptions(Settings):
    """Options of `fetch`."""

    name: str = setting(
        REQUIRED,
        f"all, a domain ({', '.join(names.DOMAINS)}), multitask, a task set (mt30, mt80), one of "
        "its models (mt80-48M), a task, a path, or a list",
    )
    out: Path | None = setting(None, "folder of the downloads")
    url: str = setting(names.HOME, "URL of the server's folder")
    seeds: str = setting(
        ",".join(map(str, names.SEEDS)), "seeds of single-task models: a count or a list"
    )
    single: str = setting(
        names.SINGLE,
        "paths of single-task models; the default patterns are inferred: the authors do not "
        "document file names",
    )
    multi: str = setting(names.MULTI, "paths of multi-task models")
    sha256: str | None = setting(
        None, "expected checksum of a single file; default: the server's, if there is one"
    )
    dry_run: bool = setting(False, "only print the URLs")


def default_folder() -> Path:
    """Return the default folder of fetched checkpoints."""
    return cache_dir() / "checkpoints"


def usage() -> str:
    """Return the text of `--help`."""
    return f"""\
usage: python -m tdmpc2.checkpoints inspect FILE
       python -m tdmpc2.checkpoints import FILE task=TASKS out=NEW
       python -m tdmpc2.checkpoints export FILE out=NEW [format=official]
       python -m tdmpc2.checkpoints evaluate FILE task=TASK [key=value ...]
       python -m tdmpc2.checkpoints fetch NAME [key=value ...]

Inspect, convert, evaluate and download trained TD-MPC2 models.

FILE is an official TD-MPC2 checkpoint (old or new keys, .pt or .safetensors), a model file of this
project, or a run directory or one of its checkpoints/... Only tensors and plain containers are
loaded from torch files, never code. No file is overwritten.

inspect   print format, size, parameters, dimensions, possible tasks, unknown keys and checksum
import    write FILE as a model file, which contains tasks, configuration and origin
{cli.describe_fields(ImportOptions, without=["file"])}
export    write FILE in the official format or as safetensors
{cli.describe_fields(ExportOptions, without=["file"])}
evaluate  run episodes without exploration; print return, success and normalized score
{cli.describe_fields(EvaluateOptions, without=["file"])}
fetch     download the authors' released checkpoints; existing files are skipped, and interrupted
          downloads are continued; default folder: {default_folder()}
{cli.describe_fields(FetchOptions)}

exit code: 0 success; 2 bad input, or a file that is missing, damaged or rejected."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an unknown action or an invalid option.
    """
    actions = {
        "inspect": _inspect,
        "import": _import,
        "export": _export,
        "evaluate": _evaluate,
        "fetch": _fetch,
    }
    action, *rest = arguments or [""]
    if action not in actions:
        raise UserError(f"'{action}': unknown action{did_you_mean(action, actions)}")
    actions[action](rest)
    return 0


def _parse(arguments: Sequence[str], options: type[T]) -> T:
    """Parse the arguments after the action; the key of the first, `file` or `name`, may be omitted.

    Args:
        arguments: the arguments.
        options: dataclass of the options.
    """
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("--"):
        key, equals, _ = arguments[0].partition("=")
        # A path may contain an equals sign; a key contains neither a slash nor a dot.
        if not equals or "/" in key or "." in key or Path(arguments[0]).exists():
            first = next(iter(cli.schema_of(options)))
            arguments[0] = f"{first}={arguments[0]}"
    return cli.parse_options(arguments, options)


def _inspect(arguments: Sequence[str]) -> None:
    facts = describe(_parse(arguments, InspectOptions).file)
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def _import(arguments: Sequence[str]) -> None:
    options = _parse(arguments, ImportOptions)
    check_target(options.out)
    model = load_model(options.file, tasks=options.task, any_size=options.any_size)
    save_model(options.out, model)
    print(f"{options.out}: {_title(model)}")


def _export(arguments: Sequence[str]) -> None:
    options = _parse(arguments, ExportOptions)
    check_target(options.out)
    model = load_model(options.file, tasks=options.task, any_size=options.any_size)
    missing_settings = export_model(model, options.out, options.format)
    print(f"{options.out}: {_title(model)}, format {options.format}")
    if missing_settings:
        print(
            "the file does not contain these settings, which its reader has to set: "
            f"{', '.join(missing_settings)}"
        )


def _evaluate(arguments: Sequence[str]) -> None:
    options = _parse(arguments, EvaluateOptions)
    if options.out is not None:
        make_room(options.out)
    model = load_model(
        options.file, tasks=options.tasks, single=options.task, any_size=options.any_size
    )
    chosen = choose_tasks(model, options.task)
    agent = _agent(model, options)
    print(_title(model))
    print(f"{'task':<28}{'return':>10}{'± sd':>10}{'success':>10}{'score':>10}")
    results = []
    for result in evaluate_tasks(
        *(model, agent, chosen),
        episodes=options.episodes,
        seed=options.seed,
        workers=options.workers,
    ):
        results.append(result)
        print(_line(result), flush=True)
    mean = sum(result.score for result in results) / len(results)
    if len(results) > 1:
        print(f"{f'mean of {len(results)} tasks':<58}{mean:>10.1f}")
    if options.out is not None:
        facts = {**model.facts, "file": str(options.file), "seed": options.seed, "score": mean}
        write_json(options.out, {**facts, "tasks": [result.row() for result in results]})


def _agent(model: Model, options: EvaluateOptions) -> TDMPC2:
    """Return an agent of the model on the requested device, after setting up torch."""
    device = choose_device(options.device)
    agent = agent_of(model, device=device, seed=options.seed)
    precision = model.config.precision
    numeric = numeric_path(device, options.threads, compiled=options.compile, precision=precision)
    set_up_torch(numeric)
    if numeric["compile"]:
        acceleration.install(agent)
    return agent


def _line(result: TaskResult) -> str:
    outcome = result.outcome
    return (
        f"{result.task.name:<28}{outcome.mean_return:>10.2f}{outcome.sd_return:>10.2f}"
        f"{outcome.successes.mean():>10.2f}{result.score:>10.1f}"
    )


def _title(model: Model) -> str:
    """Return a one-line description of the model."""
    names = model.env.task_names
    tasks = f"{len(names)} tasks" if len(names) > 1 else names[0]
    guess = f", recognized as {model.facts['task']}" if model.facts.get("recognized") else ""
    return f"TD-MPC2 of size {model.config.model_size} on {tasks}{guess}"


def _fetch(arguments: Sequence[str]) -> None:
    options = _parse(arguments, FetchOptions)
    seeds = parse_seeds(options.seeds)
    paths = names.expand(options.name, seeds=seeds, single=options.single, multi=options.multi)
    sha256 = options.sha256
    if sha256 is not None and (len(paths) > 1 or not re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise UserError(f"sha256={sha256}: needs 64 hexadecimal digits and a single file")
    if options.dry_run:
        print("\n".join(url_of(options.url, path) for path in paths))
    else:
        fetch(paths, options.out or default_folder(), options.url, sha256=sha256)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
