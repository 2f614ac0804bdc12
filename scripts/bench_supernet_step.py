"""What weight sharing costs: a sampled supernet step against a training step of the same
architecture's stand-alone network, same batch, same trainer, in one run.

    python scripts/bench_supernet_step.py [--device cpu] [--batch 64] [--layers 3] [--channels 20]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nasrun.dataset.resident import ResidentSplit
from nasrun.run.compute import Compute
from nasrun.run.monitor import Silent
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.trainer.schedule import Schedule
from nasrun.trainer.trainer import Trainer, Training
from nasrun.values import ImageTask
