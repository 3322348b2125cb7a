"""The losses as their papers have them, one place at a time, in float64.

Maps are B C H W, `valid` is B H W; a `projector`, where there is one, is C_teacher × C_student.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def divergence(p: Array, q: Array) -> float:
    return float((p * np.log(p / q)).sum())


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def pearson(a: Array, b: Array) -> float:
    return cosine(a - a.mean(), b - b.mean())


def places(valid: Mask) -> Iterator[tuple[int, int, int]]:
    yield from ((int(b), int(y), int(x)) for b, y, x in np.argwhere(valid))


def images(valid: Mask) -> Iterator[int]:
    yield from (b for b in range(len(valid)) if valid[b].any())


def projected(student: Array, projector: Array | None) -> Array:
    return student if projector is None else np.einsum("tc,bcyx->btyx", projector, student)


def pixelwise(student: Array, teacher: Array, valid: Mask, temperature: float) -> float:
    """Liu et al., 2019, equation 1; temperature as in Hinton et al., 2015."""
    terms = [
        divergence(softmax(teacher[b, :, y, x] / temperature), softmax(student[b, :, y, x] / temperature))
        for b, y, x in places(valid)
    ]
    return temperature**2 * float(np.mean(terms))


def pairwise(student: Array, teacher: Array, valid: Mask, pooling: str) -> float:
    """Liu et al., 2019, equation 2, on nodes of 2×2 pixels; a node that is padded is so as a whole."""

    def nodes(maps: Array, inside: Mask) -> list[Array]:
        corners = [(y, x) for y in range(0, maps.shape[1], 2) for x in range(0, maps.shape[2], 2)]
        patches = [maps[:, y : y + 2, x : x + 2] for y, x in corners if inside[y : y + 2, x : x + 2].all()]
        return [patch.mean((1, 2)) if pooling == "mean" else patch.max((1, 2)) for patch in patches]

    terms = []
    for b in images(valid):
        ours, theirs = nodes(student[b], valid[b]), nodes(teacher[b], valid[b])
        for i in range(len(ours)):
            for j in range(len(ours)):
                terms.append((cosine(ours[i], ours[j]) - cosine(theirs[i], theirs[j])) ** 2)
    return float(np.mean(terms))


def local(student: Array, teacher: Array, valid: Mask) -> float:
    """The same between a place and its 8 neighbours."""
    terms = []
    for b, y, x in places(valid):
        for v in range(max(0, y - 1), min(valid.shape[1], y + 2)):
            for u in range(max(0, x - 1), min(valid.shape[2], x + 2)):
                if (v, u) != (y, x) and valid[b, v, u]:
                    ours = cosine(student[b, :, y, x], student[b, :, v, u])
                    theirs = cosine(teacher[b, :, y, x], teacher[b, :, v, u])
                    terms.append((ours - theirs) ** 2)
    return float(np.mean(terms))


def channelwise(
    student: Array, teacher: Array, valid: Mask, temperature: float, projector: Array | None = None
) -> float:
    """Shu et al., 2021."""
    student = projected(student, projector)
    terms = [
        divergence(
            softmax(teacher[b, c][valid[b]] / temperature),
            softmax(student[b, c][valid[b]] / temperature),
        )
        for b in images(valid)
        for c in range(student.shape[1])
    ]
    return temperature**2 * float(np.mean(terms))


def attention(student: Array, teacher: Array, valid: Mask) -> float:
    """Zagoruyko and Komodakis, 2017, equation 2, p = 2, squared."""

    def unit(maps: Array, inside: Mask) -> Array:
        seen = np.array([maps[:, y, x] @ maps[:, y, x] for y, x in np.argwhere(inside)])
        return seen / np.sqrt(seen @ seen)

    return float(
        np.mean([((unit(student[b], valid[b]) - unit(teacher[b], valid[b])) ** 2).sum() for b in images(valid)])
    )


def hint(student: Array, teacher: Array, valid: Mask, projector: Array) -> float:
    """Romero et al., 2015, equation 3, as a mean."""
    terms = [(projector @ student[b, :, y, x] - teacher[b, :, y, x]) ** 2 for b, y, x in places(valid)]
    return float(np.mean(terms))


def dist(student: Array, teacher: Array, valid: Mask, inter: float, intra: float) -> float:
    """Huang et al., 2022; a sample is a pixel."""
    q, p = (np.array([softmax(maps[b, :, y, x]) for b, y, x in places(valid)]) for maps in (student, teacher))
    classes = [1 - pearson(q[i], p[i]) for i in range(q.shape[0])]
    pixels = [1 - pearson(q[:, k], p[:, k]) for k in range(q.shape[1])]
    return inter * float(np.mean(classes)) + intra * float(np.mean(pixels))
