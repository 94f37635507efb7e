"""Counter-based random numbers: every draw is a function of its key and counter alone.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), written
for arrays of counters, because a fresh numpy generator per picture and view would cost more
than the augmentation it drives.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import Float64, UInt64

# the constants of the paper, which were searched for there
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Stream(IntEnum):
    """Keeps apart what is drawn by one seed: a number in place of a view, an epoch or a key.

    Views are numbered from 0, and no training has as many views or epochs. A number that changes
    changes results and breaks the resuming of runs.
    """

    PRETEXT_TASKS = 1 << 16
    """Answers and places of tiles, and the noise of dropped colours; plus the view."""
    GROUPS = 1 << 17
    """The other picture of its group that a picture is shown with; in place of the view."""
    ORDER = 0x6F72646572
    """The order of the pictures in an epoch; in the key."""
    CLUSTERS = 0x636C7573
    """The two views whose features and clusters are compared; in place of the epoch."""
    LINEAR_SGD = 0x6C696E00
    """The crops that a linear layer learns from; in place of the epoch, plus the pass."""
    PART_RETRIEVAL = 0x70617274
    """The part of a picture that it is looked up by; in place of the epoch."""
    PATCH_KMEANS = 0x70617463
    """Pictures and patches that patch k-means learns from; in place of the epoch."""
    ONLINE_EVALUATION = 0x70657269
    """The two views that are compared while a training goes on; in place of the epoch."""
    LABEL_FREE = 0x6C616266
    """The views by which two networks are compared without labels; in place of the epoch."""


def philox(
    counters: UInt64[np.ndarray, "*shape 4"], key: tuple[int, int]
) -> UInt64[np.ndarray, "*shape 4"]:
    """Return four random 32-bit words for every counter of four 32-bit words."""
    c0, c1, c2, c3 = (counters[..., word] for word in range(4))
    k0, k1 = key
    # seven rounds pass the tests of the paper, and ten are its safe choice
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def uniforms(
    *, seed: int, epoch: int, indices: np.ndarray, view: int, num_draws: int
) -> Float64[np.ndarray, "batch draws"]:
    """Return ``num_draws`` numbers in [0, 1) for one view of each picture.

    They depend on (seed, epoch, index, view) only: never on the batch, worker or rank.
    """
    num_blocks = -(-num_draws // 4)
    # 64 bits hold 32-bit words, so that the products of a round do not overflow
    counters = np.empty((len(indices), num_blocks, 4), dtype=np.uint64)
    counters[..., 0] = np.arange(num_blocks)
    counters[..., 1] = view
    counters[..., 2] = np.asarray(indices, dtype=np.uint64)[:, None]
    counters[..., 3] = epoch
    # a block of four words costs a counter: how many are drawn changes none of the earlier ones
    words = philox(counters, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    # in float64, as 32 bits over 2**32 may round up to 1 in float32
    return words.reshape(len(indices), -1)[:, :num_draws] * 2.0**-32
