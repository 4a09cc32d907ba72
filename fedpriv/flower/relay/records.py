"""A parcel as the content of a Flower message: one string and plain bytes. Nothing in it is pickled."""
# pyright: reportMissingImports=false

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from .mirror import RelayError
from .parcel import Parcel

_LETTER, _JSON, _FILES, _RAW = "letter", "json", "files", "fedpriv.bytes"


def to_records(parcel: Parcel) -> RecordDict:
    """Return a parcel as the content of a message; Flower cuts files into pieces of 5 MB."""
    records = RecordDict({_LETTER: ConfigRecord({_JSON: parcel.letter()})})
    if parcel.files:
        records[_FILES] = ArrayRecord(
            {
                str(number): Array(dtype="uint8", shape=(len(data),), stype=_RAW, data=data)
                for number, (_, data) in enumerate(parcel.files)
            }
        )
    return records


def from_records(records: RecordDict) -> Parcel:
    """Return the parcel that a message holds.

    Raises
    ------
    RelayError
        If it holds none.
    """
    letter = records.config_records.get(_LETTER, {}).get(_JSON)
    if not isinstance(letter, str):
        raise RelayError("a message has no letter")
    arrays = records.array_records.get(_FILES, {})
    found = [arrays.get(str(number)) for number in range(len(arrays))]
    if any(array is None or array.stype != _RAW for array in found):
        raise RelayError("a file in a message is not plain bytes")
    return Parcel.of(letter, [bytes(array.data) for array in found if array is not None])
