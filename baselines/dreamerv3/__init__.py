"""DreamerV3 (Hafner et al., 2023), its first version, which the TD-MPC2 paper compares."""
