"""Compilation: the cache folder, and results that the next step on a GPU must not overwrite."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest
import torch

from tdmpc2.common.numerics.compile import Compiler, use_own_cache

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def test_each_python_and_torch_keeps_its_own_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for python, version in (((3, 11), "2.13.0"), ((3, 12), "2.13.0"), ((3, 11), "2.14.0")):
        monkeypatch.setattr(sys, "version_info", (*python, 1, "final", 0))
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setenv(VARIABLE, f"{tempfile.gettempdir()}/torchinductor_me")  # torch's default
        use_own_cache()
        found.add(os.environ[VARIABLE])
    assert len(found) == 3


def test_a_folder_that_the_user_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/named")
    use_own_cache()
    assert os.environ[VARIABLE] == "/named"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_results_outlive_the_memory_of_a_graph(device: str) -> None:
    """A step returns memory that the next step overwrites, as CUDA graphs do."""
    memory = torch.zeros(3)

    def step(value: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        memory.fill_(value)
        return memory, {"metric": memory[0]}

    compiler = Compiler(torch.device(device))
    protected = compiler.protect(step)
    compiler.enabled = True
    first, metrics = protected(1.0)
    protected(2.0)
    kept = 1.0 if device == "cuda" else 2.0
    assert first.tolist() == [kept] * 3
    assert metrics["metric"] == kept
