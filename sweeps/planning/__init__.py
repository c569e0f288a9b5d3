"""Expands arguments into runs, and estimates what they cost."""
