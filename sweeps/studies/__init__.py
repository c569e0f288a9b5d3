"""Studies: claims registered before their first run, judged after each look at the seeds."""
