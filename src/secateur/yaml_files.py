"""Reads YAML files as plain data. Errors name the file and the line.

PyYAML's safe loader executes no code, but a short file can expand to a huge one (aliases), nest without limit, or raise
any exception in its constructors. Therefore a file is first composed to nodes, the nodes are counted, and only then
converted to values. The safe loader also keeps the last of two equal keys and converts some words to numbers, dates and
booleans (`01`, `no`, `12:30`). Here, equal keys are an error, and values that a caller needs as text are not converted.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from secateur.errors import UserError, shown, told
from secateur.limits import MAX_YAML, MAX_YAML_DEPTH, MAX_YAML_VALUES

_MOST_DIGITS = 400
"""Longest number in characters; 1.8e308, the largest double, has 309 digits."""


class _RefusedError(Exception):
    """The reason for a rejection and its line, counted from 0."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits on nesting depth and number of values."""

    depth = values = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Composes one node and its content."""
        self.depth, self.values = self.depth + 1, self.values + 1
        if self.values > MAX_YAML_VALUES:
            raise _RefusedError(f"it has more than {MAX_YAML_VALUES:,} values", self.line)
        if self.depth > MAX_YAML_DEPTH:
            raise _RefusedError(f"it is nested more than {MAX_YAML_DEPTH} levels deep", self.line)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node. If the constructor fails, the error names the line."""
        try:
            return super().construct_object(node, deep)
        except (_RefusedError, yaml.YAMLError):
            raise
        except Exception as error:  # constructors of dates, numbers and tagged values raise various exceptions
            text = shown(node.value) if isinstance(node, ScalarNode) else "a list or a mapping"
            kind = node.tag.rpartition(":")[2]
            raise _RefusedError(f"cannot read {text} as {kind}", node.start_mark.line) from error


def read_yaml(path: str | Path, what: str = "file", *, texts: Collection[str] = (), paths: Collection[str] = ()) -> Any:
    """Reads a YAML file: mappings whose keys are words or numbers, lists, text, numbers, dates.

    Args:
        path: the file, in UTF-8.
        what: kind of file for error messages: "data file", "recipe".
        texts: top-level keys whose lists and mappings are kept as text: `no` is "no", `~` is "~".
        paths: top-level keys whose values are kept as text except null and booleans: `2024` is "2024", `~` is None.

    Raises:
        UserError: the file cannot be read, is not YAML, has two equal keys in one mapping, or exceeds `limits`. The
            message names the file and the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the {what} {path}: {told(getattr(error, 'strerror', '') or error)}.") from error
    if len(content) > MAX_YAML:
        raise UserError(
            f"The {what} {path} has more than {MAX_YAML:,} bytes, the maximum for a YAML file. Check that it is "
            "the right file."
        )
    return parse_yaml(content, f"The {what} {path}", texts=texts, paths=paths)


def parse_yaml(content: bytes | str, origin: str, *, texts: Collection[str] = (), paths: Collection[str] = ()) -> Any:
    """Parses YAML text; returns the same as `read_yaml`.

    Args:
        content: text, or bytes in UTF-8.
        origin: subject of error messages: "The recipe fast.yaml".
        texts, paths: as for `read_yaml`.

    Raises:
        UserError: the text is not YAML, has two equal keys in one mapping, or exceeds `limits`. The message names the
            line.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        loader = _Loader(text)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{origin}, line {line} is not valid YAML: the text is not UTF-8.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{origin}{_place(error)} is not valid YAML: {_reason(error)}.") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        if isinstance(node, MappingNode):
            node.value = [(key, _as_written(key, value, texts, paths)) for key, value in node.value]
        _check_keys(node, loader, set())
        return loader.construct_document(node)
    except _RefusedError as error:
        raise UserError(f"{origin}, line {error.line + 1} cannot be used: {error}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{origin}{_place(error)} is not valid YAML: {_reason(error)}.") from error
    finally:
        loader.dispose()


def _measure(node: Node, sizes: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Number of values and depth of a node with its aliases expanded. Every node is visited once.

    Raises:
        _RefusedError: a limit is exceeded, or a tag or a key is not plain data.
    """
    if id(node) in above:
        raise _RefusedError("a list or a mapping in it contains itself", node.start_mark.line)
    if id(node) in sizes:
        return sizes[id(node)]
    line = node.start_mark.line
    if not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in str(node.tag):
        raise _RefusedError(f"the tag {shown(node.tag)} is not supported; only plain values are read", line)
    inner: list[Node] = []
    if isinstance(node, MappingNode):
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise _RefusedError("a key must be a word or a number", key.start_mark.line)
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
        raise _RefusedError(f"it expands to more than {MAX_YAML_VALUES:,} values", line)
    if levels > MAX_YAML_DEPTH:
        raise _RefusedError(f"it is nested more than {MAX_YAML_DEPTH} levels deep", line)
    sizes[id(node)] = values, levels
    return values, levels


def _as_written(key: Node, value: Node, texts: Collection[str], paths: Collection[str]) -> Node:
    """The value of a top-level key, converted to text if the caller needs it so."""
    if key.value in texts and not isinstance(value, ScalarNode):
        return _as_text(value, ("merge",))
    if key.value in texts:
        return _as_text(value, ("null",))  # a key without a value
    return _as_text(value, ("merge", "null", "bool")) if key.value in paths else value


def _as_text(node: Node, but: Collection[str]) -> Node:
    """A copy whose scalars are text, except those with certain tags. Other references to the same alias are not
    affected.
    """
    if isinstance(node, MappingNode):
        pairs = [(_as_text(key, but), _as_text(value, but)) for key, value in node.value]
        return MappingNode(node.tag, pairs, node.start_mark, node.end_mark, node.flow_style)
    if isinstance(node, SequenceNode):
        parts = [_as_text(part, but) for part in node.value]
        return SequenceNode(node.tag, parts, node.start_mark, node.end_mark, node.flow_style)
    if not isinstance(node, ScalarNode) or node.tag.rpartition(":")[2] in but:
        return node
    block = node.style in ("|", ">")  # block scalars end in a line break that is not part of the value
    text = node.value.strip() if block else node.value
    return ScalarNode("tag:yaml.org,2002:str", text, node.start_mark, node.end_mark, node.style)


def _check_keys(node: Node, loader: _Loader, done: set[int]) -> None:
    """Rejects two equal keys in one mapping. Keys from a merge (`<<`) may be overridden."""
    if id(node) in done or isinstance(node, ScalarNode):
        return
    done.add(id(node))
    lines: dict[Hashable, int] = {}
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if key.tag.endswith(":merge"):
            continue
        name, line = loader.construct_object(key), key.start_mark.line
        if not isinstance(name, Hashable):
            raise _RefusedError("a key must be a word or a number", line)
        if name in lines:
            raise _RefusedError(f"the key {shown(name)} is given twice, first in line {lines[name] + 1}", line)
        lines[name] = line
    for part in [value for _, value in node.value] if isinstance(node, MappingNode) else node.value:
        _check_keys(part, loader, done)


def _place(error: BaseException) -> str:
    """ ", line 3" if the error has a line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: BaseException) -> str:
    """PyYAML's reason for the error, without its excerpts of the file."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.reader.ReaderError):
        return f"it has the character #x{int(error.character):04x}, which is not allowed in text"
    problem = str(getattr(error, "problem", None))
    if "character '\\t'" in problem:
        return "it is indented with a tab; use spaces"
    return told(getattr(error, "problem", None) or getattr(error, "context", None) or type(error).__name__)
