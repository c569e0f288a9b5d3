"""TD-MPC (Hansen, Wang and Su, 2022), the method that TD-MPC2 grew out of."""
