"""RAM that a replay buffer needs and RAM that is available, compared before a run starts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import psutil
import torch

from tdmpc2.common.system.errors import UserError

_RAM_SHARE = 0.9  # share of the free RAM that a replay buffer may use; networks need the rest
_GPU_SHARE = 0.5  # the same for GPU memory, which other processes may also need
_UNLIMITED = 1 << 60  # cgroup v1 reports a number near 2^63 if there is no limit


def replay_bytes(
    rows: int,
    obs_shape: tuple[int, ...],
    action_dim: int,
    *,
    frame_stack: int = 1,
    across_episodes: bool = False,
) -> int:
    """Return the size of a replay buffer in bytes.

    Args:
        rows: number of rows that will be filled.
        obs_shape: `(O,)` of float32, or `(C, H, W)` of bytes.
        action_dim: action dimension A, of float32.
        frame_stack: number of frames in an observation; a row stores one of them.
        across_episodes: whether it is a `SequenceReplay`, which stores all frames as float32.
    """
    whole = across_episodes or len(obs_shape) == 1
    obs = math.prod(obs_shape) * 4 if whole else math.prod(obs_shape) // frame_stack
    others = 4 * action_dim + 4 + 4 + 8 + 8  # reward, terminated, task, list of starts
    return rows * (obs + others)


def lazy_zeros(
    *shape: int, dtype: torch.dtype = torch.float32, device: torch.device
) -> torch.Tensor:
    """Return zeros that, on a CPU, occupy physical memory only where they have been written.

    `torch.zeros` writes to every page, so that a buffer would occupy all of its gigabytes from
    the start.

    Args:
        *shape: sizes of the dimensions.
        dtype: type of the numbers.
        device: device of the tensor.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(np.zeros(shape, kind))


def replay_device(bytes_per_row: int, capacity: int, device: torch.device) -> torch.device:
    """Choose the device of a replay buffer: the networks' GPU if the buffer fits, else the CPU.

    The device does not influence what is sampled.

    Args:
        bytes_per_row: size of a row in bytes.
        capacity: number of rows, all of which are allocated at once on a GPU.
        device: device of the networks.
    """
    if device.type != "cuda":
        return device
    free = torch.cuda.mem_get_info(device)[0]
    return device if bytes_per_row * capacity <= _GPU_SHARE * free else torch.device("cpu")


def check_memory(bytes_per_row: int, rows: int) -> None:
    """Check that a replay buffer fits into the free RAM.

    Args:
        bytes_per_row: size of a row in bytes.
        rows: largest number of rows that the run can fill.

    Raises:
        UserError: the buffer does not fit; the message states the largest `buffer_size` that does.
    """
    free = available_memory()
    need = bytes_per_row * rows
    if need <= _RAM_SHARE * free:
        return
    fits = int(_RAM_SHARE * free) // bytes_per_row
    fits = max(fits - fits % 1000, 0)
    raise UserError(
        f"the replay buffer needs {need / 1e9:.1f} GB for {rows:,} rows, but {free / 1e9:.1f} GB "
        f"are free on this machine or in this job; use buffer_size={fits} (not the paper's "
        "setting), or a machine with more memory"
    )


def available_memory(cgroups: Path = Path("/sys/fs/cgroup"), process: str = "self") -> int:
    """Return the bytes of RAM that this process may still allocate.

    The limit is the free memory of the machine or that of the job's control groups, whichever is
    less.

    Args:
        cgroups: mount point of the control groups, in which SLURM and containers set limits.
        process: process to check, as a name in `/proc`.
    """
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return min([psutil.virtual_memory().available, *cgroup_memory(cgroups, lines)])


def cgroup_memory(mount: Path, lines: list[str]) -> list[int]:
    """Return the free bytes of each control group of a process that has a memory limit.

    Args:
        mount: mount point of the control groups.
        lines: lines of `/proc/<pid>/cgroup`, `number:controllers:path`; the controllers are empty
            in version 2.
    """
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = mount / "memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # A limit applies to all subgroups; inside a container the path may not be visible.
        inner = root / path.lstrip("/")
        groups = [inner, *inner.parents]
        for group in groups[: groups.index(root) + 1]:
            most, now = _number(group / limit), _number(group / used)
            if most is not None and now is not None and most < _UNLIMITED:
                left.append(max(most - now + _statistic(group / "memory.stat", cache), 0))
    return left


def _statistic(file: Path, name: str) -> int:
    """Return a value from `memory.stat`.

    It is used for the page cache, which counts as used memory but is released when needed.
    """
    try:
        fields = file.read_text(encoding="utf-8").split()
    except OSError:
        return 0
    return dict(zip(fields[::2], map(int, fields[1::2]), strict=True)).get(name, 0)


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is no file or it contains `max`."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
