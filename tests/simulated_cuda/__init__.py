"""A CUDA device that is simulated on the CPU: what code asks of a device is found out where there is none.

Its tensors hold their values in the CPU's memory and say that they are on `cuda:0`. An operation on tensors of both
devices is refused as CUDA refuses it, the bytes that are held are counted as torch's allocator counts them, attention
takes the kernels that it would take there, and the CPU's kernels compute the rest. How fast a device is, how its
kernels round, and what its libraries do it can't tell.

    PYTHONPATH=tests python -m simulated_cuda -n 0 tests/gpu
"""
