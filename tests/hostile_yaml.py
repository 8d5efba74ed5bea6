"""YAML that no reader may stumble over: what PyYAML fails with, and short files that stand for long ones."""

from __future__ import annotations

from secateur.errors import UserError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 12)
)
HOSTILE: dict[str, bytes] = {
    "no such day": b"a: 2024-99-99",
    "no such time": b"a: 2024-01-01T99:99:99Z",
    "no binary digits": b"a: 0b_",
    "neither true nor false": b"a: !!bool maybe",
    "no number": b"a: !!int x",
    "no float": b"a: !!float ''",
    "5,000 digits": b"a: " + b"9" * 5000,
    "5,000 hexadecimal digits": b"a: 0x" + b"f" * 5000,
    "brackets": b"[" * 3000,
    "braces": b"{" * 3000,
    "dashes": b"- " * 3000 + b"a",
    "a Python object": b"a: !!python/object:os.system {}",
    "a Python call": b"a: !!python/object/apply:os.system [true]",
    "an own tag": b"a: !mine x",
    "tabs": b"a:\n\t- b",
    "NUL": b"a: \x00",
    "no UTF-8": b"a: 1\nb: \xff",
    "UTF-16": "a: 1".encode("utf-16"),
    "bytes": bytes(range(256)),
    "a list as a key": b"[a, b]: 1",
    "a mapping as a key": b"{a: 1}: 2",
    "contains itself": b"a: &a [*a]",
    "no such alias": b"a: *nobody",
    "two documents": b"a: 1\n---\nb: 2",
    "no end": b"a: 'x",
    "a merge of a number": b"<<: 3",
    "another version": b"%YAML 9.9\n---\na: 1",
    "long line": b"a: " + b"x" * 6000 + b": b",
    "aliases": BOMB.encode(),
    "merges": MERGES.encode(),
    "too long": b"# " + b"x" * 5_000_000,
}


def check_sentence(error: UserError, *words: str) -> None:
    """One line of at most 300 characters (the path of pytest's folders not counted), with these words in it."""
    sentence = str(error)
    assert "\n" not in sentence
    folders = [word for word in sentence.split() if "/pytest-" in word]
    assert len(sentence) - sum(map(len, set(folders))) <= 300, sentence
    for word in words:
        assert word in sentence
