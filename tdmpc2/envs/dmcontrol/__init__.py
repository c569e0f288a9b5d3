"""DMControl: 28 tasks of the suite and 11 of the paper's own. Importing this imports dm_control."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # dm_control tries GLFW at import, which warns on machines without a display.
    warnings.filterwarnings("ignore", module="glfw")
    import dm_control.suite  # noqa: F401
