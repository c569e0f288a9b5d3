"""DMControl: 28 tasks of dm_control and 11 custom tasks of the paper.

Importing this package imports dm_control.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # dm_control imports GLFW, which warns on machines without a display.
    warnings.filterwarnings("ignore", module="glfw")
    import dm_control.suite  # noqa: F401
