"""Statistics of the records: aggregation, intervals, comparisons and the audit."""
