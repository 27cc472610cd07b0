"""Weights of other programs: where they are published, how they come here, and how they take this program's names.

Read `import_weights.py` for the whole way; `published.py` lists what has a name, `layouts.py` knows the networks.
"""
