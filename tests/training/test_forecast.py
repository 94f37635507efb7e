"""What a plan says of training published weights further."""

import pytest

from swav.training.forecast import forecast


@pytest.mark.parametrize(
    ("num_images", "word"),
    [(300, "unlikely"), (1999, "unlikely"), (2000, "likely"), (50_000, "likely")],
)
def test_few_pictures_are_told_that_it_will_not_help(num_images: int, word: str) -> None:
    said = forecast(num_images)
    assert said.startswith(f"training this network further (--tune all) is {word} to help")
    assert "docs/guard.md" in said
