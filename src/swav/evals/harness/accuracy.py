"""Top-1 and top-5 accuracy, which many tasks measure: what they are, and how they are counted."""

from collections.abc import Mapping

from jaxtyping import Int64
from torch import Tensor

from swav.ops.metrics import wilson_interval
from swav.run_folder.result import Metric


def top_accuracy(rank: int, condition: str = "") -> Metric:
    """Return what the share of pictures is whose class is among the ``rank`` most probable."""
    return Metric(title=f"top-{rank} accuracy{condition}", is_share=True)


def top1_and_top5(condition: str = "") -> dict[str, Metric]:
    """Return both by their names."""
    return {"top1": top_accuracy(1, condition), "top5": top_accuracy(5, condition)}


def count_right(
    ranked: Int64[Tensor, "images _"], labels: Int64[Tensor, " images"], *, num_classes: int
) -> dict[str, int]:
    """Return how many pictures have their class first and, of more than five, among the first five.

    Args:
        ranked: the most probable classes of each picture, at most five, best first.
        labels: the right ones.
        num_classes: that there are.
    """
    hits = ranked == labels[:, None]
    num_right = {"top1": int(hits[:, 0].sum())}
    if num_classes > 5:
        num_right["top5"] = int(hits.any(dim=1).sum())
    return num_right


def share_metrics(
    num_right: Mapping[str, int], number: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return each count as a share of ``number`` pictures, and the intervals of these shares."""
    return (
        {metric: right / number for metric, right in num_right.items()},
        {metric: wilson_interval(right, number) for metric, right in num_right.items()},
    )
