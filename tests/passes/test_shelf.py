"""What is put away comes back as it was."""

import pytest
import torch

from errata.passes.shelf import Shelf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_is_put_away_comes_back_as_it_was(dtype: torch.dtype) -> None:
    first, second, third = (torch.randn(3, 5).to(dtype) for _ in range(3))
    shelf = Shelf(first.nbytes + 1)
    assert shelf.get(0) is None
    shelf.put(0, first)
    shelf.put(1, second)
    shelf.put(2, third)
    shelf.put(1, third)
    shelf.put(2, second.T.contiguous().T)
    for place, tensor in ((0, first), (1, third), (2, second)):
        assert torch.equal(shelf.get(place), tensor)  # pyright: ignore[reportArgumentType]
