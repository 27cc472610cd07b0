"""The words and rules that every other package shares: specs, files, data sets, pre- and postprocessing, metrics.

Nothing here imports torch, an inference backend or a sibling package; each idea is imported from the module named after it.
"""
