"""A pin is written into domain.yaml as text: what people wrote around it stays."""

import pytest

from fedpriv.domain import Domain
from fedpriv.errors import ConfigError
from fedpriv.study.plan import MemberChoice

BEN = MemberChoice(email="ben@y.org", fingerprint="ab" * 32)
LINES = """\
researchers:                        # who may send requests
  - email: ada@y.org  # our own
    fingerprint: "{ada}"
"""


def written(domain, researchers, *, after="\n# the policy, as the committee wants it\n"):
    """Write a domain.yaml with comments, and these lines on researchers in its middle; return its text."""
    text = domain.folder.config_path.read_text()
    head, policy = text[: text.index("researchers:")], text[text.index("policy:") :]
    text = f"{head}{researchers}{after}{policy}"
    domain.folder.config_path.write_text(text)
    return text


def test_another_researcher_is_put_behind_the_last_and_every_comment_stays(domain, ada):
    before = written(domain, LINES.format(ada=ada.fingerprint))
    domain.folder.pin(BEN)
    after = domain.folder.config_path.read_text()
    added = f'  - email: ben@y.org\n    fingerprint: "{BEN.fingerprint}"\n'
    assert after == before.replace(f'"{ada.fingerprint}"\n', f'"{ada.fingerprint}"\n{added}')
    assert [member.email for member in Domain.open(domain.folder.root).config.researchers] == ["ada@y.org", "ben@y.org"]


def test_a_new_key_of_one_who_is_pinned_takes_the_place_of_the_old(domain, ada):
    before = written(domain, LINES.format(ada=ada.fingerprint))
    domain.folder.pin(MemberChoice(email="ada@y.org", fingerprint="cd" * 32))
    assert domain.folder.config_path.read_text() == before.replace(ada.fingerprint, "cd" * 32)


@pytest.mark.parametrize(
    ("researchers", "kept"),
    [
        ("researchers: []  # nobody yet\n", ["researchers:  # nobody yet"]),
        ("researchers: [{email: old@y.org, fingerprint: '" + "ef" * 32 + "'}]\n", ["old@y.org"]),
        ("researchers: [\n  {email: old@y.org, fingerprint: '" + "ef" * 32 + "'},\n]\n", ["old@y.org"]),
        ("", []),
        ("'researchers':\n- email: old@y.org\n  fingerprint: '" + "ef" * 32 + "'\n", ["- email: old@y.org"]),
        ("researchers:\n- {email: old@y.org, fingerprint: '" + "ef" * 32 + "'}  # him\n", ["# him"]),
    ],
)
def test_every_way_to_write_a_list_can_be_added_to(domain, researchers, kept):
    written(domain, researchers)
    domain.folder.pin(BEN)
    text = domain.folder.config_path.read_text()
    assert "# the policy, as the committee wants it" in text
    for words in kept:
        assert words in text
    pinned = Domain.open(domain.folder.root).config.researchers
    assert pinned[-1] == BEN
    assert [member.email for member in pinned[:-1]] == ["old@y.org"] * ("old" in researchers)


def test_the_last_line_may_lack_its_end(domain, ada):
    text = written(domain, "", after="")
    domain.folder.config_path.write_text(f'{text}researchers:\n- email: old@y.org\n  fingerprint: "{"ef" * 32}"')
    domain.folder.pin(BEN)
    assert Domain.open(domain.folder.root).config.researchers[-1] == BEN


def test_what_a_program_cannot_change_is_left_for_a_person(domain, ada):
    line = f'- email: ada@y.org\n  fingerprint: "{ada.fingerprint}"\n'
    before = written(domain, f"researchers:\n{line}{line}")  # one address twice
    with pytest.raises(ConfigError, match=r"add email ada@y\.org and fingerprint"):
        domain.folder.pin(MemberChoice(email="ada@y.org", fingerprint="cd" * 32))
    assert domain.folder.config_path.read_text() == before
