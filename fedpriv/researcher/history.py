"""The history: every event of a study but progress, one JSON object a line, read back as events."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedpriv.errors import UntrustedError
from fedpriv.files import MAX_JSON_BYTES, PRIVATE_FILE, parse_json
from fedpriv.researcher.events import DomainProgress, Event
from fedpriv.study.validation import in_words

_BLOCK = 64 * 1024


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


class History:
    """Appends events to ``history.jsonl``; a line that a kill left half written is dropped at the next append.

    Guarantee: whatever byte the file ends with, every line that is whole is read, and is kept by the next append.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        if isinstance(event, DomainProgress):
            return
        line = json.dumps(event.as_record(), sort_keys=True, allow_nan=False).encode() + b"\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            if (whole := _end_of_whole_lines(descriptor)) < os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, whole)
            rest = memoryview(line)
            while rest:  # a disk that fills up takes a part, and says so at the next try
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def records(self) -> list[dict[str, Any]]:
        """Return all whole records, oldest first."""
        return list(self.follow_records(lambda: False))

    def events(self, note: Callable[[str], None] = _warn) -> Iterator[Event]:
        """Yield all whole records as events, oldest first; see :meth:`follow`."""
        return self.follow(lambda: False, note)

    def follow(self, more: Callable[[], bool], note: Callable[[str], None] = _warn) -> Iterator[Event]:
        """Yield all events, then those that are appended; memory does not grow with the file.

        Parameters
        ----------
        more : Callable[[], bool]
            Asked each time that the end is reached. It waits as it likes; True looks again. After False what was
            appended until then is still yielded.
        note : Callable[[str], None]
            Given a sentence, once for each kind of record that is skipped because this version of fedpriv does not
            know it, or knows it with other fields.

        Raises
        ------
        UntrustedError
            At a line that is whole and yet no JSON object, or larger than any of ours.
        """
        kinds = {cls.__name__: cls for cls in _subclasses(Event)}
        noted: set[str] = set()
        for record in self.follow_records(more):
            kind = str(record.get("event"))[:80]
            try:
                yield _reader(kinds[kind]).validate_python(record)
                continue
            except KeyError:
                why = "this version of fedpriv does not know it"
            except ValidationError as error:
                why = in_words(error)
            if kind not in noted:
                noted.add(kind)
                note(f"Records of {kind} in {self._path.name} are skipped: {why}")

    def follow_records(self, more: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield the records as they were written, of whatever kind; see :meth:`follow`."""
        offset, last = 0, False
        while True:
            for line in self._whole_lines(offset):
                offset += len(line)
                record = parse_json(line, source=self._path.name)
                if not isinstance(record, dict):
                    raise UntrustedError(f"{self._path.name} holds a line that is no event", kept="It was not used")
                yield record
            if last:
                return
            last = not more()

    def _whole_lines(self, offset: int) -> Iterator[bytes]:
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(offset)
            while line := stream.readline(MAX_JSON_BYTES + 1):
                if not line.endswith(b"\n") and len(line) <= MAX_JSON_BYTES:
                    return  # it is being written, or a kill left it so: the next append drops it
                yield line


def _end_of_whole_lines(descriptor: int) -> int:
    """Return the offset after the last line end of a file, looking from its end."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _subclasses(cls: type[Event]) -> Iterator[type[Event]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


@functools.cache
def _reader(cls: type[Event]) -> TypeAdapter[Event]:
    return TypeAdapter(cls)
