"""CUDA: device memory, streams and kernels, through cuda-python or PyCUDA."""
