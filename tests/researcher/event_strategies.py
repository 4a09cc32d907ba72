"""Any event of any class, whichever fields it has."""

import dataclasses
import typing

from hypothesis import strategies as st

from fedpriv.researcher.events import DomainProgress, Event

_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text(max_size=20)
_KNOWN = {
    str: _TEXT,
    int: st.integers(-(2**53), 2**53),
    bool: st.booleans(),
    float: _FINITE,
    type(None): st.none(),
}


def _values(hint):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _KNOWN:
        return _KNOWN[hint]
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if arguments:  # a union
        return st.one_of(*map(_values, arguments))
    return st.from_type(hint)


def kept_classes():
    """The classes of events that the history keeps."""
    return [
        cls for cls in Event.__subclasses__() if cls.__module__.startswith("fedpriv.") and cls is not DomainProgress
    ]


def any_of(cls):
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in dataclasses.fields(cls)})


def events():
    return st.one_of(*map(any_of, kept_classes()))
