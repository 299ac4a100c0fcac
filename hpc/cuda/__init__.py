"""CUDA C kernels (`*.cu`) and the CuPy code that launches them; each has its reference in `hpc`."""
