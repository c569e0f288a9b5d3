"""Builds agents and runs them, in environments or from datasets."""
