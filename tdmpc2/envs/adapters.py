"""The simulators: one `Adapter` each, with all facts about it, and their registration."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.paths import PACKAGES
from tdmpc2.common.system.plugins import Plugins, Table
from tdmpc2.envs.tasks import ALIASES, PAPER_SUITES, SUITES, TASKS, Task, is_score_range

GROUP = "tdmpc2_repro.simulators"
"""Entry-point group of simulators of other packages; each object is a `Simulator`."""


NUMBERS = ("obs_dim", "action_dim", "action_repeat", "episode_length", "env_steps", "eval_every")
"""Fields of a task that are positive integers."""


def this_platform() -> str:
    """Return the system and the processor, as `linux-x86_64` or `darwin-arm64`."""
    return f"{sys.platform}-{platform.machine()}"


def variable_of(domain: str) -> str:
    """Return the environment variable that names the Python of a domain; see `other_python`."""
    return f"TDMPC2_PYTHON_{domain.upper().replace('-', '_')}"


@dataclass(frozen=True)
class Adapter:
    """Everything that is particular to a simulator. Importing it imports no simulator.

    Attributes:
        domain: the domain of its tasks.
        target: `"module:Class"` of a `TaskEnv`, imported when an environment is made and called
            with `(task, seed=seed, render=render)`, and with `assets=` for tasks that need models.
        seconds_per_decision: typical time of a decision on one CPU core, for cost estimates;
            `benchmarks/environments.py` measures it.
        packages: modules that must be importable; of `mysim.core`, `mysim` is looked for.
        distributions: distributions whose versions decide results; recorded with each run.
        install: command that installs the packages; needed with `packages` or `probe`.
        newest_python: newest Python version that the packages support; None if not limited.
        platforms: systems and processors for which the packages have releases, as `linux-x86_64`;
            empty if not limited.
        system_libraries: shared libraries that the packages load, with their Debian packages.
        probe: task with which the doctor checks the simulator; None if nothing can be missing.
        pixels: whether `obs=rgb` is supported.
        renders: graphics API that `render()` uses; None if there is nothing to render.
    """

    domain: str
    target: str
    seconds_per_decision: float
    packages: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    install: str = ""
    newest_python: tuple[int, int] | None = None
    platforms: tuple[str, ...] = ()
    system_libraries: Mapping[str, str] = field(default_factory=dict)
    probe: str | None = None
    pixels: bool = False
    renders: Literal["opengl", "vulkan"] | None = None

    @property
    def of_this_project(self) -> bool:
        """Whether the environment class belongs to this project."""
        return self.target.partition(":")[0].partition(".")[0] in PACKAGES

    @property
    def top_level(self) -> tuple[str, ...]:
        """The packages without their submodules, which cannot be found without an import."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.packages))

    def unsupported(self) -> str:
        """Return for what the packages have no release, and what to use instead, or ""."""
        if self.platforms and this_platform() not in self.platforms:
            return f"{this_platform()}: use another machine ({', '.join(self.platforms)})"
        if self.newest_python is not None and sys.version_info[:2] > self.newest_python:
            version = ".".join(map(str, self.newest_python))
            return (
                f"this Python: install with Python {version} (PYTHON=python{version} make "
                f"install), or name one that has it in {variable_of(self.domain)}"
            )
        return ""

    def missing_package(self) -> str | None:
        """Return the first package that is not installed, or None; nothing is imported."""
        return next((p for p in self.top_level if importlib.util.find_spec(p) is None), None)

    def how_to_install(self, package: str) -> str:
        """Return the end of an error message: a package is missing, and what installs it."""
        reason = self.unsupported()
        if reason:
            return f"needs {package}, which has no release for {reason}"
        return f"needs {package}, which is not installed: {self.install}"


_OPENGL = {"libEGL.so.1": "libegl1", "libOSMesa.so.8": "libosmesa6"}

_ADAPTERS = (
    Adapter(
        domain="dmcontrol",
        target="tdmpc2.envs.dmcontrol.adapter:DMControlEnv",
        seconds_per_decision=0.001,
        packages=("dm_control", "dm_env", "mujoco"),
        distributions=("dm_control", "mujoco"),
        install="pip install -e '.[dmcontrol]'",
        system_libraries=_OPENGL,
        probe="walker-walk",
        pixels=True,
        renders="opengl",
    ),
    Adapter(
        domain="metaworld",
        target="tdmpc2.envs.metaworld:MetaWorldEnv",
        seconds_per_decision=0.0022,
        packages=("metaworld", "mujoco"),
        distributions=("metaworld", "mujoco"),
        install="pip install -e '.[metaworld]'",
        system_libraries=_OPENGL,
        probe="mw-reach",
        renders="opengl",
    ),
    Adapter(
        domain="myosuite",
        target="tdmpc2.envs.myosuite:MyoSuiteEnv",
        seconds_per_decision=0.004,
        packages=("mujoco", "myosuite"),
        distributions=("myosuite", "mujoco"),
        install="pip install -e '.[myosuite]'",
        system_libraries=_OPENGL,
        probe="myo-hand-reach",
        renders="opengl",
    ),
    Adapter(
        domain="maniskill2",
        target="tdmpc2.envs.maniskill2:ManiSkill2Env",
        seconds_per_decision=0.01,
        packages=("mani_skill2", "sapien"),
        distributions=("mani_skill2", "sapien"),
        install="pip install -e '.[maniskill2]'",
        newest_python=(3, 11),  # of SAPIEN 2
        platforms=("linux-x86_64",),
        system_libraries={
            "libvulkan.so.1": "libvulkan1",
            "libGL.so.1": "libgl1",
            "libgthread-2.0.so.0": "libglib2.0-0",
            "libX11.so.6": "libx11-6",
        },
        probe="lift-cube",
        renders="vulkan",
    ),
    Adapter(domain="toy", target="tdmpc2.envs.toy:PointMass", seconds_per_decision=5e-5),
    Adapter(
        domain="gymnasium",
        target="tdmpc2.envs.gymnasium_env:GymnasiumEnv",
        seconds_per_decision=2e-4,
        distributions=("gymnasium", "mujoco"),
        renders="opengl",
    ),
)


