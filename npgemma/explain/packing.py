"""Arrays for the page: all in one block of bytes, which a browser opens as typed arrays without parsing numbers."""

import base64

import numpy as np

# Of NumPy's dtypes, those that JavaScript has typed arrays for, and their names there.
TYPES = {"float32": "Float32Array", "float64": "Float64Array", "int32": "Int32Array", "uint8": "Uint8Array"}
ALIGNMENT = 8


class Pack:
    """Collects arrays in one block.

    Examples
    --------
    >>> import numpy as np
    >>> pack = Pack()
    >>> pack.add(np.array([1.0, 2.0], dtype=np.float32))
    {'type': 'Float32Array', 'offset': 0, 'shape': [2]}
    >>> pack.add(np.array([3], dtype=np.uint8))
    {'type': 'Uint8Array', 'offset': 8, 'shape': [1]}
    >>> pack.add(np.array([3], dtype=np.uint8))
    {'type': 'Uint8Array', 'offset': 8, 'shape': [1]}
    """

    def __init__(self):
        self.parts, self.size, self.known = [], 0, {}

    def add(self, array):
        """Add an array; equal arrays are stored once.

        Parameters
        ----------
        array : array
            Of a dtype in `TYPES`.

        Returns
        -------
        dict
            Where it is: ``type``, ``offset`` in bytes, ``shape``.
        """
        array = np.ascontiguousarray(array)
        content = array.tobytes()
        key = (array.dtype.name, content)
        if key not in self.known:
            self.known[key] = self.size
            padding = -len(content) % ALIGNMENT
            self.parts.append(content + bytes(padding))
            self.size += len(content) + padding
        return {"type": TYPES[array.dtype.name], "offset": self.known[key], "shape": list(array.shape)}

    def floats(self, values):
        """Add numbers as float32."""
        return self.add(np.asarray(values, dtype=np.float32))

    def integers(self, values):
        """Add whole numbers as int32."""
        return self.add(np.asarray(values, dtype=np.int32))

    def bytes(self, content):
        """Add the content of a file."""
        return self.add(np.frombuffer(content, dtype=np.uint8))

    def text(self):
        """Return the whole block in base64."""
        return base64.b64encode(b"".join(self.parts)).decode("ascii")
