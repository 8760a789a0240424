"""The generated block of examples/paligemma.py: what the rest of that file needs of the forward files, in one piece."""

import ast
import functools
import re
import textwrap

from generated import ROOT

FILE = "examples/paligemma.py"
BLOCK = re.compile(r"(?<=^# generated: from npgemma/, by reports/readme.py\n).*(?=^# end\n)", re.M | re.S)
STEMS = "ops", "attention", "siglip", "projector", "rope", "mask", "gemma", "gemma2", "cache", "paligemma"
# In the towers' files functions of these names get the file's name in front.
TOWERS = "siglip", "gemma", "gemma2"
COMMON = "encode", "block", "run_blocks", "grouped_query_attention", "attend", "unembed"


class Source:
    """A forward file: its definitions by name, where its other names come from, and those that come from fast/."""

    def __init__(self, stem):
        self.stem, self.text = stem, (ROOT / f"npgemma/{stem}.py").read_text()
        self.tree = ast.parse(self.text)
        self.nodes = {node.name: node for node in self.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        modules = [(node.module, node.names) for node in self.tree.body if isinstance(node, ast.ImportFrom)]
        self.origins = {alias.name: module.rpartition(".")[2] for module, names in modules for alias in names}
        self.fast = {alias.name for module, names in modules if ".fast." in module for alias in names}

    def references(self, name):
        """Yield the file and the name of every definition that a definition names, itself included."""
        yield self.stem, name
        for child in ast.walk(self.nodes[name]):
            if isinstance(child, ast.Name):
                yield self.stem if child.id in self.nodes else self.origins.get(child.id), child.id
            elif isinstance(child, ast.Attribute) and self.origins.get(getattr(child.value, "id", None)) == "npgemma":
                yield child.value.id, child.attr

    def edited(self, name, names):
        """Return a definition with short docstrings, new names, nothing of fast/, and results returned at once."""
        node, gone, segment = self.nodes[name], set(self.fast), functools.partial(ast.get_source_segment, self.text)
        text = "\n".join(self.text.splitlines()[node.lineno - 1 : node.end_lineno])
        for each in ast.walk(node):
            if isinstance(each, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(each):
                text = text.replace(segment(each.body[0]), f'"""{first_line(each)}"""')
        for each in node.body:
            value = vars(each).get("value")
            if isinstance(value, ast.IfExp) and ast.unparse(value.orelse) in gone:
                text = text.replace(segment(value), segment(value.body))
            elif any(vars(child).get("id") in gone for child in ast.walk(each)):
                text = re.sub(rf"\n( *#.*\n)* *{re.escape(segment(each))}", "", text)
                gone |= {ast.unparse(target) for target in vars(each).get("targets", [])}
        for stem, other in self.references(name):
            text = re.sub(rf"(?<![\w.])({stem}\.)?{other}(?=\()", names.get((stem, other), other), text)
        return re.sub(r"^( +)(\w+) = (.*)\n +return \2$", r"\1return \3", text, flags=re.M)


def page():
    """Return the whole file, with its block made anew."""
    text, sources, needed = (ROOT / FILE).read_text(), {stem: Source(stem) for stem in STEMS}, set()
    keys = [(stem, name) for stem, source in sources.items() for name in source.nodes]
    names = {key: "_".join(key) if key[0] in TOWERS and key[1] in COMMON else key[1] for key in keys}
    rest = {node.id for node in ast.walk(ast.parse(BLOCK.sub("", text))) if isinstance(node, ast.Name)}
    waiting = {key for key in keys if names[key] in rest}
    while waiting:
        needed |= waiting
        found = {other for stem, name in waiting for other in sources[stem].references(name)}
        waiting = found & set(keys) - needed
    parts = []
    for stem, source in sources.items():
        title = textwrap.fill(f"---- {stem}.py: {first_line(source.tree)}", 118).replace("\n", "\n# ")
        edited = [source.edited(name, names) for name in source.nodes if (stem, name) in needed]
        parts.append(f"# {title}\n" + "\n\n".join(edited))
    return BLOCK.sub(lambda _: "\n" + "\n\n".join(parts) + "\n\n", text)


def first_line(node):
    """Return the first line of a docstring."""
    return ast.get_docstring(node).partition("\n")[0]
