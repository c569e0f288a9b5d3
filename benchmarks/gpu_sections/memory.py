"""Section `memory`: memory of an agent and its replay buffer, and the buffer's device."""

from __future__ import annotations

import psutil
import torch

from gpu_sections.bench import WALKER, make_filled_agent, set_up
from gpu_sections.report import Report, Settings
from tdmpc2.common.replay.ram_budget import replay_bytes, replay_device


def run(report: Report, settings: Settings) -> None:
    """Measure the memory of the networks, of the buffer, and at the peak of an update."""
    set_up(settings)
    rows = 20_000 if settings.small else 1_000_000
    before = in_use(settings)
    agent, replay = make_filled_agent(settings, rows=2_000, buffer_size=rows)
    report.add("agent and replay buffer", (in_use(settings) - before) / 1e6, "MB")
    expected = replay_bytes(rows, WALKER.obs_shape, WALKER.action_dim)
    report.add("replay buffer, as planned", expected / 1e6, "MB")
    place = replay_device(expected // rows, rows, settings.device)
    report.add("replay buffer planned on", str(place))
    same = replay.obs.device.type == place.type == settings.device.type
    report.add("replay buffer is on the device", float(same), at_least=1.0)
    batch = replay.sample(agent.config.batch_size, agent.replay_length)
    on_device = all(x.device.type == settings.device.type for x in batch if x is not None)
    report.add("batches are made on the device", float(on_device), at_least=1.0)
    if settings.on_gpu:
        torch.cuda.reset_peak_memory_stats(settings.device)
    for _ in range(3):
        agent.update(replay)
    report.add("peak of an update", peak(settings) / 1e6, "MB")


def in_use(settings: Settings) -> float:
    """Return the bytes of device memory that tensors use; on a CPU, those of this process."""
    if settings.on_gpu:
        torch.cuda.synchronize(settings.device)
        return torch.cuda.memory_allocated(settings.device)
    return psutil.Process().memory_info().rss


def peak(settings: Settings) -> float:
    """Return the peak of the bytes in use; on a CPU, their current number."""
    if settings.on_gpu:
        return torch.cuda.max_memory_allocated(settings.device)
    return in_use(settings)
