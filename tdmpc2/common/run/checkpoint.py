"""Checkpoints of a run: atomic, verified by checksums, and sufficient for a bit-exact resume.

A checkpoint holds everything that training depends on: agent, optimizer and generator states,
counters, replay contents, and the sizes of the CSV files. On resume the CSV files are truncated to
these sizes, and the work since the checkpoint is redone with the same results.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from tdmpc2.common.interfaces import ReplayBuffer
from tdmpc2.common.replay.types import Episode
from tdmpc2.common.run.checkpoint_folders import (
    FOLDER,
    REPLACED,
    agent_step,
    existing_checkpoints,
)
from tdmpc2.common.run.schemas import Manifest
from tdmpc2.common.run.storable import from_storable, to_storable
from tdmpc2.common.system.atomic_files import (
    fsync_directory,
    full_disk,
    read_json,
    sha256_of,
    write_atomic,
    write_json,
)
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import UnreadableError, disk_error, is_unknown, unreadable

FORMAT = 1
KEPT = 2  # number of checkpoints on disk: the newest and the previous one


class CheckpointStore:
    """The checkpoints of one run and the episodes that they refer to.

    A checkpoint is the folder `checkpoints/<agent step>/` with `state.pt` and `manifest.json`
    (checksums, list of episode shards). It is written under a temporary name and renamed when it
    is complete, so a killed process never leaves an incomplete checkpoint. If it replaces one of
    the same step, that one has the suffix `REPLACED` until it is removed. The newest two
    checkpoints are kept. Episodes are stored once, in append-only shards in `replay/`: each
    checkpoint adds one shard with the episodes since the previous one.

    Args:
        directory: the run directory.
        keep_replay: whether all shards are kept; otherwise a shard is removed when no checkpoint
            needs it.
        check: function that raises an error if this process may no longer write to the directory;
            called before each write.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_replay: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.check = check
        self.folder = directory / FOLDER
        self.shard_folder = directory / "replay"
        self.keep_replay = keep_replay
        self.shards: list[dict[str, Any]] = []
        self._loaded: Path | None = None

    def existing(self) -> list[Path]:
        """Return the folders of all complete checkpoints, oldest first."""
        return existing_checkpoints(self.folder.parent)

    # --- saving ----------------------------------------------------------------------

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        replay: ReplayBuffer | None,
        *,
        replace: bool = False,
    ) -> Path:
        """Write a checkpoint, then remove checkpoints and shards that are no longer needed.

        Args:
            step: agent step (or number of updates); names the checkpoint.
            state: tensors, arrays and plain containers.
            replay: replay buffer whose new episodes are saved; None if the checkpoint needs no
                episodes (a finished run without `keep_replay`, or training from a dataset).
            replace: whether a checkpoint of the same step is replaced; otherwise it stays.

        Returns:
            The folder of the checkpoint.

        Raises:
            UserError: the disk is full or has an error; the previous checkpoint is intact.
        """
        try:
            return self._save(step, state, replay, replace)
        except (OSError, RuntimeError) as error:
            full = full_disk(error)
            cause = full or disk_error(error)
            if cause is None:
                raise
            what = "no space left for a checkpoint" if full else "a checkpoint cannot be written"
            what_to_do = "free some space" if full else "check the disk or the file server"
            raise UserError(
                f"{self.folder}: {what} ({cause.strerror}); the previous one is intact: "
                f"{what_to_do} and run the same command again"
            ) from error

    def _save(
        self, step: int, state: Mapping[str, Any], replay: ReplayBuffer | None, replace: bool
    ) -> Path:
        self.check()
        final = self.folder / f"{step:012d}"
        # The process was killed between this checkpoint and the final status.
        if final.exists() and not replace:
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
            self.check()  # writing may have taken long
            replaced = final.with_name(final.name + REPLACED)
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                os.rename(final, replaced)
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        self._remove_unneeded()
        return final

    def _save_new_episodes(self, replay: ReplayBuffer) -> None:
        """Write the episodes that were added since the last shard to a new shard."""
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
        """Return how many episodes, from the first of the run, have ever been saved in shards."""
        return self.shards[-1]["first"] + self.shards[-1]["count"] if self.shards else 0

    def _remove_unneeded(self) -> None:
        """Remove all but the newest `KEPT` checkpoints, and the shards that none of these needs."""
        for path in self.existing()[:-KEPT]:
            shutil.rmtree(path)
        if self.keep_replay:
            return
        needed = set()
        for path in self.existing():
            manifest = read_json(path / "manifest.json", Manifest)
            for shard in manifest["shards"]:
                if shard["first"] + shard["count"] > manifest["oldest_episode"]:
                    needed.add(shard["name"])
        for path in self.shard_folder.glob("episodes-*.npz"):
            if path.name not in needed:
                path.unlink()
        self.shards = [shard for shard in self.shards if shard["name"] in needed]

    def forget_history(self) -> None:
        """Remove all but the newest checkpoint and its shards; called when the run is finished."""
        for path in self.existing()[:-1]:
            shutil.rmtree(path)
        self._remove_unneeded()

    # --- loading ---------------------------------------------------------------------

    def load(self, which: str | int = "latest") -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Load a checkpoint and verify its checksums.

        Args:
            which: `latest`, `previous` (the one before the latest), or an agent step: the newest
                checkpoint at or before it.

        Returns:
            State and manifest of the checkpoint; None if there is no checkpoint.

        Raises:
            UserError: the checkpoint is damaged or has another format, or there is no previous one.
        """
        candidates = self.existing()
        if not candidates:
            return None
        if which == "previous":
            if len(candidates) < 2:
                raise UserError(
                    f"{self.folder}: there is no checkpoint before the latest; "
                    "use checkpoint=latest"
                )
            candidates = candidates[:-1]
        if isinstance(which, int):
            candidates = [path for path in candidates if agent_step(path) <= which]
        self._loaded = candidates[-1]
        if len(candidates) == 1:
            advice = "there is no earlier one: move the run directory away to start again"
        elif (read_json(self.folder.parent / "spec.json") or {}).get("start"):
            # `checkpoint=` of finetune.py names the model.
            advice = "the previous one is not affected: remove this folder to resume from it"
        else:
            advice = "the previous one is not affected: resume from it with checkpoint=previous"
        return self._load(self._loaded, advice)

    def load_agent(self, path: Path) -> dict[str, Any]:
        """Load the state of one checkpoint for evaluation and verify it.

        The episode shards are not read: they need not exist.
        """
        known = self.existing()
        earlier = known[: known.index(path)] if path in known else []
        advice = f"use an earlier one: {earlier[-1]}" if earlier else "restore it from a copy"
        return self._load(path, advice, with_episodes=False)[0]

    def _load(
        self, path: Path, advice: str, *, with_episodes: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            manifest = read_json(path / "manifest.json")
            if manifest is None or not (path / "state.pt").is_file():
                raise ValueError("a file is missing")
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this code reads {FORMAT}")
            msgspec.convert(manifest, Manifest)
            if sha256_of(path / "state.pt") != manifest["state_sha256"]:
                raise ValueError("checksum of state.pt does not match")
            for shard in self._needed(manifest) if with_episodes else []:
                shard_path = self.shard_folder / shard["name"]
                if not shard_path.is_file() or sha256_of(shard_path) != shard["sha256"]:
                    raise ValueError(f"episode shard {shard['name']} is missing or damaged")
        except UnreadableError:
            raise
        except (
            *(ValueError, KeyError, TypeError, OSError),
            *(msgspec.ValidationError, UserError),
        ) as error:
            if isinstance(error, OSError) and is_unknown(error):
                raise unreadable(path, error) from None
            raise UserError(f"{path}: the checkpoint is damaged ({error}); {advice}") from None
        state = from_storable(torch.load(path / "state.pt", map_location="cpu", weights_only=True))
        return state, manifest

    def _needed(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the shards with episodes that were in the replay buffer."""
        oldest = manifest["oldest_episode"]
        return [s for s in manifest["shards"] if s["first"] + s["count"] > oldest]

    def continue_from(self, manifest: Mapping[str, Any]) -> None:
        """Remove all checkpoints and shards that are newer than the loaded checkpoint."""
        for path in self.existing():
            step = agent_step(path)
            if step > manifest["agent_step"] or (
                step == manifest["agent_step"] and path != self._loaded
            ):
                shutil.rmtree(path)
        # A checkpoint without `keep_replay` also lists shards that were removed after it was saved.
        saved = manifest["shards"]
        self.shards = [s for s in saved if (self.shard_folder / s["name"]).is_file()]
        self._remove_shards_but({shard["name"] for shard in self.shards})

    def clear(self) -> None:
        """Remove all checkpoints and shards, to start the run from its beginning."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.shards = []
        self._remove_shards_but(set())

    def _remove_shards_but(self, names: set[str]) -> None:
        for path in self.shard_folder.glob("episodes-*.npz"):
            if path.name not in names:
                path.unlink()

    def episodes(self, manifest: Mapping[str, Any]) -> Iterator[Episode]:
        """Yield the episodes that were in the replay buffer, oldest first."""
        for shard in self._needed(manifest):
            with np.load(self.shard_folder / shard["name"]) as file:
                arrays = {key: file[key] for key in file.files}
            skip = max(manifest["oldest_episode"] - shard["first"], 0)
            yield from _split(arrays, skip)


def _split(arrays: Mapping[str, np.ndarray], skip: int) -> Iterator[Episode]:
    """Yield the episodes of a shard, without the first `skip`."""
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
