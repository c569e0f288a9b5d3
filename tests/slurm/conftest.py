"""One private SLURM cluster for all tests of this folder, which form one group of pytest-xdist."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing, running_cluster, wait_for


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Start a cluster of two nodes, which this process and its children use during these tests.

    Tests of other folders, which may follow in the same process, must not find it.
    """
    if reason := missing():
        pytest.skip(reason)
    # Sockets need short paths in folders that all users can enter; pytest's folders are neither.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with (
            running_cluster(Path(folder) / "lab") as started,
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in started.env.items():
                patch.setenv(name, value)
            yield started


@pytest.fixture
def configured(
    cluster: Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """Start a second cluster with the given configuration beside that of all tests, and use it."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with running_cluster(Path(folder) / "lab", request.param) as started:
            for name, value in started.env.items():
                monkeypatch.setenv(name, value)
            yield started


@pytest.fixture(autouse=True)
def _nothing_left_behind(cluster: Cluster) -> Iterator[None]:
    """Cancel the jobs that a failed test leaves behind."""
    yield
    if cluster.jobs():
        cluster.call("scancel", "--user=root")
        wait_for(lambda: not cluster.jobs(), 60, "cancelled jobs to end")
