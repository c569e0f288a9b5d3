"""Task embeddings of checkpoints, ours and official ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import make_figures
from analysis.embedding_plots import embedding_figure, read_embedding
from tdmpc2.common.errors import UserError
from tdmpc2.common.paths import project_root
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.tasks import SUITES
from tdmpc2.world_model import WorldModel
from tests.helpers import env_spec

MT30 = [task.name for task in SUITES["mt30"]]


def official(path: Path, values: torch.Tensor) -> Path:
    torch.save({"model": {"_task_emb.weight": values, "_pi.0.weight": torch.zeros(2, 2)}}, path)
    return path


def in_pairs() -> torch.Tensor:
    """Thirty embeddings; each even task has the direction of the odd one after it."""
    directions = torch.randn(15, 64, generator=torch.Generator().manual_seed(0))
    return torch.stack([directions, 2 * directions], dim=1).reshape(30, 64)


def test_neighbours_and_norms_by_hand(tmp_path):
    values = in_pairs()
    drawing = embedding_figure([official(tmp_path / "a.pt", values)])
    table = drawing.numbers.set_index("task")
    assert list(table.index) == MT30
    for even, odd in zip(MT30[::2], MT30[1::2], strict=True):
        assert table.loc[even, "neighbours"].split()[0] == odd
        assert table.loc[odd, "neighbours"].split()[0] == even
    np.testing.assert_allclose(table["norm"], values.norm(dim=1), rtol=1e-6)
    # What is alike lies close together.
    places = table[["x", "y"]].to_numpy()
    gaps = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(30)
    assert (gaps.argmin(axis=1) == np.arange(30) ^ 1).all()


def test_our_own_checkpoints_are_read(tmp_path):
    config = TDMPC2Config.make(model_size=1, multitask=True)
    env = env_spec(action_dims=(2,) * 80, episode_lengths=(500,) * 80)
    torch.save({"agent": {"model": WorldModel(config, env).state_dict()}}, tmp_path / "state.pt")
    tasks, values = read_embedding(tmp_path / "state.pt")
    assert tasks == tuple(task.name for task in SUITES["mt80"])
    assert values.shape == (80, 96)


def test_two_checkpoints_side_by_side(tmp_path):
    files = [official(tmp_path / f"{name}.pt", in_pairs()) for name in ("norm", "no-norm")]
    drawing = embedding_figure(files)
    titles = [ax.get_title(loc="left").split(":")[0] for ax in drawing.pages[0].axes]
    assert titles == ["norm", "no-norm"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"x": torch.zeros(3)}}, "no multi-task agent"),
        ({"task_embedding": torch.zeros(7, 4)}, "embeds 7 tasks"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(UserError, match=message):
        read_embedding(tmp_path / "state.pt")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "state.pt").write_text("not at all")
    for name in ("state.pt", "none.pt"):
        with pytest.raises(UserError, match="cannot be read as a checkpoint"):
            read_embedding(tmp_path / name)


def test_the_command_draws_them(tmp_path):
    smoke = project_root() / "paper_figures" / "recorded" / "smoke"
    file = official(tmp_path / "a.pt", in_pairs())
    words = [f"runs={smoke}", f"out={tmp_path / 'out'}", "only=embeddings", f"embeddings={file}"]
    assert make_figures.main([*words, "reps=100"]) == 0
    written = {path.name for path in (tmp_path / "out").glob("embeddings*")}
    assert written == {f"embeddings.{kind}" for kind in ("pdf", "png", "csv", "md", "tex")}
    assert len(pd.read_csv(tmp_path / "out" / "embeddings.csv")) == 30
