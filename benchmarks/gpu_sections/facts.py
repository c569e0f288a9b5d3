"""Facts on which the validity of a result depends, and the folders of the runs made under them."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2.common.run.source_version import SourceVersion

if TYPE_CHECKING:
    import torch

TRAIN = "train"  # the only section that depends on the chosen tasks


def facts_of(device: torch.device, small: bool) -> dict[str, Any]:
    """Return the facts on which the results of all sections depend."""
    import torch

    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": source_version(),
        "small": small,
    }


def source_version() -> str | None:
    """Return the commit, with a digest of uncommitted changes; None if it is unknown."""
    version = SourceVersion.here()
    if version.commit is None or version.patch is None:
        return None
    if not version.patch:
        return version.commit
    return f"{version.commit}+{hashlib.sha256(version.patch).hexdigest()[:10]}"


def key_of(name: str, facts: Mapping[str, Any], tasks: str) -> dict[str, Any]:
    """Return the facts on which the result of one section depends.

    Args:
        name: name of the section.
        facts: see `facts_of`.
        tasks: chosen tasks, separated by commas; all if empty.
    """
    return {**facts, "tasks": tasks or "all"} if name == TRAIN else dict(facts)


def is_passed(result: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    """Return whether a result is `passed` under the same facts; never for an unknown version."""
    known = key["commit"] is not None
    return known and result.get("status") == "passed" and result.get("key") == key


def runs_name(key: Mapping[str, Any]) -> str:
    """Return the name of the folder of the runs of section `train`.

    Runs count for the facts under which they were started, so there is one folder for all of these
    but the tasks. If the version of the code is unknown, each call returns another name.

    Args:
        key: see `key_of`.
    """
    if key["commit"] is None:
        return time.strftime("unknown-%Y%m%d-%H%M%S")
    facts = {name: value for name, value in key.items() if name != "tasks"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{key['commit'][:10]}-{digest[:10]}"


def set_aside(out: Path, key: Mapping[str, Any]) -> None:
    """Rename the runs of section `train` and their records, so that it trains all anew.

    Args:
        out: folder of the results.
        key: see `key_of`.
    """
    name = runs_name(key)
    for folder in (out / "runs", out / "recorded"):
        if (folder / name).exists():
            others = (folder / f"{name}.{number}" for number in itertools.count(1))
            (folder / name).rename(next(path for path in others if not path.exists()))
