"""Simulators that are installed for another Python: their environments run in processes of it.

`TDMPC2_PYTHON_MANISKILL2=/path/to/python` names the interpreter of a domain. SAPIEN 2, for example,
has no release for Python 3.12.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tdmpc2.common.system import plugins
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import importable
from tdmpc2.common.system.user_code import INSTALLED
from tdmpc2.envs.adapters import ADAPTERS, Adapter, variable_of

_FACTS = """
import importlib.metadata, importlib.util, json, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
modules, names = map(json.loads, sys.argv[1:])
missing = [name for name in modules if importlib.util.find_spec(name) is None]
versions = {name: version(name) for name in names}
print(json.dumps([missing, platform.python_version(), versions]))
"""


def other_python(domain: str) -> str | None:
    """Return the Python that runs the environments of a domain; None for that of this process.

    Raises:
        UserError: the variable names no program.
    """
    variable = variable_of(domain)
    named = os.environ.get(variable)
    if not named:
        return None
    found = shutil.which(os.path.expanduser(named))
    if found is None:
        raise UserError(f"{variable}={named}: no such program; name a Python with the simulator")
    return found


def python_and_environment(domain: str | None) -> tuple[str, dict[str, str]]:
    """Return the Python and the environment variables of the processes of a domain.

    Args:
        domain: the domain; None for processes with several, which use this Python.

    Raises:
        UserError: the variable names no program.
    """
    if domain is None or (python := other_python(domain)) is None:
        return sys.executable, dict(os.environ)
    unwanted = [variable_of(domain), "PYTHONHOME", "VIRTUAL_ENV"]
    folders = [str(importable())]
    if ADAPTERS[domain].of_this_project and domain != "gymnasium":
        unwanted.append(plugins.VARIABLE)  # they may be importable in this Python only
    else:  # the environments of a user's module; installed packages are those of this Python
        own = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        folders += [folder for folder in own if Path(folder).name not in INSTALLED]
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return python, {**kept, "PYTHONPATH": os.pathsep.join(folders)}


def missing_there(adapter: Adapter) -> str:
    """Return the end of an error message if the other Python of a domain lacks a package, or "".

    Raises:
        UserError: the Python does not start.
    """
    missing, _ = _facts(adapter)
    if not missing:
        return ""
    python = other_python(adapter.domain)
    install = adapter.install or f"pip install {' '.join(missing)}"
    command = f"{python} -m {install}" if install.startswith("pip ") else install
    return f"needs {missing[0]}, which ${variable_of(adapter.domain)} does not have: {command}"


def versions_elsewhere() -> dict[str, str | None]:
    """Return the versions of simulators that run in another Python, and of that Python.

    Returns:
        Versions by distribution, None if it is missing, and by `python (DOMAIN)`; empty if every
        simulator runs in this Python.

    Raises:
        UserError: a Python does not start.
    """
    found: dict[str, str | None] = {}
    for adapter in ADAPTERS.values():
        if other_python(adapter.domain) is not None:
            found |= _facts(adapter)[1]
    return found


def _facts(adapter: Adapter) -> tuple[list[str], dict[str, str | None]]:
    """Return the missing packages of a simulator, and the versions of `versions_elsewhere`."""
    python = str(other_python(adapter.domain))
    missing, version, versions = _ask(
        adapter.domain, python, adapter.top_level, adapter.distributions
    )
    return missing, {**versions, f"python ({adapter.domain})": version}


@cache
def _ask(domain: str, python: str, packages: tuple[str, ...], names: tuple[str, ...]) -> Any:
    """Return missing packages, the version of Python, and versions of distributions.

    Args:
        domain: a domain with another Python.
        python: that Python.
        packages: modules that must be importable there.
        names: names of distributions.

    Raises:
        UserError: the Python does not start.
    """
    command = [python, "-c", _FACTS, json.dumps(["numpy", "gymnasium", *packages])]
    done = subprocess.run(
        [*command, json.dumps(names)],
        env=python_and_environment(domain)[1],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{variable_of(domain)}={python}: does not start: {reason}")
    return json.loads(done.stdout)
