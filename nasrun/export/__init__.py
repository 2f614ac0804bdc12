"""A trained network for other programs: one readable file, torch.export, ONNX, and its speed."""
