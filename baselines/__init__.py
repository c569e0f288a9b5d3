"""The methods that TD-MPC2 is compared with, under the same trainer, wrappers and records."""
