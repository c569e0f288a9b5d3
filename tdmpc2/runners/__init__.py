"""Runners: build the objects of a run and train it, online or from a dataset."""
