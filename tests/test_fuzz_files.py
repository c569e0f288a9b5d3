"""Damaged files of every format: one line, or a result that names what was left out."""

from __future__ import annotations

import json
import math
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.own_specs import read_specs
from analysis.records.load import load, load_curves
from sweeps.tracking.run_states import Observer
from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.archives import unpack
from tdmpc2.common.system.errors import UserError, one_line
from tdmpc2.data.dataset import Dataset
from tdmpc2.runners.specs import make_spec
from tests.analysis.run_files import write_run
from tests.checkpoints.models import model, official_file
from tests.damages import CONTENTS
from tests.datasets.helpers import episodes, fake_run, make_dataset
from tests.sweeps.directories import plan, write_status, write_sweep
from tests.test_fuzz_commands import examples

SPECS = '[small]\nsettings = { latent_dim = 64 }\nexpected = "lower"\ntasks = ["walker-run"]\n'
CURVE = "step,reward,seed\n" + "".join(f"{step},{step / 10},1\n" for step in range(0, 900, 100))
Case = tuple[list[str], Callable[[Path], Any]]
"""Patterns of the files to damage below a folder, and what reads them."""


def runs(folder: Path) -> Case:
    fake_run(folder, "walker-walk", episodes("walker-walk", 1))
    (directory,) = folder.glob("*/*/*/*")

    def resume(_: Path) -> None:
        store = CheckpointStore(directory)
        _, manifest = store.load() or (None, {"shards": []})
        for _ in store.episodes(manifest):
            pass

    return ["**/manifest.json", "**/state.pt", "**/episodes-*.npz"], resume


def records(folder: Path) -> Case:
    write_run(folder, [(0, 10.0), (100_000, 500.0)])
    return ["**/spec.json", "**/status.json", "**/eval.csv"], load


def sweeps(folder: Path) -> Case:
    planned = plan(folder, 2, env_steps=100)
    write_status(planned[0], "COMPLETED", 100)
    sweep = write_sweep(folder, planned)

    def look(folder: Path) -> None:
        observer = Observer(folder)
        for run in planned:
            observer.look(str(run.directory.relative_to(sweep.runs)), 100)

    return ["**/submission.json", "**/sweep.json", "**/status.json"], look


def process_files(folder: Path) -> Case:
    spec_file.write(folder / "a.json", [make_spec("tdmpc2", "walker-walk", 1)], RunOptions())
    return ["a.json"], lambda folder: spec_file.read(folder / "a.json")


def ablation_specs(folder: Path) -> Case:
    (folder / "a.toml").write_text(SPECS)
    return ["a.toml"], lambda folder: read_specs(folder / "a.toml")


def curves(folder: Path) -> Case:
    (folder / "tdmpc2").mkdir()
    (folder / "tdmpc2" / "walker-walk.csv").write_text(CURVE)
    return ["**/*.csv"], lambda folder: load_curves(folder, "other")


def datasets(folder: Path) -> Case:
    make_dataset(folder / "d", {"walker-walk": episodes("walker-walk", 1)})

    def verify(folder: Path) -> None:
        for _ in Dataset.open(folder / "d").verify():
            pass

    return ["d/**/*"], verify


def models(folder: Path) -> Case:
    save_model(folder / "own.safetensors", model())
    official_file(folder / "official.pt", model())

    def read(folder: Path) -> None:
        for name in ("own.safetensors", "official.pt"):
            load_model(folder / name, tasks="walker-walk" if name == "official.pt" else None)

    return ["own.safetensors", "official.pt"], read


def archives(folder: Path) -> Case:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/a.csv", CURVE)
        archive.writestr("top/b/c.txt", "text" * 100)
    return ["a.zip"], lambda folder: unpack(folder / "a.zip", "top", folder / "out")


CASES = (
    *(runs, records, sweeps, process_files, ablation_specs, curves, datasets, models),
    archives,
)


VALUES = (
    *(None, True, -1, 1.5, 10**30, math.nan, math.inf, "", "x", "a\nb", "../..", "\ud800"),
    *("x" * 5000, [], [1], {}, {"a": 1}, [[]]),
)


