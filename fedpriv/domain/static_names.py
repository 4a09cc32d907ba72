"""What the names in a piece of code stand for, as far as can be seen without running it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator

from fedpriv.domain.static_rules import GIVEN_PATHS, TELLING

_MOST_NAMES = 8
_MOST_CHARACTERS = 200
_PASSES = 4
_BUILTINS = frozenset(dir(builtins)) | {"__builtins__", "__file__", "__loader__", "__spec__"}
_NAMESPACES = ("builtins.globals", "builtins.locals", "builtins.vars")
_IMPORTERS = ("builtins.__import__", "importlib.import_module", "importlib.__import__")


class Names:
    """The meanings of one file's names, without regard to scopes: a name may have several, and all of them count.

    Parameters
    ----------
    tree : ast.Module
        The file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._meanings: dict[str, set[str]] = {}
        self.parameters = {arg.arg for node in self._nodes if isinstance(node, ast.arguments) for arg in _args(node)}
        self.stored = {node.id for node in self._nodes if isinstance(node, ast.Name) and not _is_load(node)}
        self.imported: set[str] = set()
        self.stars: list[str] = []
        self._read_imports()
        for _ in range(_PASSES):
            if not self._read_assignments():
                break
        self.given = self._given_names()

    # -- meanings --------------------------------------------------------------------------------------------

    def meanings(self, node: ast.AST) -> set[str]:
        """Return the dotted names that an expression may stand for, such as ``os.system``; empty if unknown."""
        found: set[str] = set()
        match node:
            case ast.Name(id=name):
                found = set(self._meanings.get(name, ()))
                if name in _BUILTINS and not found:
                    found.add(f"builtins.{name}")
                found |= {f"{star}.{name}" for star in self.stars}
            case ast.Attribute(value=value, attr=attr):
                found = {f"{base}.{attr}" for base in self.meanings(value)}
            case ast.Subscript(value=value, slice=key):
                found = self._of_subscript(value, key)
            case ast.Call():
                found = self._of_call(node)
            case ast.NamedExpr(value=value):
                found = self.meanings(value)
            case ast.IfExp(body=body, orelse=orelse):
                found = self.meanings(body) | self.meanings(orelse)
            case ast.BoolOp(values=values):
                found = {name for value in values for name in self.meanings(value)}
        return {telling(name) for name in found if len(name) <= _MOST_CHARACTERS}

    def _of_subscript(self, value: ast.expr, key: ast.expr) -> set[str]:
        text, bases = folded(key), self.meanings(value)
        if text is None:
            return set()
        if "sys.modules" in bases:
            return {text}
        if bases & {"builtins.__builtins__", "builtins"}:
            return {f"builtins.{text}"}
        found = {f"{base.removesuffix('.__dict__')}.{text}" for base in bases if base.endswith(".__dict__")}
        if isinstance(value, ast.Call) and self.meanings(value.func) & set(_NAMESPACES):
            owners = [name for argument in value.args for name in self.meanings(argument)]
            found |= {f"{owner}.{text}" for owner in owners} or self.meanings(ast.Name(text, ast.Load()))
        return found

    def _of_call(self, node: ast.Call) -> set[str]:
        functions = self.meanings(node.func)
        arguments = node.args
        if functions & set(_IMPORTERS) and arguments and (module := folded(arguments[0])):
            return {module}
        if "builtins.getattr" in functions and len(arguments) > 1 and (attr := folded(arguments[1])):
            return {f"{base}.{attr}" for base in self.meanings(arguments[0])}
        return set()

    # -- what gives a name its meaning -----------------------------------------------------------------------

    def _read_imports(self) -> None:
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self._learn(alias.asname or top, {alias.name if alias.asname else top})
                    self.imported.add(alias.asname or top)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(node.module)
                    else:
                        self._learn(alias.asname or alias.name, {telling(f"{node.module}.{alias.name}")})
                        self.imported.add(alias.asname or alias.name)
        del self.stars[_MOST_NAMES:]

    def _read_assignments(self) -> bool:
        learned = False
        for node in self._nodes:
            for target, value in _assigned(node):
                if isinstance(target, ast.Name):
                    learned |= self._learn(target.id, self.meanings(value))
        return learned

    def _learn(self, name: str, meanings: set[str]) -> bool:
        known = self._meanings.setdefault(name, set())
        before = len(known)
        known |= set(sorted(meanings - known)[: _MOST_NAMES - before]) if before < _MOST_NAMES else set()
        return len(known) > before

    # -- the paths that the context gives --------------------------------------------------------------------

    def is_given(self, node: ast.AST) -> bool:
        """Say whether an expression is one of the context's paths, or a file right below one."""
        match node:
            case ast.Name(id=name):
                return name in self.given
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                return attr in GIVEN_PATHS and name in self.parameters
            case (
                ast.BinOp(left=left, op=ast.Div(), right=right)
                | ast.Call(func=ast.Attribute(value=left, attr="joinpath"), args=[right])
            ):
                name = folded(right)
                return self.is_given(left) and name is not None and ".." not in name and not name.startswith("/")
            case ast.Call(func=function, args=[first]):
                return bool(self.meanings(function) & _PATH_MAKERS) and self.is_given(first)
        return False

    def _given_names(self) -> set[str]:
        self.given: set[str] = set()
        for _ in range(_PASSES):
            found = {
                target.id
                for node in self._nodes
                for target, value in _assigned(node)
                if isinstance(target, ast.Name) and self.is_given(value)
            }
            found |= self._given_parameters()
            if found <= self.given:
                break
            self.given |= found
        return self.given

    def _given_parameters(self) -> set[str]:
        """Return the parameters of this file's functions that are only ever called with a given path."""
        functions = {node.name: node for node in self._nodes if isinstance(node, ast.FunctionDef)}
        good: set[str] = set()
        bad: set[str] = set()
        for call in self._nodes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
                names = [arg.arg for arg in functions[call.func.id].args.args]
                for name, value in zip(names, call.args, strict=False):
                    (good if self.is_given(value) else bad).add(name)
        return good - bad


