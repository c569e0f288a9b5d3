"""Tests of `tdmpc2.envs`."""
