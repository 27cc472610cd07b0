"""INT8: what range every tensor takes on real images, and the Q/DQ model that follows from it.

`calibrate` does the whole; `placement` decides where, `observers` and `collect` how large, `quantize` writes the graph.
"""
