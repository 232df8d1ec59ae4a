"""Benchmarks of speed and memory on a CPU, and checks, speed and science on a GPU."""
