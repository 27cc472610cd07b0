"""Exact rewrites that atrous convolutions at one input size allow (onnx-ir passes, a file each), and their certificates."""
