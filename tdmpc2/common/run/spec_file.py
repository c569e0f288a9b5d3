"""Files of runs and their options, with which a launcher starts the processes that train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tdmpc2.common.run.spec import OfflineOptions, RunOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError

Options = RunOptions | OfflineOptions


def write(path: Path, specs: Sequence[RunSpec], options: Options) -> None:
    """Write the runs of one process, atomically.

    Args:
        path: the file.
        specs: runs that differ only in their seed.
        options: options of all of them.
    """
    runs = [spec.to_json() for spec in specs]
    write_json(path, {"specs": runs, "options": options.to_json()})


def read(path: Path) -> tuple[list[RunSpec], Options]:
    """Read the runs of one process, and their options.

    Raises:
        UserError: the file is missing or is not one that `write` has written.
    """
    facts = read_json(path)
    require(facts is not None, f"{path}: no such file; spec= names one that a launch has written")
    try:
        for key, kind, noun in (("specs", list, "list"), ("options", dict, "table")):
            found = isinstance(facts, dict) and isinstance(facts.get(key), kind)
            require(found, f"the {noun} '{key}' is missing")
        specs = [RunSpec.from_json(spec) for spec in facts["specs"]]
        alike = {dataclasses.replace(spec, seed=0) for spec in specs}
        require(len(alike) == 1, "the list 'specs' must hold runs that differ only in their seed")
        options = OfflineOptions if specs[0].tasks else RunOptions
        return specs, options.from_json(facts["options"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
