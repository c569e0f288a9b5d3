"""Tiny training runs, and checksums of their results for comparisons."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.kill_driver import Blow, Command, Done

# 4 episodes of 50 decisions, first update in the third; a few thousand parameters.
TINY: dict[str, Any] = {
    "task": "toy-pointmass",
    "env_steps": 200,
    "model_size": "smoke",
    "enc_dim": 8,
    "mlp_dim": 8,
    "latent_dim": 8,
    "num_bins": 5,
    "horizon": 1,
    "iterations": 1,
    "num_samples": 8,
    "num_elites": 4,
    "num_pi_samples": 2,
    "batch_size": 8,
    "seed_decisions": 140,
    "pretrain_updates": 8,
    "eval_every": 100,
    "eval_episodes": 2,
    "checkpoint_minutes": 0,
    "threads": 1,
    "device": "cpu",
    "compile": "false",
}
# The unrolled model overflows within a few updates.
DIVERGING = {"lr": 1, "latent_norm": "none", "hidden_norm": "none", "horizon": 20}


class Outcome(NamedTuple):
    """Checksums of the results of a run."""

    eval_csv: str
    train_csv: str
    agent: str


def arguments(runs: Path, **changes: Any) -> list[str]:
    """Return the arguments of a tiny run; a change to None omits the argument."""
    values = {**TINY, "runs": runs, **changes}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def tiny(runs: Path, blow: Blow | None = None, **changes: Any) -> Done:
    """Run the train command with the tiny settings."""
    return Command(arguments(runs, **changes), blow).run()


def refusal(runs: Path, **changes: Any) -> str:
    """Run the train command, which must fail with one line of error; return that line."""
    done = tiny(runs, **changes)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    return done.err


def run_directory(runs: Path) -> Path:
    """Return the directory of the only run in a folder."""
    (spec,) = runs.rglob("spec.json")
    return spec.parent


def outcome(runs: Path) -> Outcome:
    """Return the checksums of the only run in a folder."""
    return outcome_of(run_directory(runs))


def outcome_of(directory: Path) -> Outcome:
    """Return the checksums of a run."""
    sums = [sha256((directory / name).read_bytes()) for name in ("eval.csv", "train.csv")]
    return Outcome(*sums, sha256(*agent_bytes(directory)))


def sha256(*parts: bytes) -> str:
    """Return a checksum of several byte strings."""
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def agent_bytes(directory: Path) -> list[bytes]:
    """Return the bytes of each tensor of the agent in the newest checkpoint, with its name."""
    newest = max((directory / "checkpoints").iterdir())
    state = torch.load(newest / "state.pt", weights_only=True, map_location="cpu")
    flat = flattened(state["agent"], "agent")
    assert len(flat) > 100
    return flat


def flattened(state: Any, name: str = "state") -> list[bytes]:
    """Return the bytes of each tensor and value of a state, with its name."""
    flat: list[bytes] = []
    _flatten(name, state, flat)
    return flat


def _flatten(name: str, value: Any, flat: list[bytes]) -> None:
    if isinstance(value, dict):
        for key in value:
            _flatten(f"{name}.{key}", value[key], flat)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _flatten(f"{name}.{i}", item, flat)
    else:
        data = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        flat.append(name.encode() + b"=" + data)


def files(runs: Path) -> set[str]:
    """Return the files of the only run in a folder, except Sacred's records."""
    directory = run_directory(runs)
    paths = (str(p.relative_to(directory)) for p in directory.rglob("*"))
    return {path for path in paths if not path.startswith("sacred/")}


def evaluated_steps(runs: Path) -> list[int]:
    """Return the env steps of the complete lines of `eval.csv`."""
    path = run_directory(runs) / "eval.csv"
    lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return [int(line.split(",")[0]) for line in lines]


def checkpoint_steps(runs: Path) -> list[int]:
    """Return the agent steps of the complete checkpoints."""
    folder = run_directory(runs) / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("[0-9]*"))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return contents and modification times of a folder, to check that nothing changes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }
