"""YAML that two readers cannot read differently: no aliases, anchors, tags or repeated keys, and bounded in size."""

from __future__ import annotations

import re
from typing import Any

import yaml

from fedpriv.errors import PlanError

MAX_PLAN_BYTES = 256 * 1024
MAX_YAML_DEPTH = 16


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes text that :class:`_UniqueKeyLoader` would read as a number."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which would let a reader and the machine see different plans."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.YAMLError(f"the key {key!r} stands twice")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
for _class in (_UniqueKeyLoader, _Dumper):  # 2e-3 is a number in YAML 1.2 and JSON, but text in PyYAML's YAML 1.1
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
    )


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Return text as a node; PyYAML writes one sign between single quotes that it reads as the end of a line."""
    style = '"' if "\x85" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _refuse_what_a_plan_does_not_need(text: str) -> None:
    """Look at a text's structure as it is read: PyYAML needs hours for some deep ones of permitted size.

    A tag makes it build what the text is not, and end with errors of any kind.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("aliases and anchors are not allowed")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_YAML_DEPTH} deep")


def load_yaml(text: str, *, source: str) -> Any:
    """Parse YAML without aliases, anchors, tags or repeated keys.

    Raises
    ------
    PlanError
        If it is too large, is not such YAML, or is not a mapping.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PLAN_BYTES:
        raise PlanError(f"{source} is larger than {MAX_PLAN_BYTES} bytes", todo="keep only the plan in it")
    try:
        _refuse_what_a_plan_does_not_need(text)
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, LookupError, ArithmeticError) as error:
        where = " ".join(str(error).split())
        raise PlanError(f"{source} is not readable YAML: {where}", todo="correct that line") from error
    if not isinstance(value, dict):
        raise PlanError(f"{source} holds no settings", todo="see docs/plan.md for an example")
    return value


def dump_yaml(value: Any) -> str:
    """Return parsed JSON as YAML that :func:`load_yaml` reads as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_inline(value: Any) -> str:
    """Return parsed JSON as one line of YAML, to stand behind a key."""
    return yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=2**31).strip()[1:-1]
