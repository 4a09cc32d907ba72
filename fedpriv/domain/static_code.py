"""What a file of a request does, read from its syntax tree; nothing of it is ever run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from fedpriv.domain.finding import visible_name
from fedpriv.domain.static_names import Names, folded
from fedpriv.domain.static_rules import (
    ATTRIBUTES,
    DOTTED,
    HARMLESS,
    HARMLESS_DECORATORS,
    HOOK_METHODS,
    IMPORTABLE,
    PATH_READERS,
    SOFT_BUILTINS,
    STORED_METRICS,
    SYSTEM_PATHS,
    TELLING,
    TELLING_WORDS,
    Rule,
    words,
)

Seen = tuple[int, Rule]
"""A line, and what it does."""

_SAFE_DUNDERS = words(
    """__init__ __name__ __len__ __iter__ __next__ __enter__ __exit__ __call__ __doc__ __post_init__ __getitem__
    __main__ __future__ __add__ __eq__ __hash__ __repr__ __str__ __contains__ __mul__ __sub__ __lt__ __version__
    __all__ __annotations__ __setitem__ __new__ __aenter__ __aexit__ __neg__ __truediv__ __matmul__ __bool__"""
)
_WRITING = frozenset("wax+")
_FORMATTED_INSIDE = re.compile(r"\{[^{}]*__\w+__")


def code_findings(tree: ast.Module, own_modules: frozenset[str]) -> Iterator[Seen]:
    """Yield what a file does that a reader should know, line by line.

    Parameters
    ----------
    tree : ast.Module
        The file.
    own_modules : frozenset of str
        Top-level names of the request's own files: importing those needs no mention.
    """
    names = Names(tree)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    reader = _Reader(names, parents, own_modules)
    for node in ast.walk(tree):
        for look in _LOOKS.get(type(node), ()):
            yield from look(reader, node)


class _Reader:
    """Answers about one file that several looks need."""

    def __init__(self, names: Names, parents: dict[ast.AST, ast.AST], own_modules: frozenset[str]) -> None:
        self.names, self.parents, self.own = names, parents, own_modules

    def is_docstring(self, node: ast.AST) -> bool:
        return isinstance(self.parents.get(node), ast.Expr)

    def is_part_of_longer_name(self, node: ast.AST) -> bool:
        return isinstance(self.parents.get(node), ast.Attribute)


def _rule_of(dotted: str) -> Rule | None:
    """Return the rule of the longest beginning of a dotted name, or None if it needs no mention."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        beginning = ".".join(parts[:length])
        if beginning in HARMLESS:
            return None
        if beginning in DOTTED and not (beginning == "builtins" != dotted):
            rule = DOTTED[beginning]
            return rule._replace(does=f"{rule.does} ({visible_name(dotted.removeprefix('builtins.'))})")
    return None


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


# -- imports ---------------------------------------------------------------------------------------------------------


