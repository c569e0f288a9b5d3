"""The division of a machine's cores among the processes of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.planning.cores import CoreUse, divide, threads_of
from sweeps.planning.planned_run import PlannedRun, SeedGroup
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.runners.specs import make_spec

SMALL = {"model_size": "smoke"}


def groups(num: int, folder: Path = Path("runs"), **overrides: str) -> list[SeedGroup]:
    """Return processes with one run each."""
    specs = [make_spec("tdmpc2", "walker-walk", seed, overrides=overrides) for seed in range(num)]
    return [[PlannedRun(spec, folder / f"seed{spec.seed}")] for spec in specs]


@pytest.mark.parametrize(
    ("num", "cores", "expected"),
    [
        (1, 1, CoreUse(1, 1)),
        (1, 2, CoreUse(2, 1)),
        (1, 16, CoreUse(2, 8)),
        (2, 2, CoreUse(1, 2)),
        (2, 3, CoreUse(1, 3)),
        (2, 4, CoreUse(2, 2)),
        (9, 4, CoreUse(1, 4)),
    ],
)
def test_a_second_thread_only_where_cores_would_be_idle(
    num: int, cores: int, expected: CoreUse
) -> None:
    assert divide(groups(num), cores, None, None) == expected


def test_small_models_have_one_thread() -> None:
    assert divide(groups(1, **SMALL), 4, None, None) == CoreUse(1, 4)
    assert divide(groups(1) + groups(1, **SMALL), 4, None, None) == CoreUse(1, 4)


def test_options_override_the_rule() -> None:
    assert divide(groups(1), 8, 3, None) == CoreUse(3, 2)
    assert divide(groups(1), 2, 4, None) == CoreUse(4, 1)
    assert divide(groups(9), 4, None, 2) == CoreUse(2, 2)  # two at a time leave two cores idle
    assert divide(groups(9), 4, None, 4) == CoreUse(1, 4)


def test_a_run_keeps_the_threads_that_it_began_with(tmp_path: Path) -> None:
    (new,), (begun,) = groups(2, tmp_path)
    begun.directory.mkdir()
    write_json(begun.directory / "numeric.json", {"threads": 1})
    assert threads_of([new], 2) == 2
    assert threads_of([begun], 2) == 1
    assert threads_of([new, begun], 2) == 1
    (begun.directory / "numeric.json").write_text("{")
    assert threads_of([begun], 2) == 2  # its process reports the damaged file
