"""Transitions that a run collects: all of them on disk, the latest of them in memory.

    TransitionFile   every transition in the order in which it was collected; only ever appended to
    ReplayBuffer     a ring of transitions to draw batches from

The file holds what the environment returned; the buffer holds what the networks see. `masks` and
`terminals` mean what they mean in :mod:`vgf.data.dataset`: a timeout has mask 1 and terminal 1.

The file's layout. 64 bytes of ASCII, "vgf transitions 1 <o> <d>" and blanks; then rows of equal
size, little-endian, as :func:`row_type` defines them. Each row ends in the CRC-32 of its position
and its other bytes, so that an incomplete row is recognised.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.files import write_atomically
from .dataset import KEYS

# Separates the random numbers that pick rows of the buffer from those of data and updates.
REPLAY = 4
HEADER_BYTES, MAGIC = 64, "vgf transitions 1"
_SYNC_EVERY, _CHUNK = 1_000, 65_536


# --- on disk ------------------------------------------------------------------------------------


def row_type(observation_dim: int, action_dim: int) -> np.dtype[np.void]:
    """The fields of a row of the file.

    `rewards` and `observations` are the environment's own, neither scaled nor standardised;
    `success` is the step's, NaN if the environment does not say.
    """
    return np.dtype(
        [
            ("observations", "<f4", (observation_dim,)),
            ("actions", "<f4", (action_dim,)),
            ("rewards", "<f8"),
            ("masks", "<f4"),
            ("terminals", "<f4"),
            ("next_observations", "<f4", (observation_dim,)),
            ("success", "<f4"),
            ("checksum", "<u4"),
        ]
    )


class TransitionFile:
    """Every transition of a run, in the order in which it was collected; a context manager.

    Appended rows survive the end of the process, however it ends, and a crash of the machine once
    :meth:`sync` has returned. A row that was cut off is removed when the file is opened.

    Args:
        path: of the file; it is made if missing.
        observation_dim, action_dim: o and d.
        at_least: rows that a checkpoint relies on.

    Raises:
        VGFError: a different kind of file, or one with fewer complete rows than `at_least`.
    """

    def __init__(
        self, path: Path | str, observation_dim: int, action_dim: int, at_least: int = 0
    ) -> None:
        self.path = Path(path)
        self._row = row_type(observation_dim, action_dim)
        head = f"{MAGIC} {observation_dim} {action_dim}".ljust(HEADER_BYTES).encode()
        if not self.path.exists() and at_least == 0:
            write_atomically(self.path, head)
        self._rows = 0
        if self.path.exists():
            _check_head(self.path, head)
            self._rows = sum(len(rows) for rows in _whole_rows(self.path, self._row))
        if self._rows < at_least:
            raise VGFError(
                f"{self.path} holds {self._rows:,} complete transitions; the last checkpoint was "
                f"written after {at_least:,}; put the file back, or delete the later checkpoints"
            )
        self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115
        self._file.truncate(self._place(self._rows))
        self._file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._rows

    def read(self, start: int, stop: int) -> Array:
        """Rows start .. stop - 1, an array of :func:`row_type`."""
        count = min(stop, self._rows) - start
        return np.fromfile(self.path, self._row, count, offset=self._place(start))

    def append(self, transition: Mapping[str, Any]) -> Array:
        """Add one transition, its fields by name; returns its row.

        Raises:
            VGFError: the file cannot be written.
        """
        row = np.zeros((), self._row)
        for name, value in transition.items():
            row[name] = value
        self._write(row, self._rows)
        self._rows += 1
        if self._rows % _SYNC_EVERY == 0:
            self.sync()
        return row

    def end_trajectory(self) -> Array:
        """Mark the last transition as the end of its trajectory, keeping its mask; returns its row.

        Raises:
            VGFError: the file cannot be written.
        """
        row = self.read(self._rows - 1, self._rows)[0]
        row["terminals"] = 1.0
        self._write(row, self._rows - 1)
        return row

    def _write(self, row: Array, number: int) -> None:
        row["checksum"] = _checksum(row.tobytes(), number)
        data = row.tobytes()
        try:
            self._file.seek(self._place(number))
            written = self._file.write(data)
        except OSError as error:
            raise VGFError(f"{self.path}: cannot be written: {error.strerror}") from error
        if written != len(data):
            raise VGFError(f"{self.path}: cannot be written: the disk is full")

    def _place(self, number: int) -> int:
        return HEADER_BYTES + number * self._row.itemsize

    def sync(self) -> None:
        """Wait until all rows are on disk.

        Raises:
            VGFError: they cannot be written.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise VGFError(f"{self.path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        self._file.close()

    def __enter__(self) -> TransitionFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_transitions(path: Path | str) -> dict[str, Array]:
    """The complete rows of a file of transitions, for inspection: fields by name, ``[M, *]``.

    Raises:
        VGFError: a missing file, or one of a different kind.
    """
    path = Path(path)
    try:
        words = path.read_bytes()[:HEADER_BYTES].decode(errors="replace").split()
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    sizes = [int(word) for word in words[3:] if re.fullmatch("[1-9][0-9]{0,6}", word)]
    if " ".join(words[:3]) != MAGIC or len(words) != 5 or len(sizes) != 2:
        raise VGFError(f"{path} is not a file of transitions")
    kind = row_type(*sizes)
    rows = np.concatenate([np.zeros(0, kind), *_whole_rows(path, kind)])
    return {name: rows[name] for name in kind.names or () if name != "checksum"}


def _check_head(path: Path, expected: bytes) -> None:
    with open(path, "rb") as file:
        found = file.read(HEADER_BYTES)
    if found != expected:
        raise VGFError(
            f"{path} begins with {found.decode(errors='replace').strip()!r}, expected "
            f"{expected.decode().strip()!r}: it is for another task; put the run's own file back"
        )


def _whole_rows(path: Path, kind: np.dtype[np.void]) -> Iterator[Array]:
    """The rows of a file up to the first incomplete one, in chunks."""
    start = 0
    while True:
        rows = np.fromfile(path, kind, _CHUNK, offset=HEADER_BYTES + start * kind.itemsize)
        data, size = rows.tobytes(), kind.itemsize
        found = [_checksum(data[i * size : (i + 1) * size], start + i) for i in range(len(rows))]
        wrong = np.flatnonzero(rows["checksum"] != np.array(found, np.uint32))
        if len(wrong):
            rows = rows[: wrong[0]]
        yield rows
        if len(rows) < _CHUNK:
            return
        start += _CHUNK


def _checksum(row: bytes, number: int) -> int:
    """The checksum of a row, without its own checksum, at its position."""
    return zlib.crc32(row[:-4], number & 0xFFFFFFFF)


# --- in memory ----------------------------------------------------------------------------------


class ReplayBuffer:
    """The latest transitions, in a ring; float32 throughout.

    Transition number i is in row i modulo the capacity.

    Args:
        capacity: rows; once full, the newest replaces the oldest.
        observation_dim, action_dim: o and d.

    Raises:
        VGFError: a capacity below 1, or one that does not fit into memory.
    """

    def __init__(self, capacity: int, observation_dim: int, action_dim: int) -> None:
        if capacity < 1:
            raise VGFError(f"a replay buffer of capacity {capacity}; it must be 1 or more")
        self.capacity = capacity
        self.added = 0
        vectors = {
            "observations": observation_dim,
            "actions": action_dim,
            "next_observations": observation_dim,
        }
        try:
            self.rows = {
                key: np.zeros((capacity, vectors[key]) if key in vectors else capacity, np.float32)
                for key in KEYS
            }
        except (MemoryError, ValueError) as error:
            raise VGFError(
                f"a replay buffer of {capacity:,} transitions does not fit into memory; lower "
                "--buffer-size"
            ) from error

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, transitions: Mapping[str, Array]) -> None:
        """Add M transitions in order.

        Args:
            transitions: the fields of :class:`~vgf.data.dataset.Dataset` by name, ``[M, *]``.
        """
        count = len(transitions["rewards"])
        kept = min(count, self.capacity)
        places = (self.added + count - kept + np.arange(kept)) % self.capacity
        for key in KEYS:
            self.rows[key][places] = transitions[key][count - kept :]
        self.added += count

    def end_trajectory(self) -> None:
        """Mark the newest transition as the end of its trajectory, its mask unchanged."""
        self.rows["terminals"][(self.added - 1) % self.capacity] = 1.0

    def batch(self, seed: int, step: int, size: int) -> dict[str, Array]:
        """The batch of one update, with replacement: a pure function of seed, step and contents.

        Args:
            seed, step: of the run and of the update.
            size: B.

        Raises:
            VGFError: nothing has been added yet.
        """
        if not len(self):
            raise VGFError("the replay buffer is empty; collect a transition first")
        picked = np.random.default_rng([seed, REPLAY, step]).integers(0, len(self), size)
        return {key: self.rows[key][picked] for key in KEYS if key != "terminals"}
