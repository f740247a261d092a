"""A cache of frozen features on disk: computed once, sampled many times.

It lies in a temporary file, so that memory does not grow with the number of images.
"""

import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class FeatureCache:
    """Rows of several tensors, each of one shape and type: appended in batches, read by number.

    The file lies in the system's folder for temporary files (TMPDIR) and vanishes with this object,
    or with the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._row: np.dtype | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, *columns: Tensor) -> None:
        """Add a batch; columns: (B, ...) each.

        Raises ValueError where shapes or types differ from the first batch's.
        """
        arrays = [column.cpu().numpy() for column in columns]
        row = np.dtype([(f"f{i}", a.dtype, a.shape[1:]) for i, a in enumerate(arrays)])
        if row != (self._row or row):
            raise ValueError(f"rows of {row}: must be as the first, {self._row}")
        rows = np.empty(len(arrays[0]), row)
        for name, array in zip(row.names, arrays):
            rows[name] = array
        self._file.write(rows.tobytes())
        self._row = row
        self._count += len(rows)

    def __getitem__(self, numbers: Sequence[int]) -> list[Tensor]:
        """The columns of these rows, (len(numbers), ...) each."""
        self._file.flush()
        size = self._row.itemsize
        descriptor = self._file.fileno()
        content = bytearray().join(os.pread(descriptor, size, int(i) * size) for i in numbers)
        rows = np.frombuffer(content, self._row)
        return [torch.from_numpy(np.ascontiguousarray(rows[name])) for name in self._row.names]
