"""Checkpoints: complete, verified, and the one before kept until the new one is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc2.common.interfaces import ReplayBuffer
from tdmpc2.common.replay.types import Episode
from tdmpc2.common.system.atomic_files import (
    fsync_directory,
    full_disk,
    read_json,
    sha256_of,
    write_atomic,
    write_json,
)
from tdmpc2.common.system.errors import UserError

FORMAT = 1
KEPT = 2  # the newest checkpoint and the one before


class CheckpointStore:
    """Checkpoints of one run and the episodes they refer to.

    `checkpoints/<agent step>/` holds `state.pt` and `manifest.json` (checksums, episode
    shards) and appears by one rename, so it is there whole or not at all. Episodes go to
    `replay/` in append-only shards, each written once.

    Args:
        directory: the run directory.
        keep_replay: whether shards stay for good; else those no checkpoint needs are removed.
    """

    def __init__(self, directory: Path, *, keep_replay: bool = False) -> None:
        self.folder = directory / "checkpoints"
        self.shard_folder = directory / "replay"
        self.keep_replay = keep_replay
        self.shards: list[dict[str, Any]] = []

    def existing(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.name.isdigit())

    # --- saving ----------------------------------------------------------------------

    def save(self, step: int, state: Mapping[str, Any], replay: ReplayBuffer | None) -> Path:
        """Writes a checkpoint, then removes what is no longer needed.

        Args:
            step: agent step, which names the checkpoint.
            state: tensors, arrays and plain containers.
            replay: its new episodes are saved too; None for a finished run whose episodes
                are not kept.

        Raises:
            UserError: no space left; the checkpoint before is untouched.
        """
        try:
            return self._save(step, state, replay)
        except (OSError, RuntimeError) as error:
            full = full_disk(error)
            if full is None:
                raise
            raise UserError(
                f"{self.folder}: no space left for a checkpoint ({full.strerror}); the last "
                "one is whole: free some space and run the same command again"
            ) from error

    def _save(self, step: int, state: Mapping[str, Any], replay: ReplayBuffer | None) -> Path:
        final = self.folder / f"{step:012d}"
        if final.exists():  # killed after this checkpoint, before the run was marked finished
            return final
        temporary = self.folder / f".{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            if replay is None:
                self.shards = []
            else:
                self._save_new_episodes(replay)
            with open(temporary / "state.pt", "wb") as file:
                torch.save(to_storable(dict(state)), file)
                file.flush()
                os.fsync(file.fileno())
            manifest = {
                "format": FORMAT,
                "agent_step": step,
                "state_sha256": sha256_of(temporary / "state.pt"),
                "oldest_episode": 0 if replay is None else replay.num_added - replay.num_episodes,
                "shards": self.shards,
            }
            write_json(temporary / "manifest.json", manifest)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(self.folder)
        self._remove_unneeded()
        return final

    def _save_new_episodes(self, replay: ReplayBuffer) -> None:
        """Writes the episodes added since the last shard into a new one."""
        first = max(self._num_saved(), replay.num_added - replay.num_episodes)
        episodes = replay.episodes(first)
        if not episodes:
            return
        self.shard_folder.mkdir(exist_ok=True)
        name = f"episodes-{first:09d}-{first + len(episodes) - 1:09d}.npz"
        path = self.shard_folder / name
        arrays = {
            "obs": np.concatenate([e.obs for e in episodes]),
            "action": np.concatenate([e.action for e in episodes]),
            "reward": np.concatenate([e.reward for e in episodes]),
            "length": np.array([len(e) for e in episodes]),
            "terminated": np.array([e.terminated for e in episodes]),
            "task": np.array([e.task for e in episodes]),
        }
        write_atomic(path, lambda file: np.savez(file, **arrays))
        shard = {"name": name, "first": first, "count": len(episodes), "sha256": sha256_of(path)}
        self.shards = [*self.shards, shard]

    def _num_saved(self) -> int:
        """Episodes, counted from the run's first, that shards hold or once held."""
        return self.shards[-1]["first"] + self.shards[-1]["count"] if self.shards else 0

    def _remove_unneeded(self) -> None:
        """Removes all but the newest checkpoints, and shards that none of these needs."""
        for path in self.existing()[:-KEPT]:
            shutil.rmtree(path)
        if self.keep_replay:
            return
        needed = set()
        for path in self.existing():
            manifest = read_json(path / "manifest.json")
            for shard in manifest["shards"]:
                if shard["first"] + shard["count"] > manifest["oldest_episode"]:
                    needed.add(shard["name"])
        for path in self.shard_folder.glob("episodes-*.npz"):
            if path.name not in needed:
                path.unlink()
        self.shards = [shard for shard in self.shards if shard["name"] in needed]

    def forget_history(self) -> None:
        """Leaves only the newest checkpoint, and no shard it doesn't need: the run is finished."""
        for path in self.existing()[:-1]:
            shutil.rmtree(path)
        self._remove_unneeded()

    # --- loading ---------------------------------------------------------------------

    def load(self, which: str | int = "latest") -> tuple[dict[str, Any], dict[str, Any]] | None:
        """State and manifest of a checkpoint, verified; None if there is no checkpoint.

        Args:
            which: `latest`, `previous`, or an agent step.

        Raises:
            UserError: the checkpoint is damaged or of another format.
        """
        found = self.existing()
        if not found:
            return None
        if which == "previous":
            if len(found) < 2:
                raise UserError(f"{self.folder}: there is no checkpoint before the latest")
            found = found[:-1]
        if isinstance(which, int):
            found = [path for path in found if int(path.name) <= which]
        return self._load(found[-1], is_last=len(found) == 1)

    def load_agent(self, path: Path) -> dict[str, Any]:
        """The state of one checkpoint for evaluation: verified, but without its episodes."""
        return self._load(path, is_last=True, with_episodes=False)[0]

    def _load(
        self, path: Path, *, is_last: bool, with_episodes: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        advice = (
            "there is none before it: move the run directory aside to start anew"
            if is_last
            else "the one before it is untouched: say checkpoint=previous to go on from there"
        )
        try:
            manifest = read_json(path / "manifest.json")
            if manifest is None or not (path / "state.pt").is_file():
                raise ValueError("a file is missing")
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this code reads {FORMAT}")
            if sha256_of(path / "state.pt") != manifest["state_sha256"]:
                raise ValueError("checksum of state.pt does not match")
            for shard in self._needed(manifest) if with_episodes else []:
                shard_path = self.shard_folder / shard["name"]
                if not shard_path.is_file() or sha256_of(shard_path) != shard["sha256"]:
                    raise ValueError(f"episode shard {shard['name']} is missing or damaged")
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"{path}: the checkpoint is damaged ({error}); {advice}") from None
        state = from_storable(torch.load(path / "state.pt", map_location="cpu", weights_only=True))
        return state, manifest

    def _needed(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Shards that hold episodes still in the replay buffer."""
        oldest = manifest["oldest_episode"]
        return [s for s in manifest["shards"] if s["first"] + s["count"] > oldest]

    def continue_from(self, manifest: Mapping[str, Any]) -> None:
        """Makes a loaded checkpoint the newest: removes what was written after it."""
        for path in self.existing():
            if int(path.name) > manifest["agent_step"]:
                shutil.rmtree(path)
        self.shards = list(manifest["shards"])
        self._remove_shards_but({shard["name"] for shard in self.shards})

    def clear(self) -> None:
        """Removes everything: the run starts from its beginning."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.shards = []
        self._remove_shards_but(set())

    def _remove_shards_but(self, names: set[str]) -> None:
        for path in self.shard_folder.glob("episodes-*.npz"):
            if path.name not in names:
                path.unlink()

    def episodes(self, manifest: Mapping[str, Any]) -> Iterator[Episode]:
        """The episodes that were in the replay buffer, oldest first, shard by shard."""
        for shard in self._needed(manifest):
            with np.load(self.shard_folder / shard["name"]) as file:
                arrays = {key: file[key] for key in file.files}
            skip = max(manifest["oldest_episode"] - shard["first"], 0)
            yield from _split(arrays, skip)


def _split(arrays: Mapping[str, np.ndarray], skip: int) -> Iterator[Episode]:
    """Episodes of a shard, without the first `skip`."""
    row = transition = 0
    for i, length in enumerate(arrays["length"]):
        if i >= skip:
            yield Episode(
                obs=arrays["obs"][row : row + length + 1],
                action=arrays["action"][transition : transition + length],
                reward=arrays["reward"][transition : transition + length],
                terminated=bool(arrays["terminated"][i]),
                task=int(arrays["task"][i]),
            )
        row += length + 1
        transition += length


def to_storable(value: Any) -> Any:
    """Replaces NumPy arrays by tagged tensors, so that `weights_only` loading accepts them.

    A tensor that is part of a larger one is copied: torch would save all of that.
    """
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(value.copy())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: to_storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_storable(item) for item in value)
    return value


def from_storable(value: Any) -> Any:
    """Inverse of `to_storable`."""
    if isinstance(value, dict):
        if value.keys() == {"__array__"}:
            return value["__array__"].numpy()
        return {key: from_storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_storable(item) for item in value)
    return value


def sha256_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Checksum of named tensors, however they lie in a file."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
