"""Points that fill a cube evenly, one per recipe: the quasi-random numbers behind the stage `reach`.

A recipe knows its seed and nothing of the recipes before it, so evenness must come from the seed alone. Sobol's
sequence, indexed by the seed, puts 2^m points of any aligned block of 2^m seeds into 2^m equal cells each. Every name
(a task's arm, a task's k-th grasp) gets a sequence of its own: the index is shuffled and the coordinates are scrambled
by nested uniform permutations (Owen's, by hashing), which keep aligned blocks together; so each name is spread, and
the names are independent of each other (padding; Burley, "Practical hash-based Owen scrambling", JCGT 9(4), 2020).
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

# Direction numbers of Joe and Kuo (new-joe-kuo-6.21201), first five dimensions: degree, polynomial, initial numbers.
_JOE_KUO = ((1, 0, (1,)), (2, 1, (1, 3)), (3, 1, (1, 3, 1)), (3, 2, (1, 1, 1)))
BITS = 32
DIMENSIONS = 1 + len(_JOE_KUO)
_MASK = (1 << BITS) - 1


def spread_point(name: str, index: int, dimensions: int) -> np.ndarray:
    """Point `index` of the sequence called `name`, f64[dimensions] in [0, 1).

    Raises `ValueError` for more than five dimensions, or an index of more than 32 bits.
    """
    if not 1 <= dimensions <= DIMENSIONS or not 0 <= index <= _MASK:
        raise ValueError(f"spread: {dimensions=}, {index=}, expected 1 to {DIMENSIONS} and {BITS} bits")
    key = hashlib.blake2b(name.encode(), digest_size=4 * (dimensions + 1)).digest()
    seeds = [int.from_bytes(key[4 * i : 4 * i + 4], "little") for i in range(dimensions + 1)]
    shuffled = _scramble(index, seeds[0])
    point = [_scramble(_sobol(shuffled, d), seeds[d + 1]) for d in range(dimensions)]
    return np.asarray(point, dtype=np.float64) / float(1 << BITS)


@cache
def _directions(dimension: int) -> tuple[int, ...]:
    """The direction numbers of one dimension, as fractions of 2^32."""
    if dimension == 0:
        return tuple(1 << (BITS - 1 - i) for i in range(BITS))
    degree, polynomial, initial = _JOE_KUO[dimension - 1]
    v = [m << (BITS - 1 - i) for i, m in enumerate(initial)]
    for i in range(degree, BITS):
        value = v[i - degree] ^ (v[i - degree] >> degree)
        for k in range(1, degree):
            value ^= ((polynomial >> (degree - 1 - k)) & 1) * v[i - k]
        v.append(value)
    return tuple(v)


def _sobol(index: int, dimension: int) -> int:
    """Coordinate of point `index`, not in Gray-code order, as a fraction of 2^32."""
    value = 0
    for i, direction in enumerate(_directions(dimension)):
        if index >> i & 1:
            value ^= direction
    return value


def _reverse(x: int) -> int:
    return int(f"{x:032b}"[::-1], 2)


def _scramble(x: int, seed: int) -> int:
    """Owen's nested uniform permutation of the 32-bit fraction `x`: each bit flips by a hash of those above it."""
    x = _reverse(x)
    x ^= x * 0x3D20ADEA & _MASK
    x = x + seed & _MASK
    x = x * (seed >> 16 | 1) & _MASK
    x ^= x * 0x05526C56 & _MASK
    x ^= x * 0x53A22864 & _MASK
    return _reverse(x)
