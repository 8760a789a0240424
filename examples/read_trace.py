"""Read a trace and its manifest with the standard library and NumPy: what a reader in another language has to do.

    python cli.py trace --out trace.safetensors
    python examples/read_trace.py trace.safetensors

Prints every array in the order of the data flow: its shape, its norm, and the formula that made it.
"""

import json
import pathlib
import sys

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read(path):
    """Return the arrays of a safetensors file by name, and the manifest, if it is a trace."""
    content = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    manifest = json.loads(header.pop("__metadata__", {}).get("manifest", "null"))
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        numbers = np.frombuffer(content[start + begin : start + end], DTYPES[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return arrays, manifest


def main():
    """Print a trace, an array in a line."""
    arrays, manifest = read(sys.argv[1])
    for entry in manifest["arrays"]:
        if entry["same_as"] is None:
            norm = np.linalg.norm(np.nan_to_num(arrays[entry["name"]].astype(np.float64), neginf=0))
            print(f"{entry['name']}  {tuple(entry['shape'])}  {norm:.6g}  {entry['formula'] or 'an input'}")


if __name__ == "__main__":
    main()
