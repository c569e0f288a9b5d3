"""Imports point down, each third party has one home, and files stay small."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.runners.registry import METHODS, agent_class, config_class

ROOT = Path(__file__).parents[1]
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
INCLUDED = TOOLS["setuptools"]["packages"]["find"]["include"]
PACKAGES = tuple(pattern.strip("*") for pattern in INCLUDED)
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Beginnings of the names of files that import a simulator; MuJoCo serves several domains.
SIMULATORS = {
    package: (
        *(f"tdmpc2/envs/{domain}" for domain, row in ADAPTERS.items() if package in row.packages),
        *("tdmpc2/envs/physics", "tdmpc2/envs/mujoco_camera") * (package == "mujoco"),
    )
    for package in sorted({name for row in ADAPTERS.values() for name in row.packages})
}
MAX_LINES = 400
LAZY = re.compile(rf"((?:{'|'.join(PACKAGES)})[\w.]*):\w+")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> set[str]:
    """Full names of every module that a file imports, at its top or inside a function.

    `from a import b` counts as `a.b` where that is a file or folder of ours, else as `a`.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return found | set(dotted_strings(path))


def dotted_strings(path: Path) -> Iterator[str]:
    """Modules named in strings of the form `"package.module:Name"`, which are imported lazily."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = LAZY.fullmatch(node.value)
            if found:
                yield found[1]


def below(module: str, *roots: str) -> bool:
    """Whether a module is one of these or lies inside one of them."""
    return any(module == root or module.startswith(root + ".") for root in roots)


def forbidden(folder: str, ours: tuple[str, ...], allowed: tuple[str, ...]) -> list[str]:
    """Imports by the files of a folder of something in `ours` that is not in `allowed`."""
    return [
        f"{name(path)} imports {module}"
        for path in FILES
        if name(path).startswith(folder + "/")
        and (folder == STUDIES or not name(path).startswith(STUDIES + "/"))
        for module in sorted(imports(path))
        if below(module, *ours) and not below(module, *allowed)
    ]


COMMON = "tdmpc2.common"
UTILITIES = (f"{COMMON}.system", f"{COMMON}.numerics", f"{COMMON}.interfaces")
# Facts of tasks and simulators, which need no simulator.
TABLES = ("tdmpc2.envs.tasks", "tdmpc2.envs.physics", "tdmpc2.envs.adapters")
# The only part of `sweeps` that reads records and computes statistics.
STUDIES = "sweeps/studies"
STORAGE = (*UTILITIES, f"{COMMON}.replay", f"{COMMON}.run")


def test_types_of_every_package_are_checked() -> None:
    assert TOOLS["mypy"]["files"] == [*PACKAGES, "benchmarks"]
    assert not TOOLS["mypy"].keys() & {"exclude", "overrides"}


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("tdmpc2/common/system", UTILITIES),
        ("tdmpc2/common/numerics", UTILITIES),
        ("tdmpc2/common/replay", STORAGE),
        ("tdmpc2/common/run", STORAGE),
        ("tdmpc2/common/training", (*STORAGE, f"{COMMON}.training")),
        ("analysis/records", ("analysis.records", COMMON, *TABLES)),
        ("analysis/stats", ("analysis.records", "analysis.stats", COMMON, *TABLES)),
        ("sweeps/planning", ("sweeps.planning", "sweeps.tracking", "tdmpc2")),
        (STUDIES, ("sweeps", "tdmpc2", "analysis.records", "analysis.stats")),
        ("tdmpc2/common", (COMMON,)),
        ("tdmpc2/envs", ("tdmpc2.common", "tdmpc2.envs")),
        ("tdmpc2/data", ("tdmpc2.common", "tdmpc2.envs", "tdmpc2.data")),
        ("tdmpc2", ("tdmpc2",)),
        ("analysis", ("analysis", "tdmpc2.common", *TABLES)),
        ("baselines", ("baselines", "tdmpc2")),
        ("ablations", ("ablations", "tdmpc2", "sweeps", "analysis")),
        ("sweeps", ("sweeps", "tdmpc2", "analysis.records", "analysis.stats")),
        *(
            (f"sweeps/{part}", ("sweeps", "tdmpc2"))
            for part in ("execution", "planning", "tracking")
        ),
    ],
)
def test_imports_point_down(folder: str, allowed: tuple[str, ...]) -> None:
    if folder == "tdmpc2":  # but for the table of methods, which names modules to come
        targets = (target for row in METHODS.values() for target in (row.agent, row.config))
        allowed = (*allowed, *(target.partition(":")[0] for target in targets if target))
    assert forbidden(folder, (*PACKAGES, "tests"), allowed) == []


def test_the_table_of_methods_is_the_only_name_of_a_sibling() -> None:
    named = {
        name(path)
        for path in FILES
        for module in dotted_strings(path)
        if not below(module, "tdmpc2", name(path).partition("/")[0])
    }
    assert named <= {"tdmpc2/runners/registry.py"}


PURE = [
    *("layers", "ensemble", "world_model", "planner", "losses", "regression", "prior", "noise"),
    *("task_context", "elites", "joint_heads", "planning_interfaces"),
    *("baselines.networks", "baselines.tdmpc.model", "baselines.tdmpc.losses"),
    *(f"baselines.dreamerv3.{m}" for m in ("networks", "rssm", "behavior", "world_model")),
]
NUMERICS = ("gpu_forms", "optim", "precision", "ranking")
PURE = [module if "." in module else f"tdmpc2.{module}" for module in PURE]


@pytest.mark.parametrize("module", PURE)
def test_the_mathematics_is_pure(module: str) -> None:
    """Networks, losses and planning import no kernels, compilation, I/O or command line."""
    numerics = (f"{COMMON}.numerics.{part}" for part in NUMERICS)
    types = (f"{COMMON}.interfaces", f"{COMMON}.replay.types", f"{COMMON}.system.errors")
    configs = ("tdmpc2.config", "baselines.tdmpc.config", "baselines.dreamerv3.config")
    libraries = ("numpy", "torch", "collections", "contextlib", "copy", "itertools", "math")
    allowed = (*PURE, *numerics, *types, *configs, *libraries, "typing", "__future__")
    path = ROOT / (module.replace(".", "/") + ".py")
    found = imports(path)
    assert "compil" not in path.read_text()
    assert [one for one in sorted(found) if not below(one, *allowed)] == []
    assert not below("tdmpc2.kernels", *allowed)
    assert not below("tdmpc2.acceleration", *allowed)
    assert not below(f"{COMMON}.numerics.compile", *allowed)


@pytest.mark.parametrize("path", [p for p in FILES if p.name in ("agent.py", "sac.py")], ids=name)
def test_agents_only_declare_what_can_be_accelerated(path: Path) -> None:
    """They name the module of their native layers, but do not import it."""
    named = set(dotted_strings(path))
    places = ("tdmpc2.acceleration", "tdmpc2.kernels", "baselines.kernels")
    places += (f"{COMMON}.numerics.compile",)
    assert [m for m in imports(path) - named if below(m, *places)] == []


HOMES = {
    "sacred": ("tdmpc2/common/run/sacred_tracker.py",),
    "rliable": ("analysis/stats/aggregate.py",),
    "submitit": ("sweeps/",),
    "psutil": ("tdmpc2/common/system/processes.py", "tdmpc2/common/replay/ram_budget.py"),
    "imageio_ffmpeg": ("tdmpc2/common/run/video.py",),
    "requests": ("tdmpc2/common/system/download.py",),
    "urllib3": ("tdmpc2/common/system/download.py",),
    "safetensors": ("tdmpc2/checkpoints/reading.py",),
    "wandb": ("tdmpc2/common/run/loggers.py",),
    "mlflow": ("tdmpc2/common/run/loggers.py",),
    "matplotlib": ("analysis/",),
    "seaborn": ("analysis/figures/",),
    "PIL": ("tdmpc2/frames.py",),
    "tensorboard": ("analysis/records/tensorboard_sacred.py",),
    **SIMULATORS,
}


@pytest.mark.parametrize("package", HOMES)
def test_each_third_party_has_one_home(package: str) -> None:
    users = [name(p) for p in FILES if any(below(m, package) for m in imports(p))]
    assert [user for user in users if not user.startswith(HOMES[package])] == []


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import tdmpc2.agent\n"
        "from tdmpc2 import train\n"
        "def f():\n    from sacred.observers import X\n"
        'LAZY = "baselines.sac:SAC"\n'
    )
    assert imports(file) == {"tdmpc2.agent", "tdmpc2.train", "sacred.observers", "baselines.sac"}
    assert below("sacred.observers", "sacred")
    assert not below("sacredness", "sacred")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resolves(method: str) -> None:
    assert agent_class(method).config_class is config_class(method)
    assert agent_class(method).multitask == METHODS[method].multitask
    assert config_class(method).make()


def test_training_loads_no_simulator_and_no_tracker() -> None:
    """They are imported when the first environment and the first run are made."""
    code = "import sys, tdmpc2.runners.online, tdmpc2.envs.factory; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert "torch" in loaded
    late = {*SIMULATORS, "sacred", "matplotlib", "pandas", "rliable", "submitit"}
    assert loaded & late == set()


@pytest.mark.parametrize("folder", ["tdmpc2", "sweeps", "analysis", "ablations"])
def test_no_script_folder_hides_a_library(folder: str) -> None:
    """`python tdmpc2/train.py` puts its own folder first on the path of modules."""
    entries = (ROOT / folder).glob("[!_]*")
    ours = {path.stem for path in entries if path.suffix == ".py" or path.is_dir()}
    installed = set(importlib.metadata.packages_distributions()) - set(PACKAGES)
    assert "torch" in installed
    assert ours & (sys.stdlib_module_names | installed) == set()


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in (*FILES, *TESTS)}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def tracked_files() -> list[Path]:
    """What a clone would hold: everything but what git ignores."""
    line = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(line, capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive
        return [*FILES, *TESTS]
    return [ROOT / path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Neither absolute paths of one machine, nor package mirrors, ports or log-ins in addresses."""
    places = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "index-" + "url"]
    pattern = re.compile("|".join([*map(re.escape, places), r"https?://[^\s/]*[:@]"]))
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # arrays and figures
        found += [f"{name(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_nothing_adds_to_the_path_of_modules() -> None:
    """The packages are installed in editable mode instead. One file removes a folder."""
    editing = [name(path) for path in FILES if "sys.path" in path.read_text()]
    assert editing == ["tdmpc2/common/system/command.py"]
