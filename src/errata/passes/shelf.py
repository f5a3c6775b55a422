"""Tensors put away between two uses: in memory up to a budget, beyond it in a temporary file."""

import tempfile
import weakref
from io import BufferedRandom
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BUDGET = 2**25
"""Bytes kept in main memory."""
SHARE = 0.25
"""Of an accelerator's free memory."""


def budget_on(device: torch.device) -> int:
    """How many bytes may be kept on a device."""
    if device.type != "cuda":
        return BUDGET
    return int(SHARE * torch.cuda.mem_get_info(device)[0])


class Shelf:
    """Numbered places. A tensor that is put where one was before must have its shape and dtype.

    The file has no name and is gone with the shelf. It is read and written, not mapped: it takes no memory of the
    process's own.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._held: dict[int, Tensor] = {}
        self._filed: dict[int, tuple[int, Tensor]] = {}
        self._file: BufferedRandom | None = None
        self._end = 0

    def put(self, place: int, tensor: Tensor) -> None:
        """Put a tensor away.

        Raises:
            OSError: the disk is full.
        """
        if place not in self._held and place not in self._filed:
            self._assign(place, tensor)
        if place in self._held:
            self._held[place] = tensor
            return
        file = cast(BufferedRandom, self._file)
        try:
            file.seek(self._filed[place][0])
            file.write(_bytes(tensor.cpu().contiguous()).data)
            file.flush()
        except OSError as error:
            why = f"{error.strerror}. Free some space there, or set TMPDIR to another folder"
            raise OSError(error.errno, why, tempfile.gettempdir()) from error

    def get(self, place: int) -> Tensor | None:
        """What was put there last, or None."""
        if place in self._held:
            return self._held[place]
        if place not in self._filed:
            return None
        start, like = self._filed[place]
        tensor = torch.empty(like.shape, dtype=like.dtype)
        file = cast(BufferedRandom, self._file)
        file.seek(start)
        file.readinto(_bytes(tensor).data)
        return tensor.to(like.device)

    def _assign(self, place: int, tensor: Tensor) -> None:
        if tensor.nbytes <= self._left:
            self._left -= tensor.nbytes
            self._held[place] = tensor
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._filed[place] = (self._end, tensor.new_empty(1).expand(tensor.shape))
        self._end += tensor.nbytes


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The tensor's memory as it lies, whatever its dtype."""
    return cast("NDArray[np.uint8]", tensor.reshape(-1).view(torch.uint8).numpy())
