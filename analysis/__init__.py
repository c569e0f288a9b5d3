"""From run directories to figures: records, aggregation, plots, commands."""
