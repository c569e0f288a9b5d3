"""DreamerV3 (Hafner et al., 2023, arXiv:2301.04104v1), in the version that the paper compares."""
