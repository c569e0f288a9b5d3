"""Artifact bundles: records, figures' numbers, environment and metadata that anyone can verify."""
