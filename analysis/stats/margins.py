"""Equivalence margins of the comparison with the published curves."""

TASK_MARGIN = 10.0
DOMAIN_MARGINS = {"tdmpc2": 3.0}
OTHER_MARGIN = 5.0
"""Equivalence margins in points: per task, per domain by method, and per domain for others."""
OPEN = "not enough data"
"""Verdict if the difference is neither equivalent nor significant."""
