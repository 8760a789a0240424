"""How far apart two right implementations may be. Bounds of whole passes are in ``npgemma/porting/backends.py``.

Each bound is about three times the largest error seen when it was written down; the errors are in the comments. They
differ between processors and BLAS libraries, hence the factor; they are far below what any mistake causes.
"""

# One operation or one layer, relative L2 against torch's own primitive.
OPERATION = {
    "float64": 2e-15,  # largest seen 5.1e-16
    "float32": 1e-6,  # largest seen 2.9e-7
}

# The mask decoder, thirteen convolutions deep.
MASKS = {
    "float64": 8e-15,  # largest seen 2.4e-15
    "float32": 4e-6,  # largest seen 1.4e-6
}
