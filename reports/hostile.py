"""Hostile inputs, made by program, a generator for each kind; ``attacks.py`` runs them."""

import importlib
import io
import json
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from npgemma.command import COMMANDS
from npgemma.command.arguments import parser_of

# Sequences that set a terminal's title and colours or turn the direction of a line; and no end of letters.
EVIL = "\x1b[31mred\x1b]0;title\x07\u202eleft\u2066\x9b2J\rover\u2028\x7f"
SECRET = "pass" + "word-1234"  # in what is long, and in whole files: it must not be printed
LONG = 500_000 * "x" + SECRET + 500_000 * "x"
ODD = (EVIL, LONG, "\ud800", 3000 * "\u3042", "")
REFUSED, ANSWERED, EITHER = (2,), (0, 1), (0, 1, 2)
SHORT, INSPECT = ["--max-new-tokens", "1"], ["inspect", "--checkpoint", "hub"]
HUB = ["generate", *SHORT, "--checkpoint", "hub"]
ADAPTER = ["conversion", "adapter", "out", "--base", "adapter/sound"]
COMPARE = ["compare", "port/port.npz", "--map", "port/map.toml", "--reference", "port/reference.safetensors"]
# Command lines that read files of `samples.make`.
READ = {
    "hub/*": HUB, "words/*.json": [*HUB, "--tokenizer", "{}", "--prompt", "a banana \ue000"],
    "adapter/adapter_*": ADAPTER, "image/RGB.*": [*HUB, "--image", "{}"],
    "npz/*": ["inspect", "--checkpoint", "npz/model.npz", "--config", "npz/config.json"], "port/*.[nrt]*": COMPARE,
    "shards/*": ["inspect", "--checkpoint", "shards"], "port/arrays/*0.npy": ["compare", "port/arrays", *COMPARE[2:]],
    "ids/*": ["trace", "--list", "--force-ids", "{}"], "logits/*": ["diagnose", "--logits", "{}"],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A hostile input: its name, what is run, and what must become of it."""

    name: str
    words: list[str]  # of npgemma; after "conversion", of that; after "python", a program; after "-m", of a new Python
    # Beside the files of `samples.make`, or in their place: bytes, text, JSON, nothing (None), or what writes a path.
    files: dict[str, Any] = field(default_factory=dict)
    must: tuple[int, ...] = EITHER
    says: str = ""  # a pattern in a refusal, and in an answer that must be given
    exact: str = ""  # the image's path in the JSON that is printed
    stdin: str = os.devnull
    interrupt: float = 0
    most_bytes: int = 10**11  # of a file: few, as on a full disk

    def make(self, folder):
        """Write the files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if callable(content):
                content(path)
            elif content is not None:
                text = content if isinstance(content, (bytes, str)) else json.dumps(content)
                path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


class _Pickle:
    """An object whose pickle makes a folder where it is read."""

    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def _npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _bomb(path):
    """Write arrays of four gigabytes of zeros, which take four megabytes."""
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with packed as archive, archive.open("logits.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**30,)})
        for _ in range(2**8):
            member.write(bytes(2**24))


def _npy(header):
    return b"\x93NUMPY\2\0" + len(header).to_bytes(4, "little") + header


CONTENTS = [
    os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name),
    lambda path: (path.touch(), os.truncate(path, 10**10)), "version https://git-lfs.github.com/spec/v1\nsize 1\n", "",
    99 * SECRET, bytes(10**6), 99 * b"\xff\xfe", _npz(logits=np.array([_Pickle()])), _npz(**{EVIL: np.zeros(2)}), _bomb,
    10**5 * "[", '{"a": ' + 5000 * "9" + "}", json.dumps({EVIL: LONG}), json.dumps(ODD), _npy(9000 * b"("), _npy(b"{'"),
]  # fmt: skip
# Expressions that take peft a time without end, or are none.
PATTERNS = (
    r"(\w+\.?)+!", "(.*)*(.*)*!", "(l|la|lan|a|n|.)*!", 25 * ".*" + "!", 12 * "(.+?)" + "!", r"(.+)+\1!", r"(?=x)",
    5000 * "(" + 5000 * ")", "a{1,4294967294}", "((a{1,999}){1,999}){1,999}", "(q", r"\p", "*", 10**7 * "q", *ODD,
)  # fmt: skip
PAIRS = (40 * [("a", "aa")], [("a", 500 * "b"), ("b", 500 * "c"), ("c", 500 * "d")], [("a", LONG)])
STEPS = [[{"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in pairs] for pairs in PAIRS]
RULE = '[["mid.{i}@{pass}"]]\nours = "{pass}/run_blocks.0/block.{i}/mid_BTD"\n'
# What may stand in the place of a file: entries of a JSON document, or a text.
TEXTS = {
    "hub/config.json": [
        *({"model_type": text} for text in ([], {}, *ODD)), {"quantization_config": {"quant_method": EVIL}},
        {"eos_token_id": 300_000 * [1.5]}, {"text_config": {"hidden_size": 300_000 * [1]}},
    ],
    "hub/added_tokens.json": [*({text: 713} for text in ODD), {f"<{i}>": 713 + i for i in range(10**5)}],
    "hub/tokenizer_config.json": [{"added_tokens_decoder": {i: {"content": EVIL}}} for i in ("713", 5000 * "9", "²")],
    "hub/preprocessor_config.json": [{"resample": EVIL}, {"image_mean": 300_000 * [1]}, {f"do_{EVIL}": True}],
    "shards/model.safetensors.index.json": [{"weight_map": {"a": text}} for text in (*ODD, "../x", "/dev/zero")],
    "adapter/adapter_config.json": [
        *({key: {text: 2}} for key in ("rank_pattern", "alpha_pattern") for text in PATTERNS), {"peft_type": EVIL},
        *({"base_model_name_or_path": text} for text in ODD), {"alpha_pattern": {str(i): 2 for i in range(10**5)}},
        {"r": 10**30}, {"r": float("inf")}, {"lora_alpha": float("nan")},
    ],
    "words/unigram.json": [
        *({"normalizer": {"type": "Sequence", "normalizers": steps}} for steps in STEPS),
        *({"decoder": {"type": "Sequence", "decoders": steps}} for steps in STEPS),
        *({"added_tokens": [{"id": 712, "content": text, "normalized": True}]} for text in ODD),
    ],
    "port/map.toml": [
        *(f'[["{name}"]]\nours = "x_BTD"' for name in ("a.{i}.{i}", "a{1}", 90 * "{i}", "(a+)+$", "\\u001b[31m", LONG)),
        *(f"{RULE}{line}" for line in ('axes = "B(T"', f'axes = "{LONG}"', "scale = 1e999", 'take = { T = "²:" }')),
        *(f'extends = "{name}"' for name in ("map.toml", "\\u001b", 9999 * "x", "a\\u0000b", "/dev/zero", ".")), "= =",
    ],
    "ids/ids.txt": ["1.5", 5000 * "9", EVIL, "", "-1", "²", 10**6 * "5\n", "9" * 21, "1_0"],
}  # fmt: skip


def files(home):
    """Yield what is no file, and what is another, in the place of each file that is read."""
    for pattern, words in READ.items():
        for path in sorted(path for path in home.glob(pattern) if path.is_file()):
            file, texts = str(path.relative_to(home)), []
            for text in TEXTS.get(file, []):
                texts.append(text if isinstance(text, str) else json.loads(path.read_text()) | text)
            says = rf"{path.name}|'{file.partition('/')[0]}['/]"
            for i, content in enumerate([*CONTENTS, *texts]):
                yield Case(f"{file} {i}", [word.replace("{}", file) for word in words], {file: content}, says=says)


def ports(home):
    """Yield arrays and token ids of a port of every type."""
    kinds = [np.zeros((1, 1664), kind) for kind in ("f4", "S5", "U3", "V7", "M8[ns]", ">f4", "c8", "?", "u8", "V8,i4")]
    right = {"prefill.0/logit_BV": kinds[0], "logits": kinds[0], "token_ids": np.array([5])}
    found = [{name: array} for name in ("prefill.0/logit_BV", "logits") for array in (*kinds, kinds[0] * np.nan)]
    ids = ([np.nan], [np.inf], [1.5], [EVIL], [b"5"], [10**6], [-1], [2**63], [], [[1]], 5, [True], [5j], [5000 * "9"])
    found += [{name: np.array(each)} for name in ("token_ids", "step.0/ids_BT") for each in ids]
    found += [{name: kinds[0]} for name in (EVIL, f"step.{4000 * '9'}/logit_BV", "../../out")]
    for i, port in enumerate(found):
        for words in ("compare", "compare --json", "diagnose", "diagnose --logits", "trace --list --force-ids"):
            arrays = _npz(**right | port)
            yield Case(f"arrays {i}, {words}", [*words.split(), "p.npz"], {"p.npz": arrays}, says="p.npz|logit|ids")


def prompts(home):
    """Yield prompts as other programs have them written, and texts without end."""
    right = json.loads((home / "words/unigram.json").read_text())
    right["added_tokens"] += [{"id": 712, "content": "<t>", "single_word": True, "lstrip": True, "rstrip": True}]
    for name in ("model", "json"):
        for start in ("<bos>", "<image><bos>"):
            words = ["generate", "--prompt", f"{start}detect red circle", "--tokenizer", f"tiny/tokenizer.{name}"]
            says = "(?s)note: .*red circle|red circle.*note: "
            yield Case(f"{start}, tokenizer.{name}", words, {}, ANSWERED, says)
        file = {"model": "hub", "json": "words/unigram.json"}[name]
        for text in ("10**5 * '<t>'", "10**5 * ' <t> '", "10**6 * ' '", "9999 * chr(0xd800)", "10**6 * 'a'"):
            code = f"import npgemma; print(len(npgemma.tokenizer.Tokenizer({file!r}).encode({text})))"
            yield Case(f"{name}, {text}", ["python", code], {"words/unigram.json": right})


def _png(width, height, depth=8, colour=0, before=b""):
    """Return a PNG of zeros, with chunks before its pixels."""
    data, row = zlib.compressobj(9), bytes(1 + -(-width * depth * (1 + colour) // 8))
    pixels = b"".join(data.compress(row) for _ in range(height)) + data.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _saved(format, side=9, mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, format, **options)
    return file.getvalue()


def _scans(count):
    """Return a progressive JPEG whose last scan is there so many times."""
    right = _saved("JPEG", 3000, "L", progressive=True)
    last = right.rindex(b"\xff\xda")
    return right[:last] + count * right[last:-2] + right[-2:]


def _zeros(kind, before=b""):
    """Return a PNG with a chunk of a gigabyte of zeros, compressed."""
    return _png(9, 9, before=_chunk(kind, before + zlib.compress(bytes(10**9), 1)))


NOT_READ = ("EPS", "ICO", "ICNS", "DDS", "PCX", "SGI", "TGA", "JPEG2000", "PDF")
# Where it is found, Pillow starts it for an EPS: here it leaves a file.
GHOSTSCRIPT = {"bin/gs": lambda path: (path.write_text("#!/bin/sh\necho > started\n"), path.chmod(0o755))}
LARGE = {
    "169 megapixels.png": lambda: _png(13_000, 13_000, 8, 2), "4 gigapixels.png": lambda: _png(65_500, 65_500, 1),
    "wide.png": lambda: _png(2**24, 1), "high.png": lambda: _png(1, 2**20), "scans.jpg": lambda: _scans(4000),
    "119 megapixels.ppm": lambda: b"P6 10900 10900 255\n" + bytes(3 * 10_900**2), "pixels.png": lambda: _zeros(b"IDAT"),
    "119 megapixels of 16 bits.ppm": lambda: b"P5 10900 10900 65535\n" + bytes(2 * 10_900**2),
    "comment.ppm": lambda: b"P5 #" + 10**8 * b"x", "comments.ppm": lambda: b"P6" + 10**7 * b"#\n" + b"1 1 255\n123",
    "digits.ppm": lambda: b"P5 " + 10**6 * b"9" + b" 1 255\n", "plain.ppm": lambda: b"P3 9000 9000 9\n" + 10**7 * b"1 ",
    "comment.png": lambda: _zeros(b"zTXt", b"a\0\0"), "profile.png": lambda: _zeros(b"iCCP", b"a\0\0"),
    "chunks.png": lambda: _png(9, 9, before=10**5 * _chunk(b"tEXt", b"a\0b")), "a.webp": lambda: _saved("WEBP", 16_383),
    "extensions.gif": lambda: _saved("GIF")[:-1] + 10**7 * b"!\xfe\x01x\0",
}  # fmt: skip
FILE = "open(npgemma.example_image(), 'rb').read()"
GIVEN = {
    FILE: ANSWERED, f"io.BytesIO({FILE})": ANSWERED, f"10**6 * b'{SECRET}'": REFUSED, "io.BytesIO()": REFUSED,
    f"'data:image/png;base64,' + base64.b64encode({FILE}).decode()": ANSWERED, "np.zeros((9, 9, 3))": REFUSED,
    f"'data:image/png;base64,' + 10**4 * '{SECRET}'": REFUSED, f"'data:text/plain,{SECRET}'": REFUSED,
    "10**6 * 'x'": REFUSED, "'http://\\x1b'": REFUSED, "'a\\0b'": REFUSED, "Image.new('L', (20_000, 20_000))": EITHER,
}  # fmt: skip


def images(home):
    """Yield images that are read, that are not read, and that take all time or memory; what a program hands over."""
    made = {name: lambda path, make=make: path.write_bytes(make()) for name, make in LARGE.items()}
    for path in sorted((home / "image").glob("*.*")):
        yield Case(path.name, [*HUB, "--image", "x.txt"], {"x.txt": path.read_bytes()}, ANSWERED)
        yield Case(
            f"{path.name}, half", [*HUB, "--image", "x.txt"], {"x.txt": path.read_bytes()[:70]}, REFUSED, "x.txt"
        )
    for format in NOT_READ:
        files = GHOSTSCRIPT | {"a.png": _saved(format)}
        yield Case(f"{format}, not read", [*HUB, "--image", "a.png"], files, REFUSED, "a.png.*PNG")
    for name, content in made.items():
        for words in (HUB, ["explain", "--out", "out"]):
            yield Case(f"{name}, {words[0]}", [*words, "--image", name], {name: content}, says=name)
    xmp = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_600_000))
    files = {"a.png": _png(90, 90, before=_chunk(b"iTXt", xmp))}
    yield Case("XMP of 1.6 MB", [*HUB, "--image", "a.png"], files, ANSWERED)
    for image, must in GIVEN.items():
        code = "import base64, io, npgemma, numpy as np\nfrom PIL import Image\n"
        yield Case(image[:50], ["python", f"{code}print(npgemma.load().generate({image}, 'ocr').text)"], {}, must)


BASE = {
    "generate": SHORT, "trace": ["--list", *SHORT], "explain": ["--out", "out", *SHORT], "parity": SHORT,
    "conformance": ["--out", "out"], "bench": ["--batches", "1", "--tokens", "1"], "compare": ["port/port.npz"],
}  # fmt: skip
PATHS = ("pipe", "/dev/zero", "folder", "none", "", "org/" + EVIL, "a\0b", "\udcff", 5000 * "p", "text", "a/b")
VALUES = ("", EVIL, "a\0b", "\udcff", 5000 * "9", 10**5 * "x", "-1", "0", "1e999", "nan", "²", "1_0", "9" * 20)
OUTPUTS = (
    "out", "annotate", "show_attention", "image_as_seen", "mask_dir", "manifest", "report", "out_dir", "write_map",
)  # fmt: skip
AROUND = {"pipe": os.mkfifo, "folder/x": "", "text": "ocr", "zero": CONTENTS[2], "large": CONTENTS[4]}


def options(home):
    """Yield each option with every value, by the first command that has it, and the question's by all."""
    seen = set()
    for command in COMMANDS:
        for option in parser_of(importlib.import_module(f"npgemma.command.{command}"))._actions:
            known = option.dest in seen and option.dest not in ("checkpoint", "image", "prompt")
            if not known and option.dest not in ("help", "version") and option.nargs != 0:
                is_path, name = option.metavar in ("FILE", "DIR", "TRACE", "PORT", "MAP"), option.option_strings[:1]
                is_written = option.dest in OUTPUTS
                # Root may replace a device.
                for value in PATHS[:1] + PATHS[2:] if is_written else PATHS if is_path else VALUES:
                    words = [command, *BASE.get(command, []) * bool(name), *name, value]
                    is_read = is_path and not is_written and value not in ("", "folder")
                    title = f"{command} {option.dest} {value[:9]!a} of {len(value)}"
                    yield Case(title, words, AROUND, REFUSED if is_read else EITHER)
            seen.add(option.dest)
    for word in (EVIL, 10**5 * "x", "--evil" + EVIL, "a.png", "--max-n=1", "\udcff"):
        for words in ([word], ["inspect", word], ["conversion", word], ["conversion", word, "out"]):
            yield Case(f"{word[:9]!a} of {len(word)} in {len(words)}, {words[0][:9]!a}", words, {}, REFUSED)


WRITING = {
    "trace": ["trace", *SHORT, "--out"], "explain": ["explain", *SHORT, "--out"], "parity": ["parity", "--report"],
    "conformance": ["conformance", "--out"], "conversion": ["conversion", "hub"],
    "annotate": ["generate", "--prompt", "segment red circle", "--annotate"], "attention": [*HUB, "--show-attention"],
}  # fmt: skip
LISTS = ("@a.txt\n", "", "none.png\n", EVIL, "/dev/zero\n", b"\xff\n", bytes(10**6), 10**5 * "none.png\n")
NAMES = (EVIL + ".png", "\udcff\udcfe.png", 240 * "n" + ".png", "--evil.png", "[*?].png", "@x.png", "-")


def others(home):
    """Yield names of images, batches, outputs, stdin, lists, interrupts, and pickles."""
    right, image = (home / "image/RGB.png").read_bytes(), [*HUB, "--image"]
    for path in (f"./i/{name}" for name in NAMES):
        for words in (HUB, [*HUB, "--json"], ["trace", "--json", "--out", "out"], ["explain", "--out", "out"]):
            exact = path if "--json" in words and "\udcff" not in path else ""
            yield Case(f"{path[4:13]!a} {words}", [*words, "--image", path], {path: right}, ANSWERED, exact=exact)
        yield Case(f"{path[4:13]!a} twice", [*image, path, path], {path: right}, ANSWERED)
    for i, bad in enumerate([*CONTENTS, right[:99]]):
        files = {"1.png": right, "2.png": bad, "3.png": right}
        for more in ([], ["--batch-size", "3"], ["--json"]):
            says = '2.png.*"error"|"error".*2.png' if "--json" in more else "(?s)1.png: .*3.png: .*2.png"
            yield Case(f"a batch {i} {more}", [*HUB, *more, "--image", *files], files, REFUSED, says)
    for command, words in WRITING.items():
        for value in ("folder", "text/x.png", "pipe", 5000 * "p" + ".png", f"text/{EVIL}.png"):
            yield Case(f"{command} to {value[:9]!a} of {len(value)}", [*words, value], AROUND)
        yield Case(f"{command} on a full disk", [*words, "out.png"], {}, REFUSED, "cannot write", most_bytes=2000)
    for stdin, as_image, as_prompt in (("zero", 0, 0), ("large", 0, 0), ("text", 0, 1), ("image/RGB.png", 1, 0)):
        yield Case(f"image {stdin}", [*image, "-"], AROUND, (REFUSED, ANSWERED)[as_image], stdin=stdin)
        yield Case(f"prompt {stdin}", [*HUB, "--prompt", "-"], AROUND, (REFUSED, ANSWERED)[as_prompt], stdin=stdin)
    for i, text in enumerate(LISTS):
        yield Case(f"a list {i}", [*image, "@a.txt"], {"a.txt": text}, REFUSED)
    for i, pattern in enumerate(("none/*", "*", "**/**/**/*", "/dev/z*", EVIL + "*", 999 * "[" + "*", 99 * "*" + "z")):
        yield Case(f"a pattern {i}", [*image, pattern], AROUND)
    yield Case("conversion.py", ["-m", "npgemma"], {"conversion.py": ""}, REFUSED, "conversion.py")
    for tenths in (1, 2, 3, 5):
        for words in (["npgemma"], ["npgemma", "explain", "--out", "out"], ["conversion", "hub", "out"]):
            yield Case(f"{tenths}, {words[:2]}", ["-m", *words], {}, (0, 130, -2), interrupt=tenths / 10)
    for words, file in ((INSPECT, "hub/model"), (ADAPTER, "adapter/adapter_model")):
        files = {f"{file}.safetensors": None, f"{file}.bin": CONTENTS[10]}
        yield Case(f"{file} as a pickle", words, files, REFUSED, "model.bin.*pickle")
    photo = {"a.jpg": lambda path: Image.open("tiny/example.png").convert("RGB").resize((8000, 6000)).save(path)}
    yield Case("a mask on 48 megapixels", [*WRITING["annotate"], "out.png", "--image", "a.jpg"], photo, ANSWERED)
    yield Case("a pickled model", ["python", "import npgemma, pickle\npickle.dumps(npgemma.load())"], {}, ANSWERED)


# Kinds of inputs, as the table of docs/robustness.md calls them.
KINDS = {
    "what is no file, or another": files, "arrays of ports": ports, "prompts": prompts, "images": images,
    "options": options, "names, batches, outputs, surroundings": others,
}  # fmt: skip
