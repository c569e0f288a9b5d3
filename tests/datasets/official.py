"""Files in the layouts of the official datasets, with known numbers and without tensordict."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tdmpc2.data.chunks import ROWS_PER_ITEM
from tdmpc2.envs.tasks import get_suite

Layout = Literal["0.1", "0.2", "0.3", "0.15"]
LAYOUTS: tuple[Layout, ...] = ("0.1", "0.2", "0.3", "0.15")
Tensors = dict[str, Tensor]


def items(suite: str, per_task: int = 1, seed: int = 0, filler: float = float("nan")) -> Tensors:
    """Return items of all tasks in random order, with numbers exact in float16, zero-padded.

    Args:
        suite: `mt30` or `mt80`.
        per_task: items of each task.
        seed: of everything random.
        filler: action and reward of row 0.
    """
    tasks, rows = get_suite(suite), ROWS_PER_ITEM[suite]
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(tasks)), per_task))
    obs_dim, action_dim = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    obs = rng.normal(size=(len(index), rows, obs_dim)).astype(np.float16)
    action = rng.uniform(-1, 1, (len(index), rows, action_dim)).astype(np.float16)
    reward = rng.uniform(0, 2, (len(index), rows)).astype(np.float16)
    for i, task in enumerate(index):
        obs[i, :, tasks[task].obs_dim :] = 0
        action[i, :, tasks[task].action_dim :] = 0
    action[:, 0], reward[:, 0] = filler, filler
    arrays = {"obs": obs, "action": action, "reward": reward}
    return {
        **{key: torch.from_numpy(value.astype(np.float32)) for key, value in arrays.items()},
        "task": torch.from_numpy(np.repeat(index[:, None], rows, axis=1)),
    }


def half(tensors: Tensors) -> Tensors:
    """Return the tensors with all floats in half precision."""
    return {k: x.half() if x.is_floating_point() else x for k, x in tensors.items()}


def split(tensors: Tensors, *cuts: int) -> Iterator[Tensors]:
    """Return consecutive items."""
    ends = (*cuts, len(tensors["obs"]))
    for first, after in zip((0, *cuts), ends, strict=True):
        yield {key: x[first:after].clone() for key, x in tensors.items()}


def save(path: Path, tensors: Mapping[str, Any], layout: Layout = "0.15") -> Path:
    """Write a file as the given version of tensordict does."""
    with pretended(layout) as make:
        torch.save(make(dict(tensors)), path)
    return path


@contextmanager
def pretended(layout: Layout) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Install modules with tensordict's names, whose TensorDict is pickled as by that version.

    The names and attributes in the pickles are those of 0.1.2, 0.2.1, 0.3.2 and 0.15.3.
    """
    home = {"0.1": "tensordict.tensordict", "0.2": "tensordict.tensordict"}.get(
        layout, "tensordict._td"
    )
    names = ("tensordict", home, "tensordict.utils", "tensordict._reductions")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}

    def define(module: str, name: str, value: Any) -> Any:
        value.__module__, value.__qualname__ = module, name
        setattr(modules[module], name, value)
        return value

    entries: Any = define(
        "tensordict.utils", "_StringOnlyDict", type("_StringOnlyDict", (dict,), {})
    )
    td = define(home, "TensorDict", type("TensorDict", (), {}))
    make_td = define("tensordict._reductions", "_make_td", lambda cls, state: None)
    make_td.__name__ = "_make_td"

    def make(tensors: dict[str, Any]) -> Any:
        made = td()
        shape = next(iter(tensors.values())).shape[:2] if tensors else torch.Size([0])
        made.__dict__ = {
            "_tensordict": tensors if layout in ("0.1", "0.15") else entries(tensors),
            "_batch_size": shape,
            "_device": None,
            "_names" if layout == "0.1" else "_td_dim_names": None,
        }
        if layout in ("0.1", "0.2"):
            made.__dict__ |= {"_is_locked": False, "_is_memmap": False, "_is_shared": False}
        if layout == "0.2":
            made.__dict__ |= {"_lock_id": set(), "_locked_tensordicts": []}
        return made

    if layout == "0.15":
        td.__reduce__ = lambda self: (make_td, (td, self.__dict__))
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield make
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
