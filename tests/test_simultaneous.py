"""Forty processes start at the same time; five of them start each run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.kill_driver import Command, Done
from tests.runs import arguments, outcome_of, tiny

RUNS, STARTS = 8, 5
# Three episodes, each followed by a checkpoint; updates begin in the last one.
QUICK = {"env_steps": 150, "eval_every": 150}


def test_forty_starts_at_once(tmp_path: Path) -> None:
    seeds = [seed for _ in range(STARTS) for seed in range(1, RUNS + 1)]
    commands = [Command(arguments(tmp_path / "crowd", seed=seed, **QUICK)) for seed in seeds]
    with ThreadPoolExecutor(len(commands)) as pool:
        ended = list(pool.map(Command.run, commands))
    assert tiny(tmp_path / "alone", seed=1, **QUICK).code == 0
    (alone,) = (tmp_path / "alone").glob("*/*/*/seed1-*")
    for seed in range(1, RUNS + 1):
        (directory,) = (tmp_path / "crowd").glob(f"*/*/*/seed{seed}-*")
        tried = [done for one, done in zip(seeds, ended, strict=True) if one == seed]
        assert {done.code for done in tried} <= {0, 2}
        assert sum(done.code == 0 for done in tried) >= 1
        assert all(refused_in_one_line(done) for done in tried if done.code == 2)
        assert not (directory / "lease.json").exists()
        assert not list(directory.glob(".*"))
        assert [path.name for path in (directory / "sacred").glob("[0-9]*")] == ["1"]
        assert (directory / "eval.csv").read_text().count("\n") == 3
    (first,) = (tmp_path / "crowd").glob("*/*/*/seed1-*")
    assert outcome_of(first) == outcome_of(alone)


def refused_in_one_line(done: Done) -> bool:
    return done.err.count("\n") == 1 and (": in use by process" in done.err)
