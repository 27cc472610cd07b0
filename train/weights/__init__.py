"""Weights of other programs, and how they come here.

`state_dict.py` reads the files that they lie in.
"""
