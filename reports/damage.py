"""Random damage to the content of a file: to its bytes, or to what its format lets a reader believe at first."""

import io
import json
import re
import struct
import zipfile
import zlib

# Values that stand where others are expected, as JSON and TOML write them.
VALUES = [
    "null", "true", "0", "-1", "2.5", "12.0", "1e999", "-1e999", "NaN", "nan", "1" + "0" * 5000, "9223372036854775808",
    "4294967297", "1e308", "1e-320", '""', '"x"', r'"\u001b[31m\u202e"', r'"\ud800"', '"{i}{i}"', '"{1}"', '"(a+)+$"',
    '"BTD("', '"../x"', '"/dev/stdin"', f'"{"x" * 10**5}"', "[]", "{}", '[[1], "x"]', '{"a": 1}', "[" * 900 + "]" * 900,
    "[" * 10**5 + "]" * 10**5, "[" + "1," * 10**5 + "1]",
]  # fmt: skip
NAMES = ["", "x" * 10**5, "9" * 5000, "\x1b[31m\u202e", "\ud800", "a\nb", "../x", "model", "(", "0", "²"]
# What an .npy file may say of itself.
HEADERS = [
    "'|S4'", "'<U1'", "'|V4'", "'|O'", "'>f4'", "'<f8'", "'<i8'", "'<c8'", "'|b1'", "'<M8[s]'", "('<f4', (2,))",
    "[('a', '<f4')]", "True", "()", "(0,)", "(0, 2**40)", "(1099511627776,)", "(-1,)", "((1,), 2)", "1e9", "'x"
]  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"


def damaged(draw, name, content, other):
    """Return a file's content with damage that ``draw`` (`random.Random`) chooses; ``other`` is another file's."""
    suffix = name.rpartition(".")[2]
    ways = {"json": _json, "toml": _words, "txt": _words, "safetensors": _header, "npz": _zip, "npy": _npy, "png": _png}
    return draw.choice((ways.get(suffix, _bytes), ways.get(suffix, _bytes), _bytes))(draw, content, other)


def _bytes(draw, content, other):
    """Change spans of bytes, mostly few and short ones, and more often near the front, where headers are."""
    for _ in range(draw.choice((1, 1, 1, 1, 1, 2, 5))):
        at = int(len(content) * draw.random() ** draw.choice((1, 3)))
        to = at + draw.choice((1, 1, 2, 4, 8, 30, 1000))
        part, rest = content[at:to], content[to:]
        part, rest = draw.choice((
            (bytes(byte ^ 1 << draw.randrange(8) for byte in part), rest),
            (draw.randbytes(len(part)), rest),
            (draw.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0")) * len(part), rest),
            (part + draw.randbytes(draw.randrange(1, 50)), rest),
            (part * draw.choice((2, 3, 1000)), rest),
            (b"", rest),
            (other[at:to], rest),
            (part, other[to:]),
            (part, b""),
            (rest[: len(part)], part + rest[len(part) :]),
        ))  # fmt: skip
        content = content[:at] + part + rest
    return content


def _json(draw, content, other=b""):
    """Change values and keys of a JSON document, and of documents in its texts."""
    document = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 6))):
        document = _changed(draw, document)
    # A value from the list is written as a text in which its place stands.
    text = re.sub(r'"@@(\d+)"|@@', lambda found: VALUES[int(found[1])] if found[1] else "", json.dumps(document))
    return text.encode()


def _changed(draw, value):
    if isinstance(value, str) and value[:2] in ('{"', "[{") and draw.random() < 0.9:
        return _json(draw, value).decode()
    if isinstance(value, (int, float)) and draw.random() < 0.5:
        return draw.choice((value + 1, value * 2, value * 1000, value / 4, -value))
    if not value or not isinstance(value, (dict, list)) or draw.random() < 0.05:
        return f"@@{draw.randrange(len(VALUES))}"
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, way = draw.choice(keys), draw.randrange(12)
    if way == 0:
        del value[key]
    elif way == 1 and isinstance(value, dict):
        value[draw.choice(NAMES)] = value.pop(key)
    elif way == 2 and isinstance(value, dict):
        value[f"{draw.choice(keys)}@@"] = value[key]  # a key twice
    elif way in (1, 2):
        value[:] = (value * draw.choice((2, 100)))[: 10**5]
    else:
        value[key] = _changed(draw, value[key])
    return value


def _words(draw, content, other, words=VALUES):
    """Put values in the place of words and texts."""
    text = content.decode("latin1")
    for _ in range(draw.choice((1, 1, 2))):
        start, end = draw.choice([found.span() for found in re.finditer(r"""'[^']*'|"[^"\n]*"|[\w.]+|\(.*?\)""", text)])
        text = text[:start] + draw.choice(words) + text[end:]
    return text.encode("latin1")


def _header(draw, content, other):
    """Change the JSON at the head of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = _json(draw, content[8:end])
    return struct.pack("<Q", len(header)) + header + content[end:]


def _npy(draw, content, other):
    """Change the words at the head of an .npy file."""
    end = 10 + int.from_bytes(content[8:10], "little")
    header = _words(draw, content[10:end], other, HEADERS)
    return content[:8] + struct.pack("<H", len(header) % 2**16) + header + content[end:]


def _zip(draw, content, other):
    """Pack a zip file anew with a member that is damaged or compressed otherwise; or change a member's field."""
    packed, method = io.BytesIO(), draw.choice((0, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as anew:
        members = [(name, archive.read(name)) for name in archive.namelist()]
        place, way = draw.randrange(len(members)), draw.randrange(6)
        name, data = members[place]
        name = f"{draw.choice(NAMES)[:60_000]}.npy" if way == 0 else name
        members[place] = name, draw.choice((_npy, _bytes))(draw, data, other) if way in (2, 3) else data
        for i, (name, data) in enumerate(members):
            if (i, way) != (place, 1):
                # Of a fixed time, as a mutant is always the same.
                entry = zipfile.ZipInfo(name.encode("utf-8", "replace").decode())
                anew.writestr(entry, data, method if i == place else None)
    content = bytearray(packed.getvalue())
    if way > 3:
        # Version, flags, method, checksum or a size; in the directory the same field lies two bytes later.
        (field, size), value = draw.choice(((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4))), draw.randbytes(4)
        for mark, shift in ((rb"PK\x03\x04", 0), (rb"PK\x01\x02", 2)):
            at = [found.start() for found in re.finditer(mark, content)][place - len(members)] + shift + field
            content[at : at + size] = value[:size]
        return bytes(content)
    return _bytes(draw, bytes(content), other) if way == 2 else bytes(content)


def _png(draw, content, other):
    """Change, leave out or double a chunk, with a checksum that is right."""
    chunks, at = [], len(PNG)
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append(content[at + 4 : at + 8 + length])
        at += length + 12
    place = draw.randrange(len(chunks))
    part = chunks[place]
    chunks[place : place + 1] = draw.choice(([], [part, part], *3 * [[_bytes(draw, part, other)]]))
    packed = (struct.pack(">I", max(len(part) - 4, 0)) + part + struct.pack(">I", zlib.crc32(part)) for part in chunks)
    return PNG + b"".join(packed)
