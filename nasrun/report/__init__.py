"""Reports: read run directories, and show them as tables and pictures."""
