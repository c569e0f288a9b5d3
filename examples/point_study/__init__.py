"""An example package: a method, an environment, an ablation and a figure of your own."""
