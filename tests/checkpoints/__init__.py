"""Tests of trained models as files."""
