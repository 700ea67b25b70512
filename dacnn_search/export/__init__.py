"""Trained networks as folders of weights, ONNX and `torch.export` files."""