_PATH_MAKERS = {"pathlib.Path", "builtins.str", "os.fspath", "pathlib.PurePath"}


def telling(dotted: str) -> str:
    """Return a dotted name from the first module on that is grave wherever it is: ``torch.os.fork`` is ``os.fork``."""
    parts = dotted.split(".")
    for number, part in enumerate(parts[1:], 1):
        bare = part.lstrip("_")
        if (
            bare in TELLING
            and bare != parts[number - 1].lstrip("_")
            and not (parts[0] == "torch" and number == 1 and bare in ("multiprocessing", "signal"))
        ):
            if parts[0] == "builtins" and bare == "code":
                continue
            return ".".join([bare, *parts[number + 1 :]])
    return dotted


def folded(node: ast.AST, depth: int = 0) -> str | None:  # noqa: PLR0911 - one for each shape
    """Return the text that an expression is, if it is put together from constants only, else None."""
    if depth > 40:
        return None
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(data)):
            return data.decode("latin-1")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [folded(left, depth + 1), folded(right, depth + 1)]
            return None if None in parts else "".join(filter(None, parts))
        case ast.JoinedStr(values=values):
            return _joined("", values, depth)
        case ast.FormattedValue(value=value):
            return folded(value, depth + 1)
        case ast.Subscript(value=value, slice=ast.Slice(lower=None, upper=None, step=ast.UnaryOp(op=ast.USub()))):
            text = folded(value, depth + 1)
            return None if text is None else text[::-1]
        case ast.Call(func=ast.Name(id="chr"), args=[ast.Constant(value=int(number))]) if 0 <= number < 0x110000:
            return chr(number)
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args):
            return _folded_method(value, attr, args, depth)
    return None


def _folded_method(value: ast.expr, attr: str, args: list[ast.expr], depth: int) -> str | None:
    text = folded(value, depth + 1)
    if text is None:
        return None
    match attr, args:
        case "join", [ast.List(elts=parts) | ast.Tuple(elts=parts)]:
            return _joined(text, parts, depth)
        case (("lower" | "strip" | "decode" | "upper" | "encode"), []):
            return text.upper() if attr == "upper" else text.lower() if attr == "lower" else text.strip()
        case "replace", [old, new]:
            old_text, new_text = folded(old, depth + 1), folded(new, depth + 1)
            return None if not old_text or new_text is None or len(text) > 1000 else text.replace(old_text, new_text)
    return None


def _joined(separator: str, nodes: Iterable[ast.AST], depth: int) -> str | None:
    parts = [folded(node, depth + 1) for node in nodes]
    return None if None in parts else separator.join(part for part in parts if part is not None)


def _assigned(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr]]:
    """Yield pairs of target and value that a node gives; tuples are taken apart."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _paired(target, value)
        case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
            yield target, value
        case ast.arguments():
            positional = [*node.posonlyargs, *node.args]
            defaults = node.defaults
            yield from zip(map(_name_of, positional[len(positional) - len(defaults) :]), defaults, strict=True)
            yield from (
                (_name_of(arg), value) for arg, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value
            )
        case ast.For(target=target, iter=ast.List(elts=values) | ast.Tuple(elts=values)):
            for value in values:
                yield from _paired(target, value)


def _paired(target: ast.AST, value: ast.expr) -> Iterator[tuple[ast.AST, ast.expr]]:
    both = (target, value)
    if all(isinstance(side, ast.Tuple | ast.List) for side in both):
        targets, values = (getattr(side, "elts", []) for side in both)
        if len(targets) == len(values):
            for pair in zip(targets, values, strict=True):
                yield from _paired(*pair)
            return
    yield target, value


def _name_of(arg: ast.arg) -> ast.Name:
    return ast.Name(arg.arg, ast.Store())


def _args(arguments: ast.arguments) -> list[ast.arg]:
    extra = [arg for arg in (arguments.vararg, arguments.kwarg) if arg]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _is_load(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)
