"""What runs a network on a tile: ONNX Runtime, without PyTorch, or PyTorch."""
