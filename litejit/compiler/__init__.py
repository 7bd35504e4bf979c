"""Compiled code: kernels declared in Python, compiled by Numba to relocatable objects, linked, loaded.

Importing this package loads neither Numba nor llvmlite: kernels are declarations until they are compiled.
"""
from litejit.compiler.lazy import device, kernel, micro_kernel, prange

__all__ = ["device", "kernel", "micro_kernel", "prange"]
