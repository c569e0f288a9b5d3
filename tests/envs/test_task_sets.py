"""Task sets of multi-task agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.gymnasium_tasks import VARIABLE
from tdmpc2.envs.task_sets import get_task_set


def test_names_of_task_sets() -> None:
    assert get_task_set("mt30")[0] == "mt30"
    name, tasks = get_task_set("cheetah-run,walker-walk")
    assert name == "cheetah-run+walker-walk"
    assert [task.name for task in tasks] == ["cheetah-run", "walker-walk"]


@pytest.mark.parametrize("name", ["gym:Pendulum-v1", "my_module:MyEnv-v0", "mine"])
@pytest.mark.parametrize("text", ["{}", "{},walker-walk", "walker-walk, {}"])
def test_gymnasium_environments_are_refused(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and without making the environment: `my_module` does not exist."""
    (tmp_path / "tasks.toml").write_text('[mine]\nid = "Pendulum-v1"\n')
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tasks.toml"))
    with pytest.raises(UserError, match=f"task={name}: datasets and multi-task agents need"):
        get_task_set(text.format(name))
