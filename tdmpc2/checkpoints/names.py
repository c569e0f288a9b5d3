"""Paths of the authors' released checkpoints, as far as they can be inferred."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import PurePosixPath

from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import ALIASES, SUITES, TASKS, get_task

HOME = "https://huggingface.co/nicklashansen/tdmpc2/resolve/main"
SINGLE = "{domain}/{task}-{seed}.pt"
MULTI = "multitask/{set}-{size}M.pt"
SEEDS = (1, 2, 3)
SETS = ("mt30", "mt80")
SIZES = ("1", "5", "19", "48", "317")
DOMAINS = ("dmcontrol", "metaworld", "maniskill2", "myosuite")


def expand(
    names: str, *, seeds: Sequence[int] = SEEDS, single: str = SINGLE, multi: str = MULTI
) -> list[str]:
    """Return the paths of checkpoints below `HOME`.

    The authors do not document the file names: the default patterns are inferred.

    Args:
        names: a comma-separated list of `all`, a domain, `multitask`, a task set (`mt80`), one of
            its models (`mt80-48M`), a task, or a path (`multitask/mt80-48M.pt`), which is kept.
        seeds: seeds of single-task models.
        single: pattern of the paths of single-task models, with `{domain}`, `{task}`, `{seed}`.
        multi: pattern of the paths of multi-task models, with `{set}` and `{size}`.

    Raises:
        UserError: a name is unknown, a path leaves its folder, or a pattern has other fields.
    """
    _check_pattern("single", single, {"domain", "task", "seed"})
    _check_pattern("multi", multi, {"set", "size"})
    models = {f"{group}-{size}M": _multi(multi, group, size) for group in SETS for size in SIZES}
    paths: list[str] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if "/" in name:
            paths.append(_checked(name))
        elif name in ("all", "multitask", *DOMAINS, *SETS):
            domains = DOMAINS if name == "all" else [d for d in DOMAINS if d == name]
            paths += [p for d in domains for t in SUITES[d] for p in _single(single, t.name, seeds)]
            whole = ("all", "multitask")
            paths += [p for m, p in models.items() if name in (*whole, m.partition("-")[0])]
        elif name in models:
            paths.append(models[name])
        elif name in TASKS or name in ALIASES:
            paths += _single(single, get_task(name).name, seeds)
        else:
            known = ("all", "multitask", *DOMAINS, *SETS, *models, *TASKS)
            raise UserError(f"unknown checkpoint '{name}'{did_you_mean(name, known)}")
    if not paths:
        raise UserError("no checkpoints are named; give a task, a domain, mt80-48M, a path, or all")
    return list(dict.fromkeys(paths))


def _single(pattern: str, task: str, seeds: Sequence[int]) -> list[str]:
    domain = get_task(task).domain
    if domain not in DOMAINS:
        raise UserError(f"task '{task}' has no released checkpoints")
    return [_checked(pattern.format(domain=domain, task=task, seed=seed)) for seed in seeds]


def _multi(pattern: str, group: str, size: str) -> str:
    return _checked(pattern.format(set=group, size=size))


def _check_pattern(argument: str, pattern: str, fields: set[str]) -> None:
    try:
        parsed = [part for part in string.Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{argument}={pattern}: not a valid pattern ({error})") from None
    formats = any(form or conversion for _, _, form, conversion in parsed)
    if formats or {name for _, name, _, _ in parsed} != fields:
        wanted = ", ".join(sorted(f"{{{field}}}" for field in fields))
        raise UserError(
            f"{argument}={pattern}: must have the fields {wanted}, no others, and no formats"
        )


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or path.endswith("/"):
        raise UserError(f"{path}: must be a path below the folder of the checkpoints")
    return path
