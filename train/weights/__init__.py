"""Weights of other programs: where they are published, how they come here, and how they are read.

`published.py` lists what has a name, `download.py` fetches it, `state_dict.py` reads whatever others saved.
"""
