"""Margins and verdicts of the comparison with the published curves and scores."""

TASK_MARGIN = 10.0
DOMAIN_MARGINS = {"tdmpc2": 3.0}
OTHER_MARGIN = 5.0
"""Equivalence margins in points: per task, per domain by method, and per domain for others."""
OPEN = "not enough data"
"""Verdict if the difference is neither equivalent nor significant."""
NOT_JUDGED = "open"
"""Verdict on a claim without runs or without a published number."""
PAPER_UPDATES = 10_000_000
"""Updates after which the paper evaluates its multi-task agents."""
