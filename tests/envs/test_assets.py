"""Asset sets: identified by checksum, never substituted, fetched and built atomically."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets import AssetSet, find_assets, official
from tdmpc2.envs.assets.__main__ import main
from tdmpc2.envs.assets.asset_set import KINDS, fingerprint_of, read_set
from tdmpc2.envs.assets.faucets import write_standins
from tdmpc2.envs.assets.fetch import fetch
from tdmpc2.envs.assets.folders import package_folder
from tdmpc2.envs.assets.mesh import convex_hull

COMMAND = (sys.executable, "-m", "tdmpc2.envs.assets")
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
YCB = "mani_skill2_ycb"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty cache and an empty asset folder; return the asset folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def data() -> Path:
    """Models for tests: all YCB objects (rebuilt), and two stand-in faucets."""
    if not os.environ.get("MS2_ASSET_DIR"):
        pytest.skip("MS2_ASSET_DIR does not name a folder of models")
    return Path(os.environ["MS2_ASSET_DIR"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stand-ins in a cache in which two processes built them at the same time."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    arguments = [*COMMAND, "build", "standin"]
    both = [subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    folder = cache / "tdmpc2-repro" / "maniskill2-standin"
    assert sorted(os.listdir(folder)) == [YCB, "partnet_mobility"]  # no temporary folders
    return folder


def write_ycb(folder: Path, *models: str) -> Path:
    """Write a small set in the layout of YCB; return its folder."""
    root = folder / YCB
    for model in models:
        (root / "models" / model).mkdir(parents=True)
        (root / "models" / model / "collision.obj").write_text(TRIANGLE)
    (root / "info_pick_v0.json").write_text(json.dumps({model: {} for model in models}))
    return folder


def write_archive(path: Path, *, extra: str | None = None) -> Path:
    """Write a zip file in the official layout, with other files and optionally an unsafe name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{YCB}/info_pick_v0.json", '{"011_banana": {}}')
        archive.writestr(f"{YCB}/models/011_banana/collision.obj", TRIANGLE)
        archive.writestr("__MACOSX/clutter", "")
        if extra is not None:
            archive.writestr(extra, "out")
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an archive whose checksum is the published one."""
    path = write_archive(tmp_path / "ycb.zip")
    monkeypatch.setattr(official, "YCB_SHA256", sha256_of(path))
    return path


def change(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def refusal(kind: str, wanted: str = "official") -> str:
    with pytest.raises(UserError) as caught:
        find_assets(kind, wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "source"), [("ycb", "rebuilt"), ("faucet", "standin")])
def test_the_models_for_tests_are_known(data: Path, kind: str, source: str) -> None:
    assert read_set(kind, data).source == source


@pytest.mark.parametrize(
    ("kind", "mesh"),
    [
        ("ycb", f"{YCB}/models/011_banana/collision.obj"),
        ("faucet", "partnet_mobility/dataset/9002/convex/switch.obj"),
    ],
)
def test_one_changed_byte_of_a_mesh_makes_a_set_unknown(
    data: Path, home: Path, kind: str, mesh: str
) -> None:
    shutil.copytree(data, home)
    before = read_set(kind, home)
    change(home / mesh)
    after = read_set(kind, home)
    assert after.source == "unknown"
    assert after.fingerprint != before.fingerprint
    assert after.label == f"unknown-{after.fingerprint[:8]}"
    assert before.label == before.source
    assert find_assets(kind, "unknown") == after


def test_the_fingerprint_covers_what_physics_reads_and_nothing_else(home: Path) -> None:
    folder = write_ycb(home, "011_banana")
    first = fingerprint_of("ycb", folder)
    (folder / YCB / "models" / "011_banana" / "textured.obj").write_text("looks")
    assert fingerprint_of("ycb", folder) == first
    (folder / YCB / "info_pick_v0.json").write_text('{"011_banana": {"density": 1}}')
    assert fingerprint_of("ycb", folder) != first


def test_arguments_for_the_environment(tmp_path: Path) -> None:
    root = tmp_path / "{odd}" / "partnet_mobility"
    (root / "meta").mkdir(parents=True)
    faucets = AssetSet("faucet", "unknown", root.parent, "0" * 64)
    assert set(faucets.kwargs) == {"asset_root"}
    assert faucets.kwargs["asset_root"].format() == str(root / "dataset")
    (root / "meta" / "info_faucet_standin.json").write_text('{"9001": {}}')
    assert faucets.kwargs["model_json"].format() == str(root / "meta" / "info_faucet_standin.json")
    assert faucets.models == ("9001",)
    objects = AssetSet("ycb", "unknown", tmp_path, "0" * 64)
    assert objects.kwargs == {"asset_root": str(tmp_path / YCB), "model_json": "info_pick_v0.json"}


def test_nothing_there_and_misspelt_arguments(home: Path) -> None:
    text = refusal("ycb")
    assert f"there are none in {home}" in text
    assert "`python -m tdmpc2.envs.assets fetch ycb`" in text
    assert "assets=standin" in text
    assert "fetch faucet` and assets=official,unknown" in refusal("faucet")
    assert "fetch ycb` for the official ones, or" in refusal("ycb", "official,unknown")
    assert "fetch faucet`, or assets=standin" in refusal("faucet", "official,unknown")
    assert "did you mean 'standin'" in refusal("ycb", "standins")
    assert "did you mean 'faucet'" in refusal("faucets")


def test_another_source_than_wanted_is_refused(data: Path, home: Path) -> None:
    shutil.copytree(data, home)
    text = refusal("ycb")
    assert f"the models in {home / YCB} are rebuilt" in text
    assert "assets=rebuilt to use those" in text
    assert "fetch ycb` in another MS2_ASSET_DIR" in text
    assert find_assets("ycb", "rebuilt").folder == home
    assert "assets=standin to use those" in refusal("faucet")
    assert "MS2_ASSET_DIR=<the folder of a rebuilt set>" in refusal("faucet", "rebuilt")


def test_the_default_folder_serves_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MS2_ASSET_DIR")
    folder = write_ycb(tmp_path / "cache" / "tdmpc2-repro" / "maniskill2", "011_banana")
    assert find_assets("ycb", "unknown").folder == folder


def test_an_incomplete_set_is_refused(home: Path) -> None:
    write_ycb(home, "011_banana", "013_apple")
    (home / YCB / "models" / "013_apple" / "collision.obj").unlink()
    assert f"{YCB}/models/013_apple/collision.obj is missing" in refusal("ycb", "unknown")
    (home / YCB / "info_pick_v0.json").unlink()
    assert "info_pick_v0.json: missing" in refusal("ycb", "unknown")


def test_the_faucets_are_those_that_maniskill2_lists() -> None:
    listed = "assets/partnet_mobility/meta/info_faucet_train.json"
    names = json.loads((package_folder("mani_skill2") / listed).read_text())
    assert tuple(sorted(names)) == official.FAUCETS


def test_some_of_the_benchmarks_faucets_are_not_all(home: Path) -> None:
    (home / "partnet_mobility" / "dataset" / "5001").mkdir(parents=True)
    message = refusal("faucet", "unknown")
    assert "partnet_mobility/dataset/5000/mobility_cvx.urdf is missing" in message


@pytest.mark.parametrize("kind", KINDS)
def test_standins_are_the_known_ones_and_found(
    built: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The known fingerprints equal those of the stand-ins built with the pinned packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built.parents[1]))
    found = find_assets(kind, "standin")
    assert (found.source, found.folder) == ("standin", built)
    assert len(found.models) == {"ycb": 10, "faucet": 2}[kind]
    assert all(Path(path).exists() for path in found.kwargs.values() if os.path.isabs(path))


def test_faucets_are_built_alike_to_the_byte(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_standins(folder)
        contents.append({p.relative_to(folder): p.read_bytes() for p in files_below(folder)})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 12


def test_standins_come_from_the_cache_where_the_folder_holds_others(home: Path) -> None:
    write_ycb(home, "011_banana")
    found = find_assets("faucet", "standin")
    assert found.folder != home
    shutil.copytree(found.folder / "partnet_mobility", home / "partnet_mobility")
    assert find_assets("faucet", "standin").folder == home


def test_changed_standins_in_the_cache_are_refused(home: Path) -> None:
    found = find_assets("faucet", "standin")
    change(found.folder / "partnet_mobility" / "dataset" / "9001" / "convex" / "base.obj")
    assert "not the expected stand-ins" in refusal("faucet", "standin")


def test_ycb_standins_lie_in_the_tightest_box(built: Path) -> None:
    """In ManiSkill2's frame, no rotation about z gives a smaller box; its center is the origin."""
    info = json.loads((built / YCB / "info_pick_v0.json").read_text())
    for model, facts in info.items():
        lines = (built / YCB / "models" / model / "collision.obj").read_text().splitlines()
        points = np.array([line.split()[1:] for line in lines if line[0] == "v"], dtype=float)
        assert points.min(0) == pytest.approx(facts["bbox"]["min"])
        assert points.max(0) == pytest.approx(facts["bbox"]["max"])
        assert points.max(0) + points.min(0) == pytest.approx(np.zeros(3), abs=2e-6)
        for turn in np.linspace(-np.pi / 4, np.pi / 4, 101):
            x = points[:, 0] * np.cos(turn) - points[:, 1] * np.sin(turn)
            y = points[:, 0] * np.sin(turn) + points[:, 1] * np.cos(turn)
            smaller = np.ptp(x) * np.ptp(y) / np.prod(np.ptp(points[:, :2], axis=0))
            assert smaller > 0.9999, (model, turn)


