"""The one reader of YAML files: plain data, or one sentence that names the file and the line.

PyYAML's safe loader runs nothing, but a short file can stand for a long one (aliases), nest without end, and fail in
its constructors with any exception. So a file is composed to nodes first, those are counted, and only then values
are made. It also keeps the last of two equal keys and makes numbers, dates and truth values of words (`01`, `no`,
`12:30`): equal keys are an error here, and what a caller needs as text stays as the user wrote it.
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


def read_yaml(path: str | Path, what: str = "file", *, texts: Collection[str] = (), paths: Collection[str] = ()) -> Any:
    """The content of a YAML file: dicts whose keys are words or numbers, lists, text, numbers, dates.

    Args:
        path: the file, UTF-8.
        what: of which kind it is, for sentences: "data file", "recipe".
        texts: outermost keys whose lists and mappings hold nothing but the text in the file: `no` is "no", `~` is "~".
        paths: the same for keys under which null and truth values keep their meaning: `2024` is "2024", `~` is None.

    Raises:
        UserError: it cannot be read, is no YAML, has two equal keys in one mapping, or declares more than `limits`
            allows; names the file and the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the {what} {path}: {told(getattr(error, 'strerror', '') or error)}.") from error
    if len(content) > MAX_YAML:
        raise UserError(f"The {what} {path} has more than {MAX_YAML:,} bytes; a YAML file of that size is a mistake.")
    return parse_yaml(content, f"The {what} {path}", texts=texts, paths=paths)


def parse_yaml(content: bytes | str, origin: str, *, texts: Collection[str] = (), paths: Collection[str] = ()) -> Any:
    """What YAML text says, as `read_yaml` gives it.

    Args:
        content: UTF-8 where it is bytes.
        origin: the subject of sentences: "The recipe fast.yaml".
        texts, paths: as `read_yaml` takes them.

    Raises:
        UserError: it is no YAML, has two equal keys in one mapping, or declares more than `limits` allows; names the
            line.
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
    """Values and levels that a node stands for, its aliases followed; every node is looked at once.

    Raises:
        _RefusedError: it stands for too much, or has a tag or a key that plain data do not have.
    """
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
        raise _RefusedError(f"it expands to more than {MAX_YAML_VALUES:,} values", line)
    if levels > MAX_YAML_DEPTH:
        raise _RefusedError(f"it is nested more than {MAX_YAML_DEPTH} levels deep", line)
    sizes[id(node)] = values, levels
    return values, levels


def _as_written(key: Node, value: Node, texts: Collection[str], paths: Collection[str]) -> Node:
    """The value of an outermost key, as text where the caller needs it so."""
    if key.value in texts and not isinstance(value, ScalarNode):
        return _as_text(value, ("merge",))
    if key.value in texts:
        return _as_text(value, ("null",))  # a key without a value
    return _as_text(value, ("merge", "null", "bool")) if key.value in paths else value


def _as_text(node: Node, but: Collection[str]) -> Node:
    """A copy in which scalars are text, except those of some tags; an alias elsewhere keeps its own meaning."""
    if isinstance(node, MappingNode):
        pairs = [(_as_text(key, but), _as_text(value, but)) for key, value in node.value]
        return MappingNode(node.tag, pairs, node.start_mark, node.end_mark, node.flow_style)
    if isinstance(node, SequenceNode):
        parts = [_as_text(part, but) for part in node.value]
        return SequenceNode(node.tag, parts, node.start_mark, node.end_mark, node.flow_style)
    if not isinstance(node, ScalarNode) or node.tag.rpartition(":")[2] in but:
        return node
    block = node.style in ("|", ">")  # such text ends in a line break that its author did not mean
    text = node.value.strip() if block else node.value
    return ScalarNode("tag:yaml.org,2002:str", text, node.start_mark, node.end_mark, node.style)


def _check_keys(node: Node, loader: _Loader, done: set[int]) -> None:
    """Refuses two equal keys of one mapping; those that a merge (`<<`) brings may be given again."""
    if id(node) in done or isinstance(node, ScalarNode):
        return
    done.add(id(node))
    lines: dict[Hashable, int] = {}
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if key.tag.endswith(":merge"):
            continue
        name, line = loader.construct_object(key), key.start_mark.line
        if not isinstance(name, Hashable):
            raise _RefusedError("the name before a colon must be a word or a number", line)
        if name in lines:
            raise _RefusedError(f"the key {shown(name)} is given twice, first in line {lines[name] + 1}", line)
        lines[name] = line
    for part in [value for _, value in node.value] if isinstance(node, MappingNode) else node.value:
        _check_keys(part, loader, done)


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
    problem = str(getattr(error, "problem", None))
    if "character '\\t'" in problem:
        return "it has a tab where YAML takes spaces; replace it"
    return told(getattr(error, "problem", None) or getattr(error, "context", None) or type(error).__name__)
