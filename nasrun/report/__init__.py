"""Reports: run directories are read, and shown as tables and pictures."""
