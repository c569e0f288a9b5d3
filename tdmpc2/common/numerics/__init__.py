"""How results are computed: devices, precision, compilation, native code, seeds, optimizers."""
