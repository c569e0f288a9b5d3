"""What holds for every test: one thread, seeded global generators, no silent gaps in CI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import submitit  # noqa: F401  before absl: its import closes absl's stream, pytest's stderr
import torch

from tdmpc2.common.numerics.compile import use_own_cache
from tdmpc2.common.numerics.seeding import seed_globals
from tdmpc2.common.numerics.torch_setup import MAX_PRODUCT_ERROR, product_error, torch_as_found
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import cache_dir
from tdmpc2.envs.rendering import load_triton_first, prepare_rendering
from tests.runs import tiny

# How the reasons of the only skips begin that CI allows: it runs as root with every component, but
# its CPU, kernel and Python differ, and the data lie beside some checkouts only.
MAY_SKIP = (
    "this CPU would multiply rounded numbers",
    "torch's library of products takes no blocked weights here",
    "oneDNN does not multiply tiled bfloat16 on this CPU",
    "this machine has a GPU",
    "root may read every file",
    "no permission to mount a small file system",
    "the kernel does not let this user create namespaces",
    "shows the message for another Python",
    "the packages of a bundle are for Python 3.12",
    "neither TDMPC2_PUBLISHED nor the download cache holds the released curves",
    "MS2_ASSET_DIR does not name a folder of models",
    "the result files of other methods are not here",
)


def pytest_configure() -> None:
    """Keeps torch to one thread: tests run side by side, and sums must not depend on cores.

    And chooses a renderer, before any test imports MuJoCo; the tests that need one say so. Code
    that tests compile is kept where that of runs is.
    """
    use_own_cache()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with contextlib.suppress(UserError):
        prepare_rendering()
    load_triton_first()  # tests also make simulators without `make_env`


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Starts one process more than there are cores: the tests of SLURM mostly wait. At most 4."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Sends the tests of a file to one worker, which then makes the file's fixtures once."""
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(autouse=True)
def _as_if_alone() -> Iterator[None]:
    """No test depends on those before it in its process.

    Networks built without an agent draw their first weights from torch's generator, and how
    float32 products are taken is a setting of the process.
    """
    seed_globals(0)
    with torch_as_found():
        yield


@pytest.fixture(autouse=True)
def _without_released_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands use no released curves but those that a test names; see `published_curves`."""
    monkeypatch.delenv("TDMPC2_PUBLISHED", raising=False)


@pytest.fixture(params=["highest", "medium"])
def library(request: pytest.FixtureRequest) -> str:
    """Has torch multiply float32 with MKL, then with oneDNN; the setting's name."""
    torch.set_float32_matmul_precision(request.param)
    if product_error() > MAX_PRODUCT_ERROR:
        pytest.skip("this CPU would multiply rounded numbers")
    return str(request.param)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nothing disturbed, to be read only."""
    runs = tmp_path_factory.mktemp("undisturbed")
    done = tiny(runs)
    assert done.code == 0, done
    return runs


@pytest.fixture(scope="session")
def published_curves() -> Path:
    """Folder of the released curves: `<method>/<task>.csv`."""
    named = os.environ.get("TDMPC2_PUBLISHED")
    folder = Path(named) if named else cache_dir() / "published"
    if named:
        assert folder.is_dir(), f"TDMPC2_PUBLISHED={named} is no folder"
    elif not folder.is_dir():
        pytest.skip("neither TDMPC2_PUBLISHED nor the download cache holds the released curves")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped in CI has failed, unless the reason is one of `MAY_SKIP`."""
    return _strict((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves."""
    return _strict((yield))


def _strict(report: Any) -> Any:
    """Turns a skip into a failure where `CI=true`, unless CI allows the reason."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_SKIP):
            report.outcome = "failed"
            report.longrepr = f"CI=true, where this must not be skipped: {reason}"
    return report