def _imports(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    for module in _imported_names(node):
        if module.partition(".")[0] in reader.own:
            continue
        rule = _rule_of(module)
        if rule is None and not any(module == name or module.startswith(f"{name}.") for name in IMPORTABLE):
            does = f"imports {visible_name(module)}, which the static check does not know"
            rule = Rule("warning", "unknown-import", does)
        elif rule is not None and rule.category != "unknown-import":
            rule = rule._replace(does=f"imports what {rule.does}")
        if rule is not None:
            yield _line(node), rule


def _imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [f"{node.module}.{alias.name}" if alias.name != "*" else node.module for alias in node.names]
    return []


def _star_imports(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        known = (node.module or "").partition(".")[0] in reader.own | {"math", "fedpriv"}
        does = "imports everything from a module without naming it"
        yield _line(node), Rule("information" if known else "warning", "unknown-import", does)


# -- names and attributes --------------------------------------------------------------------------------------------


def _uses(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    """Yield the rules of the dotted names that a whole chain such as ``os.path.join`` may stand for."""
    if reader.is_part_of_longer_name(node) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return
    for dotted in sorted(reader.names.meanings(node)):
        if isinstance(node, ast.Name) and _is_harmless_name(reader, node, dotted):
            continue
        if dotted in TELLING and dotted in DOTTED and not _is_import_alias(reader, node):
            does = f"hands the whole module {visible_name(dotted)} on, so that its use is not seen"
            yield _line(node), Rule("warning", "dynamic-code", does)
        if (rule := _rule_of(dotted)) is not None and rule.category != "unknown-import":
            yield _line(node), rule


def _is_harmless_name(reader: _Reader, node: ast.Name, dotted: str) -> bool:
    own = node.id in reader.names.stored | reader.names.parameters
    return own and dotted == f"builtins.{node.id}" and node.id in SOFT_BUILTINS


def _is_import_alias(reader: _Reader, node: ast.AST) -> bool:
    """Say whether a module is only given another name, which the check follows."""
    parent = reader.parents.get(node)
    return isinstance(parent, ast.Assign) and all(isinstance(target, ast.Name) for target in parent.targets)


def _attributes(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if not isinstance(node, ast.Attribute):
        return
    attr, where = node.attr, _line(node)
    known = any(_rule_of(dotted) for dotted in reader.names.meanings(node))
    if (rule := ATTRIBUTES.get(attr)) is not None and not known:
        yield where, rule._replace(does=f"{rule.does} (.{visible_name(attr)})")
    elif attr.startswith("__") and attr.endswith("__") and attr not in _SAFE_DUNDERS | set(ATTRIBUTES):
        yield where, Rule("warning", "introspection", f"uses Python's inner name {visible_name(attr)}")
    if attr in PATH_READERS and not reader.names.is_given(node.value):
        yield from _path_reads(reader, node)
    if attr in ("parent", "parents", "with_name") and reader.names.is_given(node.value):
        yield where, Rule("warning", "file-read", "leaves the folder that the context gives")


def _path_reads(reader: _Reader, node: ast.Attribute) -> Iterator[Seen]:
    call = reader.parents.get(node)
    if not isinstance(call, ast.Call) or call.func is not node or reader.names.meanings(node):
        return
    if node.attr == "open":
        yield from _opening(reader, call, call.args[:1], given=False)
    elif node.attr in ("read_text", "read_bytes", "glob"):
        yield _line(node), Rule("warning", "file-read", f"looks for or reads files (.{node.attr})")


# -- calls -----------------------------------------------------------------------------------------------------------


def _calls(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if not isinstance(node, ast.Call):
        return
    functions = reader.names.meanings(node.func)
    where = _line(node)
    if functions & {"builtins.open", "io.open"}:
        mode = node.args[1:2]
        given = bool(node.args) and reader.names.is_given(node.args[0])
        yield from _opening(reader, node, mode, given=given)
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "open" and reader.names.is_given(node.func.value):
        yield from _opening(reader, node, node.args[:1], given=True)
    if functions & {"builtins.getattr", "builtins.hasattr", "builtins.delattr", "builtins.setattr"}:
        yield from _by_name(reader, node, functions)
    if functions & {"operator.attrgetter", "operator.methodcaller"}:
        yield where, Rule("warning", "dynamic-code", "calls functions by their name as text")
    if any(name.endswith(".from_pretrained") for name in functions) or _attr_of(node) == "from_pretrained":
        yield from _pretrained(reader, node)
    if any(name.endswith("DataLoader") for name in functions):
        workers = next((word.value for word in node.keywords if word.arg == "num_workers"), None)
        if workers is not None and not (isinstance(workers, ast.Constant) and workers.value == 0):
            yield where, Rule("information", "subprocess", "lets PyTorch start processes that load the data")
    if _attr_of(node) in ("view", "astype") and any("int8" in ast.unparse(argument) for argument in node.args):
        yield where, Rule("information", "hidden-channel", "looks at numbers as single bytes")


def _attr_of(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def _opening(reader: _Reader, call: ast.Call, mode: list[ast.expr], *, given: bool) -> Iterator[Seen]:
    keyword = [word.value for word in call.keywords if word.arg == "mode"]
    text = folded((mode or keyword or [ast.Constant("r")])[0])
    if text is None:
        yield _line(call), Rule("danger", "file-write", "opens a file in a way that is only decided when it runs")
    elif set(text) & _WRITING:
        yield _line(call), Rule("danger", "file-write", "opens a file for writing")
    elif not given:
        yield _line(call), Rule("warning", "file-read", "opens a file that the context does not name")
    if any(word.arg in ("opener", None) for word in call.keywords):
        yield _line(call), Rule("warning", "file-read", "opens a file in an unusual way")


def _by_name(reader: _Reader, node: ast.Call, functions: set[str]) -> Iterator[Seen]:
    """Look at getattr, setattr and their like."""
    where, writes = _line(node), bool(functions & {"builtins.setattr", "builtins.delattr"})
    attr = folded(node.args[1]) if len(node.args) > 1 else None
    owners = reader.names.meanings(node.args[0]) if node.args else set()
    if writes and owners:
        yield where, Rule("danger", "replaced-code", f"changes {visible_name(min(owners))}")
    if attr is None:
        severity = "warning" if writes or owners or "builtins.getattr" in functions else "information"
        yield where, Rule(severity, "dynamic-code", "reaches something by a name that is only known when it runs")
        return
    if (rule := ATTRIBUTES.get(attr)) is not None:
        yield where, rule._replace(does=f"{rule.does} (by the text {visible_name(attr)!r})")
    for owner in sorted(owners):
        if (rule := _rule_of(f"{owner}.{attr}")) is not None:
            yield where, rule


def _pretrained(reader: _Reader, node: ast.Call) -> Iterator[Seen]:
    if node.args and folded(node.args[0]) is not None:
        yield _line(node), Rule("warning", "network", "asks for a model by name, which would be downloaded")
    for word in node.keywords:
        off = isinstance(word.value, ast.Constant) and not word.value.value
        if word.arg == "trust_remote_code" and not off:
            yield _line(node), Rule("danger", "dynamic-code", "runs code that comes with a model")


# -- texts and numbers -----------------------------------------------------------------------------------------------


def _texts(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or reader.is_docstring(node):
        return
    text, where = node.value, _line(node)
    if "://" in text:
        yield where, Rule("information", "network", "names an address on a network")
    if text.startswith(SYSTEM_PATHS) and len(text) > 2:
        yield where, Rule("warning", "file-read", f"names a place on this machine ({visible_name(text)})")
    if ".." in text.replace("\\", "/").split("/"):
        yield where, Rule("warning", "file-read", "names a folder above another")
    if _FORMATTED_INSIDE.search(text):
        yield where, Rule("warning", "introspection", "reaches into other code by the way a text is formatted")
    if text.startswith("__") and text.endswith("__") and len(text) > 4 and text not in _SAFE_DUNDERS:
        yield where, Rule("warning", "introspection", f"uses Python's inner name {visible_name(text)} as text")


def _pieces(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    """Look for telling words that are put together from pieces."""
    word = folded(node)
    if word is not None and word in TELLING_WORDS:
        yield _line(node), Rule("danger", "obfuscation", f"puts the word {visible_name(word)!r} together from pieces")


def _bytes(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes) and len(node.value) > 64:
        yield _line(node), Rule("warning", "obfuscation", f"holds {len(node.value)} bytes that are no text")


def _long_texts(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and not reader.is_docstring(node)
    if is_text and len(str(getattr(node, "value", ""))) > 1000:
        yield _line(node), Rule("warning", "obfuscation", "holds a very long text")


def _numbers(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    elements = getattr(node, "elts", [])
    whole = sum(isinstance(element, ast.Constant) and type(element.value) is int for element in elements)
    if whole > 64:
        yield _line(node), Rule("warning", "obfuscation", f"holds a list of {whole} numbers, which could be anything")


# -- definitions -----------------------------------------------------------------------------------------------------


def _definitions(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in HOOK_METHODS:
        does = f"defines {node.name}, which Python calls without its name being seen"
        yield _line(node), Rule(HOOK_METHODS[node.name], "hidden-hook", does)
    if isinstance(node, ast.ClassDef) and any(word.arg in ("metaclass", None) for word in node.keywords):
        yield _line(node), Rule("warning", "hidden-hook", "has a class made by other code (a metaclass)")
    for decorator in getattr(node, "decorator_list", []):
        bare = decorator.func if isinstance(decorator, ast.Call) else decorator
        meanings = reader.names.meanings(bare)
        is_setter = isinstance(bare, ast.Attribute) and bare.attr in ("setter", "getter")
        if not is_setter and not (meanings and all(name.startswith(HARMLESS_DECORATORS) for name in meanings)):
            yield _line(decorator), Rule("information", "hidden-hook", "wraps a function by other code (a decorator)")


# -- assignments -----------------------------------------------------------------------------------------------------


def _targets(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    """Look for changes to what was imported, and for odd metrics and adapters."""
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    for target in targets:
        for part in ast.walk(target) if target is not None else ():
            if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
                yield from _changes(reader, part)
                yield from _stored(reader, part)


def _changes(reader: _Reader, target: ast.Attribute | ast.Subscript) -> Iterator[Seen]:
    root = target
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    for owner in sorted(reader.names.meanings(target.value))[:1]:
        if owner.startswith("torch.backends"):
            yield _line(target), Rule("information", "replaced-code", f"sets {visible_name(owner)}")
        elif owner == "os.environ":
            yield _line(target), Rule("warning", "environment", "changes a setting of the program's surroundings")
        else:
            yield _line(target), Rule("danger", "replaced-code", f"changes {visible_name(owner)}")
    if isinstance(root, ast.Name) and root.id == "context" and "context" in reader.names.parameters:
        yield _line(target), Rule("information", "replaced-code", "changes what the context gave")


def _stored(reader: _Reader, target: ast.Attribute | ast.Subscript) -> Iterator[Seen]:
    if not isinstance(target, ast.Subscript):
        return
    into = ast.unparse(target.value)[-200:]
    if into.rpartition(".")[2] == "metrics":
        yield from _metric_name(target.slice, _line(target))
    if "adapter" in into:
        yield _line(target), Rule("information", "hidden-channel", "writes single values into the adapter")


def _metrics(reader: _Reader, node: ast.AST) -> Iterator[Seen]:
    """Look at what is called metrics: the argument of LocalOutcome, or a variable."""
    value: ast.AST | None = None
    if isinstance(node, ast.keyword) and node.arg == "metrics":
        value = node.value
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        value = node.value if any(isinstance(t, ast.Name) and t.id == "metrics" for t in targets) else None
    if isinstance(value, ast.Dict):
        for key in value.keys:
            if key is not None:
                yield from _metric_name(key, _line(key))
    elif isinstance(value, ast.DictComp) and not _renames_nothing(value):
        yield _line(value), Rule("warning", "metrics", "gives metrics names that are only known when it runs")


def _metric_name(key: ast.AST, line: int) -> Iterator[Seen]:
    if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
        yield line, Rule("warning", "metrics", "gives a metric a name that is only known when it runs")
    elif key.value not in STORED_METRICS:
        yield line, Rule("warning", "metrics", f"has a metric that no plan can list ({visible_name(key.value)})")


def _renames_nothing(comprehension: ast.DictComp) -> bool:
    """Say whether the keys are those of another mapping as they are."""
    first = comprehension.generators[0]
    target = first.target.elts[0] if isinstance(first.target, ast.Tuple) and first.target.elts else first.target
    same = isinstance(target, ast.Name) and isinstance(comprehension.key, ast.Name)
    return same and getattr(target, "id", "") == getattr(comprehension.key, "id", "?")


Look = Callable[[_Reader, ast.AST], Iterator[Seen]]
_LOOKS: dict[type[ast.AST], tuple[Look, ...]] = {
    ast.Import: (_imports,),
    ast.ImportFrom: (_imports, _star_imports),
    ast.Name: (_uses,),
    ast.Attribute: (_uses, _attributes),
    ast.Subscript: (_uses, _pieces),
    ast.Call: (_calls, _uses, _pieces),
    ast.BinOp: (_pieces,),
    ast.JoinedStr: (_pieces,),
    ast.Constant: (_texts, _bytes, _long_texts),
    ast.List: (_numbers,),
    ast.Tuple: (_numbers,),
    ast.Set: (_numbers,),
    ast.FunctionDef: (_definitions,),
    ast.AsyncFunctionDef: (_definitions,),
    ast.ClassDef: (_definitions,),
    ast.Assign: (_targets, _metrics),
    ast.AugAssign: (_targets,),
    ast.AnnAssign: (_targets, _metrics),
    ast.Delete: (_targets,),
    ast.For: (_targets,),
    ast.keyword: (_metrics,),
}
