"""Ablations: disable or replace design choices of TD-MPC2 and judge the claims on their effect."""
