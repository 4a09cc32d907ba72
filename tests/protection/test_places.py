from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.protection.groups import Group, Span
from fedpriv.protection.places import Places


@st.composite
def plans(draw):
    """Tensors of odd sizes, each in one of up to three groups."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    owners = draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
    spans, start = {}, 0
    for number, (size, owner) in enumerate(zip(sizes, owners, strict=True)):
        spans.setdefault(owner, []).append(Span(f"t{number}", start, size))
        start += size
    return tuple(Group("plain", 0, tuple(spans[owner])) for owner in sorted(spans)), sizes


@settings(max_examples=80, deadline=None)
@given(plans(), st.integers(1, 20))
def test_stretches_of_all_groups_cover_the_update_once_in_the_groups_order(plan, width):
    groups, sizes = plan
    places = Places(groups)
    tensor_of = np.repeat(np.arange(len(sizes)), sizes)
    seen = np.zeros(sum(sizes), int)
    for number, group in enumerate(groups):
        mine = np.concatenate([np.arange(span.start, span.start + span.size) for span in group.spans])
        assert places.tensors(number) == [int(span.name[1:]) for span in group.spans]
        for start in range(0, group.parameters, width):
            stretch = mine[start : start + width]
            found = np.full(stretch.size, -1)
            for place in places.of(number, start, start + width):
                positions = np.arange(place.update.start, place.update.stop)
                found[place.within] = positions
                seen[positions] += 1
                assert set(tensor_of[positions]) == {place.tensor}
            np.testing.assert_array_equal(found, stretch)
    assert (seen == 1).all()


def test_numbers_follow_the_sorted_names_not_the_order_of_groups():
    groups = (Group("sealed", 8, (Span("t10", 0, 2),)), Group("plain", 0, (Span("t9", 2, 3),)))
    places = Places(groups)
    assert (places.tensors(0), places.tensors(1)) == ([0], [1])
    assert [tuple(place) for place in places.of(1, 1, 99)] == [(slice(0, 2), slice(3, 5), 1)]
    assert list(places.of(0, 2, 5)) == []
