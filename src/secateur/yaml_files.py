"""The one reader of YAML files: plain data, or one sentence that names the file and the line.

PyYAML's safe loader runs nothing, but a short file can stand for a long one (aliases), nest without end, and fail in
its constructors with any exception. So a file is composed to nodes first, those are counted, and only then values
are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from secateur.errors import UserError, shown, told
from secateur.limits import MAX_YAML, MAX_YAML_DEPTH, MAX_YAML_VALUES

_MOST_DIGITS = 400
"""Characters of a number; 1.8e308, the largest that a computer counts with, has 309 digits."""


class _RefusedError(Exception):
    """What is wrong, and on which line (from 0)."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops at nesting that would exhaust the stack, and at too many values."""

    depth = values = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """One node with what is in it."""
        self.depth, self.values = self.depth + 1, self.values + 1
        if self.values > MAX_YAML_VALUES:
            raise _RefusedError(f"it has more than {MAX_YAML_VALUES:,} values", self.line)
        if self.depth > MAX_YAML_DEPTH:
            raise _RefusedError(f"it is nested more than {MAX_YAML_DEPTH} levels deep", self.line)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node; what its constructor fails with names the line."""
        try:
            return super().construct_object(node, deep)
        except (_RefusedError, yaml.YAMLError):
            raise
        except Exception as error:  # dates, numbers and tagged values fail in their own ways
            text = shown(node.value) if isinstance(node, ScalarNode) else "a list or a mapping"
            kind = node.tag.rpartition(":")[2]
            raise _RefusedError(f"{text} cannot be read as {kind}", node.start_mark.line) from error


def read_yaml(path: str | Path, what: str = "file") -> Any:
    """The content of a YAML file: dicts whose keys are words or numbers, lists, text, numbers, dates.

    Args:
        path: the file, UTF-8.
        what: of which kind it is, for sentences: "data file", "recipe".

    Raises:
        UserError: it cannot be read, is no YAML, or declares more than `limits` allows; names the file and the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the {what} {path}: {told(getattr(error, 'strerror', '') or error)}.") from error
    if len(content) > MAX_YAML:
        raise UserError(f"The {what} {path} has more than {MAX_YAML:,} bytes; a YAML file of that size is a mistake.")
    return parse_yaml(content, f"The {what} {path}")


def parse_yaml(content: bytes | str, origin: str) -> Any:
    """What YAML text says, as `read_yaml` gives it.

    Args:
        content: UTF-8 where it is bytes.
        origin: the subject of sentences: "The recipe fast.yaml".

    Raises:
        UserError: it is no YAML, or declares more than `limits` allows; names the line.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        loader = _Loader(text)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{origin}, line {line} is not valid YAML: it is no UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{origin}{_place(error)} is not valid YAML: {_reason(error)}.") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except _RefusedError as error:
        raise UserError(f"{origin}, line {error.line + 1} cannot be used: {error}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{origin}{_place(error)} is not valid YAML: {_reason(error)}.") from error
    finally:
        loader.dispose()


def _check(root: Node) -> None:
    """Refuses nodes that stand for too many values, tags and keys that are none of plain data."""
    _measure(root, {}, set())


def _measure(node: Node, sizes: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Values and levels that a node stands for, its aliases followed; every node is looked at once."""
    if id(node) in above:
        raise _RefusedError("a list or a mapping in it contains itself", node.start_mark.line)
    if id(node) in sizes:
        return sizes[id(node)]
    line = node.start_mark.line
    if not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in str(node.tag):
        raise _RefusedError(f"it has the tag {shown(node.tag)}, and only plain values are read", line)
    inner: list[Node] = []
    if isinstance(node, MappingNode):
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise _RefusedError("the name before a colon must be a word or a number", key.start_mark.line)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, SequenceNode):
        inner = node.value
    elif node.tag.endswith((":int", ":float")) and len(node.value) > _MOST_DIGITS:
        raise _RefusedError(f"a number of {len(node.value):,} digits", line)
    above.add(id(node))
    parts = [_measure(part, sizes, above) for part in inner]
    above.remove(id(node))
    values, levels = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
    if values > MAX_YAML_VALUES:
        raise _RefusedError(f"it stands for more than {MAX_YAML_VALUES:,} values", line)
    if levels > MAX_YAML_DEPTH:
        raise _RefusedError(f"it is nested more than {MAX_YAML_DEPTH} levels deep", line)
    sizes[id(node)] = values, levels
    return values, levels


def _place(error: BaseException) -> str:
    """ ", line 3", where an error knows it."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: BaseException) -> str:
    """What PyYAML says is wrong, without its excerpts of the file."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.reader.ReaderError):
        return f"it has the character #x{int(error.character):04x}, which no text has"
    return told(getattr(error, "problem", None) or getattr(error, "context", None) or type(error).__name__)
