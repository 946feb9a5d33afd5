"""Puts the simulated device in the place of CUDA in each Python that is started below a test on it."""

import simulated_cuda.start  # noqa: F401
