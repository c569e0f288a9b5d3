"""Analysis of recorded runs: reading, aggregation, statistics, figures, and the commands."""
