"""Puts the simulated device in the place of CUDA, in this process; to be imported before torch is.

`SIMULATED_CUDA` names the library that `build` made.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

DEVICE_MEMORY = 80 << 30
library = ctypes.CDLL(os.environ["SIMULATED_CUDA"])
library.simulated_allocated.restype = library.simulated_peak.restype = ctypes.c_int64

import bitsandbytes  # noqa: E402, F401 - which looks for its own kernels where it finds a device
import torch  # noqa: E402

from simulated_cuda.kernels import register  # noqa: E402

properties = SimpleNamespace(
    name="simulated", total_memory=DEVICE_MEMORY, major=9, minor=0, uuid="simulated", multi_processor_count=132
)
STAND_INS: dict[str, Callable[..., Any]] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_capability": lambda *_: (9, 0),
    "get_device_properties": lambda *_: properties,
    "get_device_name": lambda *_: "simulated",
    "is_bf16_supported": lambda *_, **__: True,
    "mem_get_info": lambda *_: (DEVICE_MEMORY - library.simulated_allocated(), DEVICE_MEMORY),
    "memory_allocated": lambda *_: library.simulated_allocated(),
    "max_memory_allocated": lambda *_: library.simulated_peak(),
    "reset_peak_memory_stats": lambda *_: library.simulated_reset_peak(),
    "empty_cache": lambda: None,
    "synchronize": lambda *_: None,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    "get_rng_state_all": lambda: [torch.get_rng_state()],
    "set_rng_state_all": lambda states: None,
}
for name, stand_in in STAND_INS.items():
    setattr(torch.cuda, name, stand_in)
torch.version.cuda = "simulated"
kernels = register()