def value_replaced(content: bytes, draw: st.DrawFn) -> bytes:
    """Return a JSON file with one value replaced or one key lost."""
    whole = json.loads(content)
    outer, key, inner = None, None, whole
    while inner and isinstance(inner, dict | list) and (outer is None or draw(st.booleans())):
        outer = inner
        key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = inner[key]
    if outer is None or draw(st.integers(0, len(VALUES))) == 0:
        return b"{}" if outer is None else json.dumps(_without(whole, outer, key)).encode()
    outer[key] = draw(st.sampled_from(VALUES))
    return json.dumps(whole).encode()


def _without(whole: Any, outer: Any, key: Any) -> Any:
    del outer[key]
    return whole


def other_text(content: bytes, draw: st.DrawFn) -> bytes:
    """Return a text file as other programs save it, or with its numbers or lines changed."""
    how = draw(st.sampled_from(["BOM", "UTF-16", "CRLF", "CR", "zeros", "long", "deep", "twice"]))
    line = draw(st.sampled_from(content.split(b"\n")))
    changes = {
        "BOM": b"\xef\xbb\xbf" + content,
        "UTF-16": content.decode().encode("utf-16"),
        "CRLF": content.replace(b"\n", b"\r\n"),
        "CR": content.replace(b"\n", b"\r"),
        "zeros": content + b"\0" * 4096,
        "long": content.replace(b"1", b"1" * 5000, 1),
        "deep": content.rstrip()[:-1] + b', "deep": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "twice": content.replace(line, line + b"\n" + line, 1),
    }
    return changes[how]


def damaged(path: Path, content: bytes, draw: st.DrawFn) -> bytes:
    """Return a content with bytes changed, lost, added or repeated, or another content."""
    kinds = ["flip", "cut", "lose", "insert", "repeat", "replace", "token"]
    kinds += ["value"] * 3 * (path.suffix == ".json")
    kinds += ["text"] * (path.suffix in (".json", ".csv", ".toml"))
    how = draw(st.sampled_from(kinds))
    if how == "value":
        return value_replaced(content, draw)
    if how == "text":
        return other_text(content, draw)
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    length = draw(st.integers(1, 64))
    if how == "flip" and content:
        return content[:place] + bytes([content[place] ^ 1 << length % 8]) + content[place + 1 :]
    if how == "cut":
        return content[:place]
    if how == "lose":
        return content[:place] + content[place + length :]
    if how == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=64)) + content[place:]
    if how == "repeat":
        return content[:place] + content[max(place - length, 0) :]
    if how == "token":
        tokens = [b"null", b"-1", b"1e999", b"NaN", b'"x"', b"[]", b"{}", b",", b"\n", b"true"]
        return content[:place] + draw(st.sampled_from(tokens)) + content[place + length % 8 :]
    return draw(st.sampled_from(sorted(CONTENTS.values())))


def check(case: Callable[[Path], Case], number: int, folder: Path) -> None:
    """Damage one file after the other, and read the folder."""
    whole = folder / "whole"
    whole.mkdir()
    patterns, read = case(whole)
    read(whole)
    shutil.rmtree(whole / "out", ignore_errors=True)
    for path in whole.glob(".records-cache*"):
        path.unlink()
    files = sorted({p for pattern in patterns for p in whole.glob(pattern) if p.is_file()})
    contents = {path: path.read_bytes() for path in files}

    @examples(number)
    @given(st.data())
    def search(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(files))
        path.write_bytes(damaged(path, contents[path], data.draw))
        message = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(whole)
        except UserError as error:
            message = str(error)
        finally:
            path.write_bytes(contents[path])
            shutil.rmtree(whole / "out", ignore_errors=True)
        assert message == one_line(message)

    search()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_damaged_files(case: Callable[[Path], Case], tmp_path: Path) -> None:
    check(case, 12, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_many_damaged_files(case: Callable[[Path], Case], tmp_path: Path) -> None:
    check(case, 1000 // len(CASES) + 1, tmp_path)
