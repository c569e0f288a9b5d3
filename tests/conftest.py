"""What holds for every test: global generators start from the same state."""

from __future__ import annotations

import pytest

from tdmpc2.common.seeding import seed_globals


@pytest.fixture(autouse=True)
def _seeded_global_generators() -> None:
    """Networks built without an agent draw their first weights from torch's generator."""
    seed_globals(0)
