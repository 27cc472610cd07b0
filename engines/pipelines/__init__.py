"""What other programs need to run a model as they are: Triton's model repository, DeepStream's nvinfer configuration."""
