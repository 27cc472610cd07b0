"""The networks: DeepLabv3 with every architecture of the paper, and those that edge devices run.

Read `deeplabv3.py` first; `atrous.py` says how strides become atrous rates, each backbone and head has a file of its own.
"""
