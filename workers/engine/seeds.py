"""Derives seeds for whatever is drawn at random, as functions of where in the training it is drawn."""

import numpy as np


def derived_seed(seed: int, *key: int) -> int:
    """A 63-bit seed of its own for every pair of seed and key (a spawn_key of numpy's SeedSequence: as entropy, [1, 2]
    and [1, 2, 0] would be one).

    The keys in use are (epoch) for its order of samples and its audit, (epoch, iteration) for a batch's views, (epoch,
    iteration, microbatch) for dropout, and (0) for what a task draws at the start, as epochs count from 1.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))
