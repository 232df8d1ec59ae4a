"""The same conditions for every test: one thread and no GPU, so that results repeat bit for bit; figures into files."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported anywhere
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["MPLBACKEND"] = "Agg"
