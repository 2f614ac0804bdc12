"""A trained network for other programs: a readable file, torch.export, ONNX, its speed."""
