"""Measuring: what a model scores on labelled images, and pages that show it.

`evaluate.py` scores, `page.py` writes an HTML report.
"""
