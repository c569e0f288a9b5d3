"""Artifact bundles: what they contain, and that every change of a byte is found."""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc2 import train
from tdmpc2.bundle.__main__ import main
from tdmpc2.bundle.checks import RECORDS, SUMS, damages, files_of, list_of_sums
from tdmpc2.bundle.contents import _copy_records, create
from tdmpc2.bundle.texts import TEXTS, command_of
from tdmpc2.checkpoints.model_file import save_model
from tdmpc2.common.system.errors import UserError
from tdmpc2.finetune import parse
from tests.analysis.run_files import write_table
from tests.test_architecture import ROOT
from tests.test_finetune import make_model

RECORDED = ROOT / "paper_figures" / "recorded"
SPECS = sorted(RECORDED.rglob("spec.json"))
FINETUNED = ("task=walker-walk", "precision=fp32", "seed_with=random")
RUNS = [*SPECS[::7], next(path for path in SPECS if "finetuned" in path.parts)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one recorded run, made where there are released curves."""
    folder = tmp_path_factory.mktemp("bundle") / "made"
    write_table(
        folder.parent / "paper" / "sac" / "walker-walk.csv", "step,reward,seed", ["0,1.0,1"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDMPC2_PUBLISHED", str(folder.parent / "paper"))
        assert main([f"out={folder}", f"runs={RECORDED / 'walker-walk-5m'}"]) == 0
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, which a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_bundle_is_complete_and_verifies(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = files_of(bundle)
    for name in (*TEXTS, "CLAIMS.md", "croissant.json"):
        assert name in names
    assert "| `dmcontrol-tdmpc2` |" in (bundle / "CLAIMS.md").read_text()
    assert any(name.endswith("eval.csv") for name in names)
    assert "figures/walker-walk-5m/learning_curves.csv" in names
    assert "environment/py311.lock" in names
    assert "$" not in (bundle / "README.md").read_text()
    assert (
        "tdmpc2 train method=tdmpc2 task=walker-walk seed=1" in (bundle / "COMMANDS.md").read_text()
    )
    capsys.readouterr()
    assert main(["verify", str(bundle)]) == 0
    assert "numbers of all figures: no differences" in capsys.readouterr().out


def test_every_changed_byte_is_found(copy: Path) -> None:
    generator = random.Random(0)
    names = [*files_of(copy), SUMS]
    for _ in range(20):
        path = copy / generator.choice(names)
        before = path.read_bytes()
        place = generator.randrange(len(before))
        changed = bytes([(before[place] + generator.randrange(1, 256)) % 256])
        path.write_bytes(before[:place] + changed + before[place + 1 :])
        assert list(damages(copy)), (path.name, place)
        path.write_bytes(before)
    assert not list(damages(copy))


def test_missing_and_added_files_are_found(copy: Path) -> None:
    (copy / "COMMANDS.md").unlink()
    (copy / "more.txt").write_text("")
    assert list(damages(copy)) == ["COMMANDS.md: missing", f"more.txt: not in {SUMS}"]


@pytest.mark.slow
def test_numbers_that_do_not_follow_from_the_records_are_found(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if somebody has made new checksums."""
    (table,) = (copy / RECORDS).rglob("eval.csv")
    lines = table.read_text().splitlines()
    cells = lines[-1].split(",")
    place = lines[0].split(",").index("episode_return")
    cells[place] = str(float(cells[place]) - 1)
    table.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    (copy / SUMS).write_text(list_of_sums(copy))
    assert main(["verify", str(copy)]) == 1
    assert "learning_curves.csv: numbers differ" in capsys.readouterr().out


def test_the_description_for_machines_lists_all_files(bundle: Path) -> None:
    described = json.loads((bundle / "croissant.json").read_text())
    names = [one["contentUrl"] for one in described["distribution"]]
    assert sorted([*names, "croissant.json"]) == files_of(bundle)
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"


if importlib.util.find_spec(
    "mlcroissant"
):  # pip install mlcroissant; no dependency of this project

    def test_the_description_for_machines_is_valid(bundle: Path) -> None:
        import mlcroissant

        issues = mlcroissant.Dataset(jsonld=bundle / "croissant.json").metadata.issues
        assert not issues.errors
        assert not issues.warnings


@pytest.mark.slow
def test_a_bundle_of_all_recorded_runs_verifies_in_a_minute(tmp_path: Path) -> None:
    """In time of one processor, which other programs do not prolong."""
    folder = tmp_path / "made"
    assert main([f"out={folder}"]) == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert main(["verify", str(folder)]) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    assert spent < 60


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.parent.name)
def test_the_command_of_a_run_is_valid(path: Path) -> None:
    spec = json.loads(path.read_text(encoding="utf-8"))
    command = command_of(spec)
    wanted = "finetune" if "start" in spec else "train"
    assert command.split()[:2] == ["tdmpc2", wanted]
    assert all("=" in part for part in command.split()[2:])
    if wanted == "train" and "dataset" not in spec:  # which must exist
        (found,), _ = train.parse(command.split()[2:])
        assert found.identity == spec["identity"]
        return
    line = [sys.executable, "-m", "tdmpc2", *command.split()[1:], "no_such_option=1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert "unknown key 'no_such_option'" in done.stderr  # and no other


def test_the_commands_name_all_that_a_run_depends_on() -> None:
    spec = {"method": "sac", "task": "pick-ycb", "seed": 1, "budget": 5, "assets": "standin"}
    command = command_of({**spec, "protocol": {"stop_at_success": True}, "overrides": {"lr": 1}})
    assert command == (
        "tdmpc2 train method=sac task=pick-ycb seed=1 stop_at_success=true env_steps=5 "
        "assets=standin lr=1"
    )
    task = 'own:Env-v0?{"size": 3}'
    assert f"task={task}" in shlex.split(command_of({**spec, "task": task}))


def test_the_command_of_a_finetuned_run_leaves_the_architecture_to_the_model(
    tmp_path: Path,
) -> None:
    save_model(tmp_path / "model.pt", make_model(precision="tf32"))
    (wanted,) = parse([f"checkpoint={tmp_path / 'model.pt'}", *FINETUNED])[1][0]
    command = command_of({**wanted.to_json(), "protocol": dict(wanted.task_switches)})
    arguments = shlex.split(command.replace("CHECKPOINT", str(tmp_path / "model.pt")))[2:]
    (again,) = parse(arguments)[1][0]
    assert (again.identity, again.budget) == (wanted.identity, wanted.budget)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "out: missing|out="),
        (["verify"], "verify none: name one folder"),
        (["verify", "/nowhere"], "no such folder"),
        (["out=/tmp"], "exists"),
        (["out=x", "runs=/nowhere"], "runs=/nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_a_bundle_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its half-written folder would keep the space that may be lacking."""
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"empty: no run with a spec\.json"):
        create([RECORDED / "smoke", empty], out / "bundle")
    assert not out.exists()


def test_linked_runs_belong_to_a_bundle_and_damaged_ones_are_named(tmp_path: Path) -> None:
    """Run directories may be links to another disk."""
    runs = tmp_path / "runs"
    for spec in (RECORDED / "smoke").glob("*/*/*/*/spec.json"):
        place = runs / spec.parent.relative_to(RECORDED / "smoke")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(spec.parent)
    number = len(list((RECORDED / "smoke").rglob("spec.json")))
    assert len(list(_copy_records(runs, tmp_path / "copy"))) == number
    assert len(list((tmp_path / "copy").rglob("spec.json"))) == number
    place.unlink()
    place.mkdir()
    (place / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"seed.*/spec\.json: damaged"):
        create([runs], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(UserError, match=r"no run with a spec\.json in METHOD/VARIANT/TASK"):
        create([tmp_path], tmp_path / "bundle")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the file {SUMS} is missing"):
        main(["verify", str(tmp_path)])
