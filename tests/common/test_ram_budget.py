"""RAM that a replay buffer needs, and RAM that is available."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tdmpc2.common.replay import ram_budget
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.ram_budget import (
    available_memory,
    cgroup_memory,
    check_memory,
    replay_bytes,
    replay_device,
)
from tdmpc2.common.system.errors import UserError


@pytest.mark.parametrize(("shape", "frame_stack"), [((5,), 1), ((9, 64, 64), 3), ((9, 8, 8), 1)])
def test_bytes_are_those_of_the_tensors(shape: tuple[int, ...], frame_stack: int) -> None:
    replay = Replay(
        100,
        3,
        shape,
        2,
        generator=torch.Generator(),
        obs_dtype=torch.float32 if len(shape) == 1 else torch.uint8,
        frame_stack=frame_stack,
    )
    tensors = [value for value in vars(replay).values() if isinstance(value, torch.Tensor)]
    held = sum(t.numel() * t.element_size() for t in tensors if len(t) == 100)
    assert replay_bytes(100, shape, 2, frame_stack=frame_stack) == held


GROWTH = """
import psutil, torch
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.sequence_replay import SequenceReplay
memory, few = psutil.Process().memory_info, {"generator": torch.Generator()}
before = memory().rss
episodes = Replay(1_000_000, 3, (90,), 10, **few)
sequences = SequenceReplay(1_000_000, 3, (90,), 10, num_places=2, **few)
assert episodes.obs.nbytes == sequences.obs.nbytes == 360_000_000
print(memory().rss - before)
"""


def test_rows_that_are_not_filled_occupy_no_memory() -> None:
    """The check before a run counts only the rows that it can fill.

    In a process of its own: one that has freed much memory may reuse and so write it.
    """
    grown = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, check=True)
    assert int(grown.stdout) < 50e6


def test_the_papers_pixel_memory_is_12_gigabytes() -> None:
    assert 12.2e9 < replay_bytes(1_000_000, (9, 64, 64), 6, frame_stack=3) < 12.4e9


def test_what_fits_passes_and_what_does_not_says_what_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ram_budget, "available_memory", lambda: 10_000_000)
    check_memory(100, 90_000)
    with pytest.raises(UserError) as error:
        check_memory(100, 95_555)
    assert "use buffer_size=90000 " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gpu_keeps_the_memory_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer goes to the GPU if it fits into half of its free memory, else to the CPU."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, 2_000_000))
    assert replay_device(100, 5_000, gpu) == gpu
    assert replay_device(100, 5_001, gpu) == cpu
    assert replay_device(100, 10**9, cpu) == cpu


def test_a_replay_beyond_this_machine_is_refused() -> None:
    with pytest.raises(UserError, match="GB are free on this machine"):
        check_memory(replay_bytes(1, (9, 64, 64), 6), 10**9)


def test_this_process_has_some_but_no_more_than_the_machine() -> None:
    assert 0 < available_memory() <= psutil.virtual_memory().total


def group(folder: Path, files: dict[str, str]) -> None:
    """Create a control group with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def test_limits_of_version_2(tmp_path: Path) -> None:
    group(tmp_path / "job", {"memory.max": "1000", "memory.current": "400"})
    group(tmp_path / "job/step", {"memory.max": "max", "memory.current": "300"})
    assert cgroup_memory(tmp_path, ["0::/job/step"]) == [600]
    group(tmp_path / "job/step", {"memory.max": "350"})
    assert sorted(cgroup_memory(tmp_path, ["0::/job/step"])) == [50, 600]
    group(tmp_path / "job/step", {"memory.stat": "anon 250\ninactive_file 30\nactive_file 20"})
    assert sorted(cgroup_memory(tmp_path, ["0::/job/step"])) == [80, 600]
    assert cgroup_memory(tmp_path, ["0::/"]) == []


def test_limits_of_version_1(tmp_path: Path) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "memory/job", dict(zip(names, ("1000", "1200"), strict=True)))
    group(tmp_path / "memory", dict(zip(names, (str(2**63 - 4096), "1"), strict=True)))
    lines = ["8:cpu,cpuacct:/job", "4:memory:/job/that/is/not/visible", "0::/"]
    assert cgroup_memory(tmp_path, lines) == [0]  # more used than allowed: nothing is free
