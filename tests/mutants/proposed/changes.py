"""Proposes small changes of a module: with the operators of mutmut, and with a few for what those leave alone.

What cannot be a fault is not proposed: annotations, the words of messages, assertions, limits that were measured, and
a change that compiles to the same code.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import deep_replace
from mutmut.mutation.mutators import (
    mutation_operators,
    operator_arg_removal,
    operator_assignment,
    operator_if_exp,
    operator_string,
)

Operator: TypeAlias = Callable[[Any], Iterable[cst.CSTNode]]

SWAPPED: Final = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "bisect_left": "bisect_right",
    "bisect_right": "bisect_left",
    "popleft": "pop",
    "appendleft": "append",
}
NARROWED: Final[dict[type[cst.BaseCompOp], cst.BaseCompOp]] = {
    cst.LessThan: cst.NotEqual(),
    cst.GreaterThan: cst.NotEqual(),
    cst.LessThanEqual: cst.Equal(),
    cst.GreaterThanEqual: cst.Equal(),
}
# What is left alone, with all that is in it.
SKIPPED: Final = m.OneOf(
    m.Annotation(),
    m.Assert(),
    m.If(test=m.Name("TYPE_CHECKING")),
    m.ImportFrom(),
    m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias"))),
    m.Call(func=m.Name("TypeVar")),
    m.AnnAssign(annotation=m.Annotation(m.Name("Final")), value=m.Integer()),  # a matter of measurements
    m.Assign(targets=[m.AssignTarget(m.Name("__slots__"))]),
    m.FunctionDef(decorators=[m.AtLeastN(m.Decorator(m.Name("overload")), n=1)]),
)
WORDS: Final = m.OneOf(m.SimpleString(), m.FormattedString(), m.ConcatenatedString())
REMOVED: Final = m.OneOf(
    m.Expr(m.OneOf(m.Call(), m.Await())), m.Assign(), m.AugAssign(), m.Del(), m.Raise(), m.Return()
)


class Change(NamedTuple):
    """One change of one module; its name is what it says."""

    file: str
    where: str  # the class and function
    old: str
    new: str
    occurrence: int  # of those that read the same
    lines: range  # of what is changed; a test that runs none of them cannot notice
    source: str  # of the whole module with the change
    digest: str  # of the function as it is; what was found out about the change holds until that changes

    @property
    def name(self) -> str:
        number = f" ({self.occurrence})" if self.occurrence > 1 else ""
        lines = f"{self.file}: {self.where}{number}", f"- {self.old}", f"+ {self.new}"
        return "\n".join(line.rstrip() for line in lines)  # as in judged.txt


def removed_statement(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    is_value = m.matches(node.body[0], m.AnnAssign()) and not m.matches(node.body[0], m.AnnAssign(value=None))
    if is_value or m.matches(node.body[0], REMOVED):
        yield node.with_changes(body=[cst.Pass()])


def one_operand(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    for side in (node.left, node.right):
        yield side.with_changes(lpar=[*side.lpar, cst.LeftParen()], rpar=[*side.rpar, cst.RightParen()])


def narrowed(node: cst.ComparisonTarget) -> Iterator[cst.CSTNode]:
    if (other := NARROWED.get(type(node.operator))) is not None:
        yield node.with_changes(operator=other)


def one_less(node: cst.Integer) -> Iterator[cst.CSTNode]:
    if node.evaluated_value:
        yield node.with_changes(value=str(node.evaluated_value - 1))


def other_function(node: cst.Call) -> Iterator[cst.CSTNode]:
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    if isinstance(name, cst.Name) and name.value in SWAPPED:
        yield node.with_deep_changes(name, value=SWAPPED[name.value])


def no_loop(node: cst.While) -> Iterator[cst.CSTNode]:
    yield node.with_changes(test=cst.Name("False"))


def other_string(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    """One of those that mutmut has: the others tell nothing more."""
    yield from list(operator_string(node))[:1]


OPERATORS: Final[Sequence[tuple[type[cst.CSTNode], Operator]]] = (
    *((kind, operator) for kind, operator in mutation_operators if operator is not operator_string),
    (cst.SimpleString, other_string),
    (cst.If, operator_if_exp),  # always and never, as for the conditional expression
    (cst.CompIf, operator_if_exp),
    (cst.While, no_loop),
    (cst.SimpleStatementLine, removed_statement),
    (cst.BooleanOperation, one_operand),
    (cst.ComparisonTarget, narrowed),
    (cst.Integer, one_less),
    (cst.Call, other_function),
)
# Outside of functions nothing works after these.
IN_FUNCTIONS: Final = (removed_statement, operator_assignment, operator_arg_removal)


class _Found(NamedTuple):
    node: cst.CSTNode
    other: cst.CSTNode
    where: str
    lines: range
    owner: cst.CSTNode  # the outermost function, or the statement outside of functions


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Found] = []
        self._path: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        self._path.append(node)
        if m.matches(node, SKIPPED) or self._is_in_message(node):
            return False
        if m.matches(node, m.Call(func=m.Name("cast"))):  # the type is for the type checker
            assert isinstance(node, cst.Call)
            node.args[1].visit(self)
            return False
        if not self._is_message(node):
            self._find(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._path.pop()

    def _find(self, node: cst.CSTNode) -> None:
        position = self.get_metadata(PositionProvider, node, None)
        lines = range(position.start.line, position.end.line + 1) if position else range(0)
        where = ".".join(
            each.name.value for each in self._path if isinstance(each, cst.FunctionDef | cst.ClassDef)
        )
        owner = self._owner()
        for kind, operator in OPERATORS:
            if isinstance(node, kind) and (
                isinstance(owner, cst.FunctionDef) or operator not in IN_FUNCTIONS
            ):
                self.found += (_Found(node, other, where, lines, owner) for other in operator(node))

    def _is_in_message(self, node: cst.CSTNode) -> bool:
        return m.matches(node, WORDS) and any(
            m.matches(each, m.OneOf(m.Raise(), m.FunctionDef(m.OneOf(m.Name("__repr__"), m.Name("__str__")))))
            for each in self._path
        )

    def _is_message(self, node: cst.CSTNode) -> bool:
        return (
            isinstance(node, cst.Call)
            and all(m.matches(each.value, WORDS) for each in node.args)
            and any(isinstance(each, cst.Raise) for each in self._path)
        )

    def _owner(self) -> cst.CSTNode:
        functions = [each for each in self._path if isinstance(each, cst.FunctionDef)]
        statements = [
            each for each in self._path if isinstance(each, cst.BaseStatement | cst.SimpleStatementLine)
        ]
        return (functions or statements[::-1] or self._path[::-1])[0]


def propose(file: str, source: str) -> Iterator[Change]:
    """All changes of one module, each once."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = _Finder()
    wrapper.visit(finder)
    seen = {_compiled(source)}
    occurrences: Counter[tuple[str, str, str]] = Counter()
    for found in finder.found:
        changed = deep_replace(wrapper.module, found.node, found.other)
        assert isinstance(changed, cst.Module)
        text = changed.code
        try:
            code = _compiled(text)
        except SyntaxError:
            continue
        if code in seen:
            continue
        seen.add(code)
        old, new = _difference(source, text)
        occurrences[found.where, old, new] += 1
        digest = hashlib.sha256(wrapper.module.code_for_node(found.owner).encode()).hexdigest()[:16]
        occurrence = occurrences[found.where, old, new]
        yield Change(file, found.where, old, new, occurrence, found.lines, text, digest)


def _compiled(source: str) -> CodeType:
    return without_lines(compile(source, "", "exec", dont_inherit=True))


def without_lines(code: CodeType) -> CodeType:
    """The same code, wherever it stands in its file."""
    constants = tuple(without_lines(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_consts=constants, co_firstlineno=1, co_linetable=b"")


def _difference(old: str, new: str) -> tuple[str, str]:
    """What is not in both, each part as one line."""
    before, after = old.splitlines(), new.splitlines()
    pairs = enumerate(zip(before, after, strict=False))
    start = next((at for at, (left, right) in pairs if left != right), min(len(before), len(after)))
    while min(len(before), len(after)) > start + 1 and before[-1] == after[-1]:
        del before[-1], after[-1]
    return _one_line(before[start:]), _one_line(after[start:])


def _one_line(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines)
