"""Seeds of their own for whatever is drawn at random, as functions of where it is drawn."""

import numpy as np


def derived_seed(seed: int, *key: int) -> int:
    """A 63-bit seed of its own for every seed and key (a spawn_key: to entropy, [1, 2] and [1, 2, 0] are one).

    Keys: (epoch), its order of samples and its audit; (epoch, iteration), a batch's views; (epoch, iteration,
    microbatch), dropout; (0), what a task draws at the start, for epochs count from 1.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))
