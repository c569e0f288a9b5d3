"""TD-MPC (Hansen, Wang and Su, 2022, arXiv:2203.04955), the predecessor of TD-MPC2."""
