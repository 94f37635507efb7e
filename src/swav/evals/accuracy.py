"""Top-1 and top-5 accuracy, which many tasks measure: what they are."""

from swav.run_folder.result import Metric


def top_accuracy(rank: int, condition: str = "") -> Metric:
    """Return what the share of pictures is whose class is among the ``rank`` most probable."""
    return Metric(title=f"top-{rank} accuracy{condition}", is_share=True)


def top1_and_top5(condition: str = "") -> dict[str, Metric]:
    """Return both by their names."""
    return {"top1": top_accuracy(1, condition), "top5": top_accuracy(5, condition)}
