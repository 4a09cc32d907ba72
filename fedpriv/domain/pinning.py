"""A researcher's pin written into domain.yaml as text, so that what people wrote around it stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from fedpriv.errors import ConfigError
from fedpriv.study.plan import MemberChoice

_KEY = "researchers"


def with_researcher(text: str, member: MemberChoice, known: Sequence[MemberChoice]) -> str:
    """Return the text of a domain.yaml with a researcher pinned; whoever calls it reads the result before it is used.

    Of one who is pinned already the fingerprint is replaced where it stands; another one is put behind the last. A list
    in brackets becomes one of lines.

    Parameters
    ----------
    text : str
        A whole domain.yaml, which was read as a configuration.
    member : MemberChoice
        Whom to pin.
    known : sequence of MemberChoice
        Who is pinned in it.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    key, value = next(((key, value) for key, value in pairs if key.value == _KEY), (None, None))
    if key is None or not isinstance(value, yaml.SequenceNode):
        return f"{text.rstrip()}\n\n{_KEY}:\n{_lines([member], '  ')}"
    if value.flow_style:
        others = [other for other in known if other.email != member.email]
        rest, end = text[value.end_mark.index :].split("\n", 1)[0], value.end_mark.index
        head = f"{text[: value.start_mark.index].rstrip()}{f'  {rest.strip()}' if rest.strip() else ''}\n"
        indent = " " * (key.start_mark.column + 2)
        return head + _lines([*others, member], indent) + text[end + len(rest) + 1 :]
    for item in value.value:
        settings = {name.value: node for name, node in item.value}
        if settings["email"].value == member.email:
            old = settings["fingerprint"]
            return f'{text[: old.start_mark.index]}"{member.fingerprint}"{text[old.end_mark.index :]}'
    last = max(node.end_mark.index for _, node in value.value[-1].value)
    end = text.find("\n", last)
    head, tail = (text + "\n", "") if end < 0 else (text[: end + 1], text[end + 1 :])
    return head + _lines([member], " " * value.start_mark.column) + tail


def unchanged(path: Path, member: MemberChoice) -> ConfigError:
    """Return the error that a person has to write a pin."""
    return ConfigError(
        f"{path} is written so that a program cannot add a researcher to it",
        kept="It was left as it is",
        todo=f"add email {member.email} and fingerprint {member.fingerprint} to researchers yourself",
    )


def _lines(members: Sequence[MemberChoice], indent: str) -> str:
    return "".join(
        f'{indent}- email: {member.email}\n{indent}  fingerprint: "{member.fingerprint}"\n' for member in members
    )
