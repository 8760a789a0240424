"""Bundle the page's files into one: HTML, CSS, JavaScript modules, texts and data."""

import json
import pathlib
import re

from npgemma.files.foreign import escaped

WEB = pathlib.Path(__file__).parent / "web"
FIRST = "main.js"
_IMPORT = re.compile(r"^import (\{[^}]*\}) from \"\./([\w-]+\.js)\";$", re.M)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class) ([\w$]+))", re.M)


def texts():
    """Return the page's dictionary."""
    return json.loads(_text("texts.json"))


def bundle(facts, data, model):
    """Return the page.

    Parameters
    ----------
    facts : dict
        What the page is told, as plain values.
    data : str
        The block of arrays, in base64.
    model : str
        HTML of the diagram.

    Returns
    -------
    str
    """
    parts = {
        "style": _text("style.css"),
        "texts": as_json(texts()),
        "facts": as_json(shown(facts)),
        "data": data,
        "model": model,
        "script": script(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _text("page.html"))


def shown(value):
    """Return plain values with every text in them `escaped`: prompts and tokens are from outside."""
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(each) for each in value]
    return escaped(value, kept="\n\t") if isinstance(value, str) else value


def as_json(value):
    r"""Return JSON that can stand in an HTML script element: nothing in it ends the element.

    Examples
    --------
    >>> as_json("</script>")
    '"\\u003c/script>"'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def script():
    """Return all modules as one script, each after those that it imports.

    A browser does not load modules from files beside a page that is opened as a file; so each becomes a function of its
    own, which keeps its names to itself and returns what it exports.
    """
    parts = ["const modules = {};"]
    for name in _in_order(FIRST, []):
        text = _IMPORT.sub(r'const \1 = modules["\2"];', _text(name))
        exported = ", ".join(found[1] for found in _EXPORT.findall(text))
        text = _EXPORT.sub(r"\1", text)
        if name != FIRST:
            text = f'modules["{name}"] = (() => {{\n{text}return {{ {exported} }};\n}})();'
        parts.append(text)
    return "\n".join(parts)


def _in_order(name, order):
    """Return the modules that one imports, directly or not, and itself after them."""
    for _, imported in _IMPORT.findall(_text(name)):
        if imported not in order:
            _in_order(imported, order)
    order.append(name)
    return order


def _text(name):
    """Return the text of one of the page's files."""
    return (WEB / name).read_text(encoding="utf-8")
