"""Seeded damage: to bytes, records of a zip, opcodes of a pickle, trees of JSON and YAML, rows of labels."""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import yaml

Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = [0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 1e308, float("inf"), float("-inf"), float("nan"), 0.5, 3e7, 1e12]
WORDS = ["", "x", "a\0b", "~nosuchuser/x", "a" * 300, "../../esc", "2024-99-99", "9" * 5000, "\ud7ff", "nan", "none"]
# What YAML makes of a text is not always what one thinks.
RAW = ["[" * 3000, "2024-99-99", "0b_", "!!bool maybe", "9" * 5000, "*nowhere", "!!python/object/apply:os.system [id]",
       "&a [*a]", "{1: 2, [3]: 4}", "!!set {a}", "%", "? - :", "\t- a", "1e400", "<<: 3"]  # fmt: skip
ATTACKS = [
    b"cos\nsystem\n(S'touch executed'\ntR.",
    b'cbuiltins\neval\n(S\'__import__("os").system("touch executed")\'\ntR.',
    b"cbuiltins\nbytearray\n(I8000000000\ntR.",
    b"csubprocess\nPopen\n(S'id'\ntR.",
    b"csocket\ncreate_connection\n((S'127.0.0.1'\nI9\nttR.",
    b"ctorch.jit._script\nunpackage_script_module\n(tR.",
    b"cbuiltins\ngetattr\n(cos\nS'system'\ntR(S'touch executed'\ntR.",
]


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """A few bytes turned, cut, moved, repeated or put in."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place = rng.randrange(len(content) + 1)
        length = min(rng.choice([1, 2, 4, 8, 64, 512]), len(content) - place)
        kind = rng.randrange(6)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place : place + length]
        elif kind == 2:
            content[place:place] = rng.randbytes(length)
        elif kind == 3:
            source = rng.randrange(len(content) + 1)
            content[place : place + length] = content[source : source + length]
        elif kind == 4:
            content[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]))
        else:
            del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


def of_head(rng: random.Random, data: bytes) -> bytes:
    """Numbers in the first bytes, where formats say how large everything is."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 2, 3])):
        place = rng.randrange(min(len(content), 64))
        size = rng.choice([1, 2, 4, 8])
        value = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 2 ** (8 * size) - 1]) % 2 ** (8 * size)
        content[place : place + size] = value.to_bytes(size, rng.choice(["little", "big"]))
    return bytes(content)


def of_zip(rng: random.Random, data: bytes) -> bytes:
    """Records dropped, doubled, renamed, packed or damaged; now and then the directory itself."""
    if rng.random() < 0.2:
        start = max(data.rfind(b"PK\x01\x02"), 0)
        return data[:start] + of_bytes(rng, data[start:])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    place = rng.randrange(len(records))
    if rng.random() < 0.6:
        place = next(number for number, (name, _) in enumerate(records) if name.endswith("data.pkl"))
    name, content = records[place]
    kind, packing = rng.randrange(7), zipfile.ZIP_STORED
    if kind == 0:
        del records[place]
    elif kind == 1:
        records[place] = (rng.choice(["../esc", name + "x", "archive/data.pkl", "a" * 300]), content)
    elif kind == 2:
        records[place] = (name, b"\0" * rng.choice([0, 1, 300_000_000]))
        packing = zipfile.ZIP_DEFLATED
    elif kind == 3:
        records[place] = (name, of_bytes(rng, content))
    else:
        records[place] = (name, of_pickle(rng, content) if name.endswith(".pkl") else of_bytes(rng, content))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packing, compresslevel=1) as archive:
        for record, text in records:
            # A name would get the current time, and a case would not be the same again.
            archive.writestr(zipfile.ZipInfo(record), text, packing, 1)
    return made.getvalue()


def of_pickle(rng: random.Random, data: bytes) -> bytes:
    """Opcodes left out, doubled, swapped, with other arguments, or an attack in between."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:
        return of_bytes(rng, data)
    pieces = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(rng.choice([1, 1, 2, 5])):
        place, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        kind = rng.randrange(6)
        if kind == 0:
            pieces[place] = b""
        elif kind == 1:
            pieces[place] *= 2
        elif kind == 2:
            pieces[place], pieces[other] = pieces[other], pieces[place]
        elif kind == 3:
            pieces[place] = pieces[place][:1] + of_bytes(rng, pieces[place][1:])
        elif kind == 4:
            number = rng.choice([0, -1, 3 * 10**7, 2**62])
            pieces[place] = b"\x8a\x08" + number.to_bytes(8, "little", signed=True)
        else:
            pieces[place] = rng.choice(ATTACKS).removesuffix(b".")
    return b"".join(pieces)


def tree(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A tree of plain data with one or another node replaced, taken out, doubled or nested."""
    if depth and (rng.random() < 0.25 or not isinstance(value, dict | list) or not value):
        return _other(rng, value)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if kind < 0.2:
            return {(rng.choice([1, None, True, "", "x" * 99]) if name == key else name): value[name] for name in value}
        return {name: tree(rng, item, depth + 1) if name == key else item for name, item in value.items()}
    place = rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.1:
        return value[:place] + value[place + 1 :]
    if kind < 0.2:
        return value[:place] + [value[place]] * rng.choice([2, 50]) + value[place:]
    return [tree(rng, item, depth + 1) if number == place else item for number, item in enumerate(value)]


