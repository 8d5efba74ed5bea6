"""Public functions and methods that take or return tensors or arrays state their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "secateur"
FILES = sorted(SOURCE.rglob("*.py"))
PARTS = sorted({file.relative_to(SOURCE).parts[0] for file in FILES})
ARRAYS = {"Tensor", "ndarray", "NDArray"}
_DIMENSION = r"(?:\.\.\.|\w+(?: ?[-+*/] ?\w+| [a-z]\w*)*)"
SHAPE = re.compile(rf"\[{_DIMENSION}(?:, {_DIMENSION})*\]|\bscalars?\b|\bany shape\b|\bshapes? of\b", re.IGNORECASE)
_EXAMPLE = re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_in(annotation: ast.AST | None) -> set[str]:
    """The names of a type. What a callable takes and returns is its own matter and does not count."""
    if annotation is None:
        return set()
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return names_in(ast.parse(annotation.value, mode="eval"))
    if isinstance(annotation, ast.Subscript) and names_in(annotation.value) & {"Callable", "Literal", "Annotated"}:
        return set()
    if isinstance(annotation, ast.Attribute):
        return {annotation.attr}
    own = {annotation.id} if isinstance(annotation, ast.Name) else set()
    return own.union(*(names_in(child) for child in ast.iter_child_nodes(annotation)))


def aliases_of(tree: ast.Module) -> set[str]:
    """Names that a module gives to types of arrays, such as `Floats = NDArray[np.float64]`."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if all(name[0].isupper() and not name.isupper() for name in names) and names_in(node.value) & ARRAYS:
                found |= names
    return found


TREES = {file: ast.parse(file.read_text()) for file in FILES}
ALIASES = set().union(*(aliases_of(tree) for tree in TREES.values()))


def arrays_of(tree: ast.Module) -> set[str]:
    """The names of array types in a file: the usual ones, its own and the imported ones."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("secateur")
        for alias in node.names
        if alias.name in ALIASES
    }
    return ARRAYS | imported | aliases_of(tree)


def is_overload(node: Function) -> bool:
    """Whether it only declares types for another function."""
    return any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list)


def functions_of(body: list[ast.stmt], qualifier: str = "", outer: str = "") -> Iterator[tuple[str, Function, str]]:
    """Public functions and methods with their names and the docstrings of their classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions_of(node.body, f"{qualifier}{node.name}.", f"{outer}\n{ast.get_docstring(node) or ''}")
        elif isinstance(node, Function) and not node.name.startswith("_") and not is_overload(node):
            yield qualifier + node.name, node, outer


def faults_in(tree: ast.Module) -> list[str]:
    """Functions of a file that name arrays in their signature and no shape in the docstring."""
    arrays, faults = arrays_of(tree), []
    for name, node, outer in functions_of(tree.body):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        types = set().union(names_in(node.returns), *(names_in(one.annotation) for one in every))
        text = _EXAMPLE.sub("", f"{ast.get_docstring(node) or ''}\n{outer}")
        if types & arrays and not SHAPE.search(" ".join(text.split())):
            faults.append(name)
    return faults


@pytest.mark.parametrize("part", PARTS)
def test_shapes_are_stated(part: str) -> None:
    faults = [
        f"{file.relative_to(SOURCE)}: {name}"
        for file, tree in TREES.items()
        if file.relative_to(SOURCE).parts[0] == part
        for name in faults_in(tree)
    ]
    assert not faults, "say the shape, as '[B, C, H, W]', '[n]', 'scalar' or 'any shape': " + ", ".join(faults)


def test_a_missing_shape_is_found() -> None:
    source = '''
from secateur.pruning.graph import Floats

Singles = NDArray[np.float32]


def bare(image: Tensor) -> None:
    """An image in 0..1."""


def example(values: Floats) -> None:
    """Values.

    >>> example([1, 2])
    """


def optional(values: "Singles | None" = None) -> dict[str, int]:
    """Values."""


def stated(images: Tensor) -> Floats:
    """The means [B] of images [B, 3, H, W] in 0..1."""


def callback(measure: Callable[[Tensor], Tensor]) -> None:
    """Something else."""


@overload
def bare(image: Tensor, flag: bool) -> None: ...


class Layer:
    """Takes maps [B, channels + 1, H, W]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """One pass."""

    def _hidden(self, images: Tensor) -> None:
        pass


class Other:
    def forward(self, images: Tensor) -> Tensor:
        """One pass."""
'''
    assert faults_in(ast.parse(source)) == ["bare", "example", "optional", "Other.forward"]
