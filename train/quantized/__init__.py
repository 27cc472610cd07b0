"""Fine-tuning of an INT8 model on the very Q/DQ graph that calibration wrote, so that what is learnt is what is run.

`graph.py` is that graph in torch, `fake_quantize.py` its grids, `finetune.py` the run.
"""