def _other(rng: random.Random, value: Any) -> Any:
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(WORDS)
    deep: Any = value
    for _ in range(rng.choice([1, 3, 60])):
        deep = [deep]
    return rng.choice([None, True, [], {}, [value], {"a": value}, deep])


def of_json(rng: random.Random, data: bytes) -> bytes:
    """The tree of a JSON text, or its letters."""
    if rng.random() < 0.15:
        return rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN", b"\xff\xfe", of_bytes(rng, data)])
    return json.dumps(tree(rng, json.loads(data))).encode()


def of_yaml(rng: random.Random, data: bytes) -> bytes:
    """The tree of a YAML text, a value as YAML writes no tree, aliases without end, or its letters."""
    kind = rng.random()
    if kind < 0.15:
        return of_bytes(rng, data)
    if kind < 0.35:
        lines = data.decode().splitlines()
        place = rng.randrange(len(lines))
        lines[place] = lines[place].partition(":")[0] + ": " + rng.choice(RAW)
        return "\n".join(lines).encode()
    if kind < 0.4:
        bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(9))
        return data + b"\n" + bomb.replace("a8: &a8", rng.choice(["names: &a8", "nc: &a8", "a8: &a8"])).encode()
    return yaml.safe_dump(tree(rng, yaml.safe_load(data)), allow_unicode=True).encode("utf-8", "surrogatepass")


def of_xml(rng: random.Random, data: bytes) -> bytes:
    """Elements with another text or name, without children, doubled or nested; entities without end; other letters."""
    kind = rng.randrange(8)
    if kind == 0:
        return of_bytes(rng, data)
    if kind == 1:
        bomb = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "x" * 10}">' for n in range(9))
        return f"<!DOCTYPE a [{bomb}]>".encode() + data.replace(b"</", b"&a8;</", 1)
    if kind == 2:
        depth = rng.choice([50, 5000, 100_000])
        return data.replace(b"</object>", b"<object>" * depth + b"</object>" * depth + b"</object>")
    root = ElementTree.fromstring(data)
    for _ in range(rng.choice([1, 1, 2])):
        element = rng.choice(list(root.iter()))
        if kind < 6:
            element.text = str(rng.choice([*NUMBERS, *WORDS]))
        elif kind == 6:
            element.tag = rng.choice(["x", "size", "object", "name", "filename"])
        else:
            element[:] = list(element)[1:] if rng.random() < 0.5 else list(element) * rng.choice([2, 50])
    return ElementTree.tostring(root)


def of_rows(rng: random.Random, data: bytes) -> bytes:
    """Words of label rows replaced, lines taken out and doubled, or letters changed."""
    if rng.random() < 0.2:
        return of_bytes(rng, data)
    rows = [line.split() for line in data.decode().splitlines()]
    for _ in range(rng.choice([1, 2, 5])):
        place = rng.randrange(len(rows))
        row = rows[place] or ["0"]
        kind = rng.randrange(4)
        if kind == 0:
            rows[place] = row[: rng.randrange(len(row) + 1)]
        elif kind == 1:
            rows[place] = row + [str(rng.random()) for _ in range(rng.choice([1, 3, 1000]))]
        elif kind == 2:
            rows.insert(place, row)
        else:
            rows[place] = [str(rng.choice([*NUMBERS, *WORDS])) if rng.random() < 0.4 else word for word in row]
    return "\n".join(" ".join(row) for row in rows).encode()


def of_words(rng: random.Random, data: bytes) -> bytes:
    """A word of a line replaced, as in the text of ncnn's networks, or letters changed."""
    if rng.random() < 0.3:
        return of_bytes(rng, data)
    rows = [line.split(" ") for line in data.decode().splitlines()]
    for _ in range(rng.choice([1, 1, 3])):
        row = rows[rng.randrange(len(rows))]
        value = rng.choice(["0", "-1", "2147483647", "1e30", "x", "0=2000000000", "1=-5", "-23309=9999999", *WORDS[:4]])
        row[rng.randrange(len(row))] = value
    return "\n".join(" ".join(row) for row in rows).encode()


def of_safetensors(rng: random.Random, data: bytes) -> bytes:
    """The header's tree (offsets, dtypes, shapes), our metadata inside it, or bytes."""
    if rng.random() < 0.2:
        return rng.choice([of_bytes, of_head])(rng, data)
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.75:
        text = header["__metadata__"]["secateur"].encode()
        header["__metadata__"]["secateur"] = of_json(rng, text).decode("utf-8", "replace")
    else:
        header = tree(rng, header)
    made = json.dumps(header).encode()
    return len(made).to_bytes(8, "little") + made + rest
