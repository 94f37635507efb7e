"""Is training a published network further likely to help? By what was measured."""

# lite0, three seeds a set (benchmarks/starts_2cpu_2026-11-25.md); agreement, stability, effective
# rank and retrieval from a part of the start did not order these gains, the pictures' number did
ENOUGH_PICTURES = 2000


def forecast(num_images: int) -> str:
    """Return what to expect of ``--tune all`` and ``last:N``, in a sentence."""
    expected = (
        "unlikely to help: with 800 to 1,000 pictures of four sets kNN changed by -1.6 to "
        "+2.4 points, 0.3 on average"
        if num_images < ENOUGH_PICTURES
        else "likely to help where pictures are small: on CIFAR-10 at 64 pixels kNN gained 2 "
        "points with 2,000 pictures and 3 epochs, 4 with 5,000 and 5, 5 with 50,000 and 1"
    )
    return f"training this network further (--tune all) is {expected} (docs/guard.md)"
