"""The network, its training and its export: the only package that imports torch.

Read `network/deeplabv3.py` for the model, `loop.py` for training, `export.py` for the way to ONNX.
"""
