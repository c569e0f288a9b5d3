"""Task embeddings from run directories and checkpoints, ours and official ones."""

from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
import torch

from analysis import make_figures
from analysis.figures.embedding_plots import embedding_figure
from analysis.stats.task_embeddings import Embedding, read_embedding
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.tasks import SUITES
from tdmpc2.world_model import WorldModel
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.pictures import FIGURES, assert_nothing_overlaps_or_is_clipped
from tests.helpers import env_spec

SMOKE = project_root() / "paper_figures" / "recorded" / "smoke"
MT30 = [task.name for task in SUITES["mt30"]]


def official(path: Path, values: torch.Tensor) -> Path:
    torch.save({"model": {"_task_emb.weight": values, "_pi.0.weight": torch.zeros(2, 2)}}, path)
    return path


def in_pairs() -> torch.Tensor:
    """Return thirty embeddings; each even task has the direction of the odd one after it."""
    directions = torch.randn(15, 64, generator=torch.Generator().manual_seed(0))
    return torch.stack([directions, 2 * directions], dim=1).reshape(30, 64)


def test_neighbors_and_norms_by_hand(tmp_path):
    values = in_pairs()
    drawing = embedding_figure([official(tmp_path / "a.pt", values)])
    table = drawing.numbers.set_index("task")
    assert list(table.index) == MT30
    for even, odd in zip(MT30[::2], MT30[1::2], strict=True):
        assert table.loc[even, "cosine"].startswith(f"{odd} 0.00, ")
        assert table.loc[odd, "cosine"].startswith(f"{even} 0.00, ")
        assert table.loc[odd, "cosine"].count(",") == 2
    np.testing.assert_allclose(table["norm"], values.norm(dim=1), rtol=1e-6)
    # Similar embeddings are close to each other.
    places = table[["x", "y"]].to_numpy()
    gaps = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(30)
    assert (gaps.argmin(axis=1) == np.arange(30) ^ 1).all()


def test_our_own_checkpoints_are_read(tmp_path):
    config = TDMPC2Config.make(model_size=1, multitask=True)
    env = env_spec(action_dims=(2,) * 80, episode_lengths=(500,) * 80)
    torch.save({"agent": {"model": WorldModel(config, env).state_dict()}}, tmp_path / "state.pt")
    embedding = read_embedding(tmp_path / "state.pt")
    assert embedding.tasks == tuple(task.name for task in SUITES["mt80"])
    assert embedding.values.shape == (80, 96)


def test_two_checkpoints_side_by_side(tmp_path):
    files = [official(tmp_path / f"{name}.pt", in_pairs()) for name in ("norm", "no-norm")]
    drawing = embedding_figure(files)
    titles = [ax.get_title(loc="left").splitlines()[0] for ax in drawing.pages[0].axes]
    assert titles == ["norm", "no-norm"]


def with_checkpoint(run: Path, values: torch.Tensor, num_updates: int = 100) -> Path:
    folder = run / "checkpoints" / f"{num_updates:012d}"
    folder.mkdir(parents=True)
    torch.save({"agent": {"model": {"task_embedding": values}}}, folder / "state.pt")
    return run


def test_neighbors_by_hand():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [10.0, 0.0], [0.8, 0.6]])
    embedding = Embedding("x", ("a", "b", "c", "d"), values)
    assert embedding.norms.tolist() == [1, 1, 10, 1]
    cosine, euclidean = (embedding.neighbors(metric, 3) for metric in ("cosine", "euclidean"))
    assert cosine[0] == [("c", 0.0), ("d", pytest.approx(0.2)), ("b", 1.0)]
    assert euclidean[0] == [
        *(("d", pytest.approx(np.sqrt(0.4))), ("b", pytest.approx(np.sqrt(2))), ("c", 9.0)),
    ]
    assert [len(own) for own in embedding.neighbors("cosine", 9)] == [3] * 4