def test_convex_hull_of_a_cube() -> None:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    vertices, triangles = convex_hull(np.concatenate([corners, [[0.5, 0.5, 0.5]]]))
    assert {tuple(vertex) for vertex in vertices} == {tuple(corner) for corner in corners}
    assert len(triangles) == 12
    a, b, c = np.swapaxes(vertices[triangles], 0, 1)
    # Outward triangles add to the signed volume, inward triangles would subtract.
    assert np.sum(a * np.cross(b, c)) / 6 == pytest.approx(1.0)


def test_the_stated_archive_makes_an_official_set(
    home: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "ycb", f"archive={archive}"]) == 0
    found = find_assets("ycb")
    assert (found.source, found.label, found.folder) == ("official", "official", home)
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    assert not any("clutter" in str(path) for path in files_below(home))
    with pytest.raises(UserError, match="already exists"):
        fetch("ycb", archive)


def test_a_later_edit_makes_an_official_set_unknown(home: Path, archive: Path) -> None:
    fetch("ycb", archive)
    change(home / YCB / "models" / "011_banana" / "collision.obj")
    assert f"are unknown-{fingerprint_of('ycb', home)[:8]}" in refusal("ycb")


def test_a_set_of_another_archive_is_not_official(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch("ycb", archive)
    monkeypatch.setattr(official, "YCB_SHA256", "0" * 64)
    assert "are unknown-" in refusal("ycb")


def test_an_archive_with_one_changed_byte_is_refused(home: Path, archive: Path) -> None:
    change(archive)
    with pytest.raises(UserError, match=r"not the official .*nothing was unpacked"):
        fetch("ycb", archive)
    assert not home.exists()


@pytest.mark.parametrize("name", ["../out", f"{YCB}/../../out", "/out", "..\\out"])
def test_members_that_leave_their_folder_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_archive(home.parent / "bad.zip", extra=name)
    monkeypatch.setattr(official, "YCB_SHA256", sha256_of(path))
    with pytest.raises(UserError, match="would write outside its folder"):
        fetch("ycb", path)
    assert files_below(home.parent) == [path]


def test_faucets_have_no_stated_checksum_and_stay_unknown(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where ManiSkill2 is installed for another Python."""
    monkeypatch.setitem(sys.modules, "mani_skill2", None)
    zips = tmp_path / "zips"
    zips.mkdir()
    with pytest.raises(UserError, match=r"5000\.zip: no such file"):
        fetch("faucet", zips)
    assert not home.exists()
    urdf = (
        '<robot><link><collision><geometry><mesh filename="c.obj"/></geometry></collision></link>'
    )
    for model in AssetSet("faucet", "unknown", home, "").models:
        with zipfile.ZipFile(zips / f"{model}.zip", "w") as archive:
            archive.writestr(f"{model}/mobility_cvx.urdf", urdf + "</robot>")
            archive.writestr(f"{model}/c.obj", TRIANGLE)
    assert main(["fetch", "faucet", f"archive={zips}"]) == 0
    assert "use them with assets=unknown" in capsys.readouterr().out
    found = find_assets("faucet", "unknown")
    assert len(found.models) == 60
    assert set(found.kwargs) == {"asset_root"}
    assert main(["list"]) == 0
    assert f"{found.label}      60  {found.fingerprint[:12]}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_no_network_is_one_line_and_leaves_nothing(home: Path, kind: str) -> None:
    with socket.socket() as closed:
        closed.bind(("localhost", 0))  # bound, but not listening
        proxy = f"localhost:{closed.getsockname()[1]}"
        environment = {**os.environ, "https_proxy": proxy, "no_proxy": ""}
        done = subprocess.run(
            [*COMMAND, "fetch", kind], env=environment, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: cannot download https://")
    assert "archive=" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fetsh"], "did you mean 'fetch'"),
        (["fetch"], "valid: faucet, ycb"),
        (["fetch", "ycbs"], "did you mean 'ycb'"),
        (["fetch", "ycb", "archiv=x"], "did you mean 'archive'"),
        (["fetch", "ycb", "archive=/nowhere.zip"], "/nowhere.zip: no such file"),
        (["build", "rebuilt"], "build 'rebuilt': unknown set (valid: standin)"),
        (["list", "ycb"], "list takes no argument, but 'ycb' is given"),
    ],
)
def test_bad_arguments_are_refused(home: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(UserError) as caught:
        main(arguments)
    assert text in str(caught.value)
    assert not home.exists()


def test_list_names_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert f"no asset sets in {home}" in capsys.readouterr().out
    write_ycb(home, "011_banana")
    (home / YCB / "models" / "011_banana" / "collision.obj").unlink()
    main(["list"])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("ycb     incomplete")
    assert "011_banana/collision.obj" in line


def test_no_simulator_is_imported(home: Path) -> None:
    program = (
        "import sys; from tdmpc2.envs.assets import find_assets; find_assets('faucet', 'standin');"
        "heavy = {'mujoco', 'dm_control', 'metaworld', 'myosuite', 'mani_skill2', 'sapien'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
