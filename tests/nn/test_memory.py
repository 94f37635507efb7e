"""The memory bank against a dictionary, in one process and on two ranks."""

import pytest
import torch
import torch.nn.functional as F

from swav.nn.memory import MemoryBank

IMAGES, EMBED = 11, 3


def bank(**changes) -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(IMAGES, EMBED, **{"num_banks": 2, **changes})


def steps(num: int = 4, batch: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return pictures and embeddings; the second step has one picture twice."""
    generator = torch.Generator().manual_seed(1)
    made = [
        (
            torch.randperm(IMAGES - 1, generator=generator)[:batch],
            torch.randn(2, batch, EMBED, generator=generator),
        )
        for _ in range(num)
    ]
    made[1][0][4] = made[1][0][0]
    return made


def brute_force(momentum: float) -> dict[tuple[int, int], torch.Tensor]:
    """Return the row of each bank and picture that was seen."""
    rows: dict[tuple[int, int], torch.Tensor] = {}
    for indices, embeddings in steps():
        last = {index: place for place, index in enumerate(indices.tolist())}
        for which in range(2):
            for index, place in last.items():
                new = embeddings[which, place] / embeddings[which, place].norm()
                old = rows.get((which, index), new)
                mixed = momentum * old + (1 - momentum) * new
                rows[which, index] = mixed / mixed.norm()
    return rows


def filled(share: tuple[slice, float]) -> dict[str, torch.Tensor]:
    """Update a bank with this rank's part of every step; return what it then tells."""
    part, momentum = share
    memory = bank(momentum=momentum)
    for indices, embeddings in steps():
        memory.update(indices[part], embeddings[:, part])
    state = memory.get_extra_state()
    other = bank(momentum=momentum)
    other.set_extra_state({name: value.clone() for name, value in state.items()})
    own = steps()[0][0][part]
    return {
        **state,
        "share": memory.rows,
        "some": memory.rows_of(torch.tensor([3, 10, 3, 0])),
        "own": memory.own_rows_of(own),
        "again": other.whole(other.rows, dim=1),
    }


def check(answer: dict[str, torch.Tensor], part: slice, momentum: float) -> None:
    expected, drawn = brute_force(momentum), bank().get_extra_state()["rows"]
    for image in range(IMAGES):
        assert answer["seen"][image] == ((0, image) in expected)
        for which in range(2):
            row = expected.get((which, image), drawn[which, image])
            torch.testing.assert_close(answer["rows"][which, image], row)
    assert torch.equal(answer["some"], answer["rows"][:, [3, 10, 3, 0]])
    assert torch.equal(answer["own"], answer["rows"][:, steps()[0][0][part]])
    assert torch.equal(answer["again"], answer["rows"])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_newest_row_of_every_picture(momentum):
    check(filled((slice(6), momentum)), slice(6), momentum)


@pytest.mark.ranks
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_two_ranks_are_one(run_on_ranks, momentum):
    parts = [slice(0, 3), slice(3, 6)]
    answers = run_on_ranks(2, filled, [(part, momentum) for part in parts])
    for rank, (answer, part) in enumerate(zip(answers, parts, strict=True)):
        check(answer, part, momentum)
        assert answer["share"].shape[1] == 6  # the sixth row of rank 1 is of no picture
        number = 6 - rank
        assert torch.equal(answer["share"][:, :number], answer["rows"][:, rank::2])


def test_first_rows_are_random_unit_vectors():
    rows = bank().rows
    torch.testing.assert_close(rows.norm(dim=2), torch.ones(2, IMAGES))
    assert (F.cosine_similarity(rows[0], rows[1], dim=1) < 0.999).all()
    assert not bank().seen.any()


def test_it_moves_with_its_module():
    moved = torch.nn.ModuleList([bank()]).to("meta")[0]
    assert moved.rows.device.type == moved.seen.device.type == "meta"
    assert moved.rows.dtype == torch.float32


def test_draws_depend_on_seed_and_step_alone():
    one, other = bank(), bank()
    one.update(*steps()[0])
    assert torch.equal(one.draw(50, step=3), other.draw(50, step=3))
    assert not torch.equal(one.draw(50, step=3), one.draw(50, step=4))
    assert set(one.draw(500, step=3).tolist()) == set(range(IMAGES))
    assert torch.equal(one.shuffled(stream=(1, 2)), other.shuffled(stream=(1, 2)))
    assert sorted(one.shuffled(stream=(1, 2)).tolist()) == list(range(IMAGES))
    torch.manual_seed(5)
    assert not torch.equal(MemoryBank(IMAGES, EMBED).draw(50, step=3), one.draw(50, step=3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"momentum 1\.0 must be at least 0 and below 1"):
        bank(momentum=1.0)
    with pytest.raises(ValueError, match=r"saved memory bank is \(2, 11, 3\).*is \(1, 11, 3\)"):
        bank(num_banks=1).set_extra_state(bank().get_extra_state())
