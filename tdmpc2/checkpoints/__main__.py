"""Inspect, convert, evaluate and download trained models: `python -m tdmpc2.checkpoints`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2.checkpoints import names
from tdmpc2.checkpoints.fetch import fetch, url_of
from tdmpc2.checkpoints.options import FORMATS, EvaluateOptions, Format
from tdmpc2.common.run.spec import parse_seeds
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import cache_dir

if TYPE_CHECKING:
    from tdmpc2.agent import TDMPC2
    from tdmpc2.checkpoints.evaluation import TaskResult
    from tdmpc2.checkpoints.model import Model


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
  task=TASKS         tasks of an official checkpoint, which does not contain them: a task, a suite
                     (mt30, mt80), or a list in the order of the task embedding
  out=NEW            path of the new file, .pt or .safetensors
  any_size=false     true: accept a model whose shapes fit none of the paper's sizes
export    write FILE in the official format or as safetensors
  out=NEW            path of the new file, .pt, or .safetensors with format=safetensors
  format=official    {" | ".join(FORMATS)}
  task=TASKS any_size=false   as for import, if FILE is an official checkpoint
evaluate  run episodes without exploration; print return, success and normalized score
{cli.describe_fields(EvaluateOptions)}
fetch     download the authors' released checkpoints; existing files are skipped, and interrupted
          downloads are continued
  NAME               all, a domain ({", ".join(names.DOMAINS)}), multitask, a task
                     set (mt30, mt80), one of its models (mt80-48M), a task, a path, or a list
  out=DIR            folder of the downloads; default: {default_folder()}
  url=BASE           URL of the server's folder; default: {names.HOME}
  seeds=3            seeds of single-task models: a count or a list
  single=PATTERN     paths of single-task models; default: {names.SINGLE}
  multi=PATTERN      paths of multi-task models; default: {names.MULTI}
                     the default patterns are inferred: the authors do not document file names
  sha256=HEX         expected checksum of a single file; default: the server's, if there is one
  dry_run=false      true: only print the URLs

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


def _parse(arguments: Sequence[str], first: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `key=value` arguments; the key of the first may be omitted.

    Args:
        arguments: the arguments after the action.
        first: key of the first argument if it is a bare value; required.
        schema: types of the arguments.
    """
    arguments = list(arguments)
    if arguments:
        key, equals, _ = arguments[0].partition("=")
        # A path may contain an equals sign; a key contains neither a slash nor a dot.
        if not equals or "/" in key or "." in key or Path(arguments[0]).exists():
            arguments[0] = f"{first}={arguments[0]}"
    values = cli.parse_arguments(arguments, schema)
    _required(values, first)
    return values


def _inspect(arguments: Sequence[str]) -> None:
    file = _parse(arguments, "file", {"file": Path})["file"]
    from tdmpc2.checkpoints.description import describe

    facts = describe(file)
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")


def _import(arguments: Sequence[str]) -> None:
    schema = {"file": Path, "task": str, "out": Path, "any_size": bool}
    values = _parse(arguments, "file", schema)
    out = _required(values, "out")
    from tdmpc2.checkpoints.model_file import load_model, save_model
    from tdmpc2.checkpoints.reading import check_target

    check_target(out)
    model = load_model(
        values["file"], tasks=values.get("task"), any_size=values.get("any_size", False)
    )
    save_model(out, model)
    print(f"{out}: {_title(model)}")


def _export(arguments: Sequence[str]) -> None:
    schema = {"file": Path, "out": Path, "format": Format, "task": str, "any_size": bool}
    values = _parse(arguments, "file", schema)
    out, form = _required(values, "out"), values.get("format", "official")
    from tdmpc2.checkpoints.exporting import export_model
    from tdmpc2.checkpoints.model_file import load_model
    from tdmpc2.checkpoints.reading import check_target

    check_target(out)
    model = load_model(
        values["file"], tasks=values.get("task"), any_size=values.get("any_size", False)
    )
    missing_settings = export_model(model, out, form)
    print(f"{out}: {_title(model)}, format {form}")
    if missing_settings:
        print(
            "the file does not contain these settings, which its reader has to set: "
            f"{', '.join(missing_settings)}"
        )


def _evaluate(arguments: Sequence[str]) -> None:
    options = EvaluateOptions(**_parse(arguments, "file", cli.schema_of(EvaluateOptions)))
    from tdmpc2.checkpoints.evaluation import choose_tasks, evaluate_tasks
    from tdmpc2.checkpoints.model_file import load_model
    from tdmpc2.checkpoints.reading import make_room

    if options.out is not None:
        make_room(options.out)
    assert options.file is not None
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
    from tdmpc2.checkpoints.model_file import agent_of
    from tdmpc2.common.numerics.numeric_path import choose_device, numeric_path, set_up_torch

    device = choose_device(options.device)
    agent = agent_of(model, device=device, seed=options.seed)
    precision = model.config.precision
    numeric = numeric_path(device, options.threads, compiled=options.compile, precision=precision)
    set_up_torch(numeric)
    if numeric["compile"]:
        agent.compile()
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
    schema = {"name": str, "out": Path, "url": str, "seeds": str, "single": str, "multi": str}
    values = _parse(arguments, "name", schema | {"sha256": str, "dry_run": bool})
    paths = names.expand(
        values["name"],
        seeds=parse_seeds(values["seeds"]) if "seeds" in values else names.SEEDS,
        single=values.get("single", names.SINGLE),
        multi=values.get("multi", names.MULTI),
    )
    base, sha256 = values.get("url", names.HOME), values.get("sha256")
    if sha256 is not None and (len(paths) > 1 or not re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise UserError(f"sha256={sha256}: needs 64 hexadecimal digits and a single file")
    if values.get("dry_run", False):
        print("\n".join(url_of(base, path) for path in paths))
    else:
        fetch(paths, values.get("out", default_folder()), base, sha256=sha256)


def _required(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise UserError(f"{name}= is missing (see --help)")
    return values[name]


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
