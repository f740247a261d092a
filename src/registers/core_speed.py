"""How fast a core of this machine multiplies matrices: what guesses of time are made from."""

import time

import numpy as np


def core_flops() -> float:
    """FLOPs a core-second of a large matrix product here, whatever else the machine does."""
    side = 512
    a = np.ones((side, side), np.float32)
    a @ a
    began = time.process_time()
    for _ in range(4):
        a @ a
    return 4 * 2 * side**3 / (time.process_time() - began)
