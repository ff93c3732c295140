"""The speed of a training step beside TRL, flash-pref and a plain PyTorch loop: `python -m benchmarks.speed`."""