def test_a_run_is_read_at_its_newest_checkpoint_with_its_own_tasks(tmp_path):
    tasks = ("walker-walk", "walker-run", "mw-reach")
    run = write_multitask_run(tmp_path, {0: (1.0, 2.0, 3.0)}, tasks=tasks, seed=4, variant="v")
    with_checkpoint(run, torch.zeros(3, 8), 900)
    with_checkpoint(run, torch.eye(3, 8), 1000)
    embedding = read_embedding(run)
    assert embedding.label == f"v, {'+'.join(tasks)}, seed 4"
    assert embedding.tasks == tasks
    assert embedding.values.tolist() == np.eye(3, 8).tolist()
    older = read_embedding(run / "checkpoints" / f"{900:012d}" / "state.pt")
    assert (older.tasks, older.values.sum()) == (tasks, 0)


def test_two_runs_side_by_side_are_named_by_their_settings(tmp_path):
    runs = []
    for variant, scale in (("default", 1.0), ("no-task-embedding-norm", 3.0)):
        run = write_multitask_run(
            tmp_path, {0: [1.0] * 30}, tasks=MT30, task_set="mt30", variant=variant
        )
        runs.append(with_checkpoint(run, scale * in_pairs()))
    drawing = embedding_figure(runs)
    (page,) = drawing.pages
    assert [ax.get_title(loc="left").splitlines()[0] for ax in page.axes] == [
        *("default, mt30, seed 1", "no-task-embedding-norm, mt30, seed 1"),
    ]
    one, other = (own for _, own in drawing.numbers.groupby("agent", sort=False))
    np.testing.assert_allclose(3 * one["norm"].to_numpy(), other["norm"].to_numpy())
    # A common scale does not change the angles, and the generator is seeded.
    assert one["cosine"].tolist() == other["cosine"].tolist()
    again = embedding_figure(runs).numbers
    pd.testing.assert_frame_equal(again, drawing.numbers)
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        assert_nothing_overlaps_or_is_clipped(embedding_figure(runs).pages[0])


def test_two_tasks_are_enough(tmp_path):
    run = write_multitask_run(tmp_path, {0: (1.0, 2.0)})
    table = embedding_figure([with_checkpoint(run, torch.eye(2, 8))]).table
    assert table["euclidean"].tolist() == ["mw-reach 1.41", "walker-walk 1.41"]


def test_runs_that_cannot_be_read(tmp_path):
    run = write_multitask_run(tmp_path, {0: (1.0, 2.0)})
    with pytest.raises(UserError, match=r"contains no checkpoint \(checkpoints/<n>/state.pt\)"):
        read_embedding(run)
    with_checkpoint(run, torch.zeros(7, 4))
    with pytest.raises(UserError, match="lists 2 tasks, but the checkpoint embeds 7"):
        read_embedding(run)
    (run / "spec.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"does not contain the tasks of the run .KeyError: 'tasks'"
    ):
        read_embedding(run)
    alone = write_multitask_run(tmp_path, {0: (1.0,)}, tasks=("walker-walk",))
    with pytest.raises(UserError, match="embeds a single task"):
        read_embedding(with_checkpoint(alone, torch.zeros(1, 4)))


def test_a_missing_path_is_named_before_anything_is_drawn(tmp_path):
    arguments = [f"runs={SMOKE}", f"out={tmp_path / 'out'}", "embeddings=here,there"]
    with pytest.raises(UserError, match=r"embeddings=.*here does not exist"):
        make_figures.main(arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"x": torch.zeros(3)}}, "not a multi-task agent"),
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
    file = official(tmp_path / "a.pt", in_pairs())
    arguments = [
        f"runs={SMOKE}",
        f"out={tmp_path / 'out'}",
        "only=embeddings",
        f"embeddings={file}",
    ]
    assert make_figures.main([*arguments, "reps=100"]) == 0
    written = {path.name for path in (tmp_path / "out").glob("embeddings*")}
    assert written == {f"embeddings.{kind}" for kind in ("pdf", "png", "csv", "md", "tex")}
    assert len(pd.read_csv(tmp_path / "out" / "embeddings.csv")) == 30
