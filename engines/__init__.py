"""Engines: models as a backend executes them, how they are built, and the manifests that keep them honest.

`build.py` makes them, `open.py` opens them, `manifest.py` refuses stale ones; `dialect.py` alone knows TensorRT versions.
"""