class Simulator(NamedTuple):
    """What an entry point of the group `tdmpc2_repro.simulators` names.

    Attributes:
        adapter: the adapter of a new domain.
        tasks: the tasks of the domain.
    """

    adapter: Adapter
    tasks: tuple[Task, ...]


def register(adapter: Adapter, tasks: Sequence[Task]) -> None:
    """Add a simulator and its tasks; all commands then accept them, and suites named by their tags.

    Registering the same simulator again has no effect. Processes that a command starts do not know
    what a script registered; name the module that calls `register` in `TDMPC2_PLUGINS`.

    Args:
        adapter: the adapter of a new domain.
        tasks: its tasks, in the order in which suites list them.

    Raises:
        UserError: a name is taken, or adapter and tasks do not fit together.
    """
    _check_kinds(adapter, tasks)
    domain, names = adapter.domain, [task.name for task in tasks]
    rows, known = ADAPTERS.registered(), TASKS.registered()
    if rows.get(domain) == adapter and all(known.get(task.name) == task for task in tasks):
        return
    where = f"simulator '{domain}'"
    require(domain not in rows, f"{where}: the domain is taken; choose another name")
    require(bool(tasks), f"{where}: has no tasks; register at least one")
    probe = adapter.probe
    require(probe in (None, *names), f"{where}: the probe '{probe}' is not its task")
    installed = bool(adapter.install) or not (adapter.packages or probe)
    require(installed, f"{where}: no command installs it; set install='pip install …'")
    task_names = {*known, *ALIASES, *names}
    for task in tasks:
        text = f"{where}: task '{task.name}'"
        require(task.domain == domain, f"{text} has domain='{task.domain}', not '{domain}'")
        taken = task.name in {*known, *ALIASES, *SUITES.registered()} or names.count(task.name) > 1
        require(not taken, f"{text}: the name is taken; choose another name")
        same = ", ".join(sorted(task.tags & task_names))
        require(not same, f"{text}: the tag {same} is the name of a task; use other tags")
        fixed = ", ".join(sorted(task.tags & PAPER_SUITES))
        require(not fixed, f"{text}: the tasks of suite {fixed} are fixed; use other tags")
    ADAPTERS.add(domain, adapter)
    for task in tasks:
        TASKS.add(task.name, task)
        for tag in sorted(task.tags):
            SUITES.add(tag, (*SUITES.registered().get(tag, ()), task))


def _check_kinds(adapter: Any, tasks: Any) -> None:
    """Check the types of what a plugin registers, and that its numbers are possible."""
    text = "register(adapter, tasks)"
    require(isinstance(adapter, Adapter), f"{text}: {adapter!r} is no Adapter")
    several = isinstance(tasks, list | tuple) and all(isinstance(task, Task) for task in tasks)
    require(several, f"{text}: tasks must be a tuple of Task, not {type(tasks).__name__}")
    where = f"simulator '{adapter.domain}'"
    whole = re.fullmatch(r"[\w.]+:[\w.]+", str(adapter.target)) is not None
    require(whole, f"{where}: target={adapter.target!r} must be written as package.module:Class")
    seconds = adapter.seconds_per_decision
    timed = isinstance(seconds, int | float) and seconds > 0
    require(timed, f"{where}: seconds_per_decision={seconds!r} must be a number above 0")
    for task in tasks:
        text = f"{where}: task '{task.name}'"
        named = re.fullmatch(r"[\w-]+", str(task.name)) is not None
        require(named, f"{text}: names may contain only letters, digits, - and _")
        for name in NUMBERS:
            value = getattr(task, name)
            fits = isinstance(value, int) and value >= 1
            require(fits, f"{text}: {name}={value!r} must be an integer ≥ 1")
        metric, tags = task.metric, task.tags
        require(
            metric in ("return", "success"), f"{text}: metric={metric!r} must be return or success"
        )
        require(isinstance(tags, frozenset), f"{text}: tags={tags!r} must be a frozenset of texts")
        limits = task.score_range
        ranged = limits is None or is_score_range(limits)
        require(ranged, f"{text}: score_range={limits!r} must be two increasing, finite numbers")


def recorded_distributions() -> tuple[str, ...]:
    """Return the distributions of all simulators, whose versions are recorded with each run."""
    return tuple(dict.fromkeys(n for row in ADAPTERS.values() for n in row.distributions))


def _register_object(found: object) -> None:
    """Register the object of an entry point."""
    text = f"an entry point of {GROUP} names {found!r}, which is not a Simulator"
    require(isinstance(found, Simulator), text)
    register(*found)  # type: ignore[misc]


load_plugins = Plugins(GROUP, _register_object).load
"""Load the plugins of this process, unless they are loaded."""

ADAPTERS: Table[Adapter] = Table({row.domain: row for row in _ADAPTERS}, load_plugins)
"""All simulators by domain, including those of plugins."""
