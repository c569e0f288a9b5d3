"""Names of the sources of records in the tidy table."""

PUBLISHED = "published"
"""Source of the released curves in the tidy table."""
RUNS_SOURCE = "runs"
"""Source of run directories; other curves have the name under which they were loaded."""
