"""Changes single settings in the text of a plan, and leaves everything else as a person wrote it, comments included."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from fedpriv.errors import PlanError
from fedpriv.study.yaml_text import dump_inline, dump_yaml, load_yaml

Path = tuple[str, ...]
"""Where a setting is, such as ``("training", "rounds")``."""

SOURCE = "plan.yaml"


def put(text: str, changes: Mapping[Path, Any]) -> str:
    """Return a plan's text with other values at some paths.

    *Guarantee*: what is returned is read as the same values but for the changes. Lines that hold no changed value stay
    as they are, wherever the text is laid out as people and fedpriv lay it out; else it is written anew.

    Parameters
    ----------
    text : str
        YAML that can be read, with a mapping at its top.
    changes : mapping of path to value
        JSON; sections on the way that are not there are made.

    Raises
    ------
    PlanError
        If the text cannot be read.
    """
    for path, value in changes.items():
        text = _put_one(text, path, value)
    return text


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line, from 1, of what a path names, or of the nearest that there is around it; 0 for the whole."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return 0
    line = 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = _pair(node, str(part))
            if pair is None:
                break
            line, node = line_at(text, pair[0].start_mark), pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = line_at(text, node.start_mark)
        else:
            break
    return line


def line_at(text: str, mark: yaml.Mark) -> int:
    """Return the line of a mark, from 1, as an editor counts: to YAML three rare signs end a line, too."""
    return text.count("\n", 0, mark.index) + 1


def _put_one(text: str, path: Path, value: Any) -> str:
    wanted = _with(load_yaml(text, source=SOURCE), path, value)
    edited = _edited(text, path, value)
    try:
        if load_yaml(edited, source=SOURCE) == wanted:
            return edited
    except PlanError:
        pass
    return dump_yaml(wanted)


def _with(values: Any, path: Path, value: Any) -> Any:
    """Return a copy of nested mappings with another value at a path."""
    if not path:
        return value
    inner = copy.deepcopy(values) if isinstance(values, dict) else {}
    return {**inner, path[0]: _with(inner.get(path[0]), path[1:], value)}


def _edited(text: str, path: Path, value: Any) -> str:
    """Return the text with one value in place of another, or with one more line; it is checked by who asked."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    depth = 0
    parent = key = None
    while isinstance(node, yaml.MappingNode) and depth < len(path):
        pair = _pair(node, path[depth])
        if pair is None:
            return _inserted(text, node, path[depth], _with(None, path[depth + 1 :], value))
        parent, (key, node) = node, pair
        depth += 1
    if node is None or key is None or parent is None:
        return dump_yaml(_with(None, path, value))
    new = _with(None, path[depth:], value)
    begin = text.index(":", key.end_mark.index) + 1
    if isinstance(node, yaml.ScalarNode) and not isinstance(new, dict) and node.end_mark.index > node.start_mark.index:
        return text[: node.start_mark.index] + dump_inline(new) + text[_end(text, node) :]
    return text[:begin] + _behind_key(parent, new) + text[max(begin, _end(text, node)) :]


def _pair(node: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _inserted(text: str, mapping: yaml.MappingNode, name: str, value: Any) -> str:
    """Return the text with one more setting at the end of a mapping."""
    entry = f"{name}:{_behind_key(mapping, value)}"
    if mapping.flow_style:
        end = mapping.end_mark.index - 1
        return text[:end].rstrip() + (", " if mapping.value else "") + entry + text[end:]
    end = _end(text, mapping)
    line_end = text.find("\n", end)
    at = len(text) if line_end < 0 else line_end
    return f"{text[:at]}\n{' ' * mapping.start_mark.column}{entry}{text[at:]}"


def _behind_key(mapping: yaml.MappingNode, value: Any) -> str:
    """Return a value as it stands behind the colon: a section of a block in lines of its own, all else in the line."""
    if not isinstance(value, dict) or not value or mapping.flow_style:
        return f" {dump_inline(value)}"
    indent = " " * (mapping.start_mark.column + 2)
    return "".join(f"\n{indent}{line}" for line in dump_yaml(value).splitlines())


def _end(text: str, node: yaml.Node) -> int:
    """Return where a node's own characters end: PyYAML counts what follows a block to it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        inner = _end(text, last[1] if isinstance(last, tuple) else last)
        return max(inner, text.index(":", last[0].end_mark.index) + 1) if isinstance(last, tuple) else inner
    end = node.end_mark.index
    return len(text[:end].rstrip()) if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else end
