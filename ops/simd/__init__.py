"""Generators of micro-kernels: vectors written out for a CPU level, compiled inside the kernels that call them."""
