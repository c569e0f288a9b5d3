"""Readers that load records from every source into one tidy table."""
