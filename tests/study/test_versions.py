"""Parties understand each other, or are told who installs what."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedpriv.errors import VersionError
from fedpriv.study.versions import SpokenVersions, require_understanding

NOW = {"container": "4", "study key": "4"}


def spoken(member="ada@y.org", version="0.2.0", **protocol):
    return SpokenVersions(member=member, fedpriv=version, protocol=NOW | protocol)


OURS = spoken()


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.2.1", "1.0rc1", "0.2.0.dev3+g1a"])
def test_versions_that_differ_in_number_alone_work_together(version):
    require_understanding(OURS, {"micu@x.org": spoken("micu@x.org", version)})


def test_an_older_party_is_told_to_upgrade_with_both_versions_named():
    with pytest.raises(VersionError) as caught:
        require_understanding(
            OURS, {"micu@x.org": spoken("micu@x.org"), "sicu@x.org": spoken("sicu@x.org", "0.1.9", container="3")}
        )
    text = str(caught.value)
    assert "sicu@x.org runs fedpriv 0.1.9 (container 3, not 4), and ada@y.org 0.2.0" in text
    assert "install fedpriv 0.2.0 at sicu@x.org" in text
    assert "micu" not in text
    assert "Nothing was sent" in text


def test_if_we_are_the_older_one_we_upgrade_with_all_who_are_as_old():
    with pytest.raises(VersionError) as caught:
        require_understanding(
            OURS,
            {"micu@x.org": spoken("micu@x.org", "0.1.0"), "sicu@x.org": spoken("sicu@x.org", "0.10.0", box="fps2")},
        )
    assert "box fps2, not none" in str(caught.value)
    assert "install fedpriv 0.10.0 at ada@y.org, micu@x.org" in caught.value.todo


def test_two_builds_of_one_version_that_differ_are_told_so():
    with pytest.raises(VersionError, match=r"0\.2\.0, the same build of it, at "):
        require_understanding(OURS, {"sicu@x.org": spoken("sicu@x.org", messages="ab12")})


def test_a_party_that_says_nothing_is_not_there_yet_or_too_old():
    with pytest.raises(VersionError, match=r"sicu@x\.org does not say which version it runs") as caught:
        require_understanding(OURS, {"sicu@x.org": None}, kept="Nothing was run")
    assert caught.value.todo.startswith(
        "start sicu@x.org and try again in a minute; if it says nothing then, install fedpriv 0.2.0 at sicu@"
    )
    assert caught.value.kept == "Nothing was run"


def test_what_a_later_version_adds_is_ignored():
    text = json.dumps(OURS.model_dump() | {"since": 3, "more": {"x": []}})
    assert SpokenVersions.model_validate_json(text) == OURS


@pytest.mark.parametrize("version", ["", "new", "1\n", "1" * 41, "1.0 <b>"])
def test_a_version_is_a_number(version):
    with pytest.raises(ValidationError):
        spoken(version=version)


parts = st.dictionaries(st.sampled_from(["container", "box", "tags"]), st.sampled_from(["1", "2"]), min_size=1)


@given(parts, parts)
def test_being_apart_is_mutual_and_nobody_is_apart_from_itself(one, other):
    a = SpokenVersions(member="a@x.org", fedpriv="1", protocol=one)
    b = SpokenVersions(member="b@x.org", fedpriv="2", protocol=other)
    assert len(a.apart(b)) == len(b.apart(a))
    assert bool(a.apart(b)) == (one != other)
    assert a.apart(a) == ()
