"""Tests run side by side on few cores: one thread each, set before torch starts its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
