"""Names of the sources of records in the tidy table."""

PUBLISHED = "published"
"""Source of the released curves in the tidy table."""
RUNS_SOURCE = "runs"
"""Source of run directories; other curves have the name under which they were loaded."""
OWN_RUNS = "own runs"
"""Source of runs made here, where they stand beside result files."""
RESERVED = (PUBLISHED, RUNS_SOURCE, OWN_RUNS)
"""Names that no file or folder of other curves may have."""
