"""The formulas of the losses' papers, one position at a time, in float64.

Maps are B C H W, `valid` is B H W; a `projector`, where there is one, is C_teacher × C_student; `classes` is B H W with
IGNORE_INDEX where a position has none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segkd.types import IGNORE_INDEX

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]


def compute_softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def compute_divergence(p: Array, q: Array) -> float:
    return float((p * np.log(p / q)).sum())


def compute_cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def compute_pearson(a: Array, b: Array) -> float:
    return compute_cosine(a - a.mean(), b - b.mean())


def iterate_positions(valid: Mask) -> Iterator[tuple[int, int, int]]:
    yield from ((int(b), int(y), int(x)) for b, y, x in np.argwhere(valid))


def iterate_images(valid: Mask) -> Iterator[int]:
    yield from (b for b in range(len(valid)) if valid[b].any())


def compute_pixelwise(student: Array, teacher: Array, valid: Mask, temperature: float) -> float:
    """Liu et al., 2019, equation 1; temperature as in Hinton et al., 2015."""
    terms = [
        compute_divergence(
            compute_softmax(teacher[b, :, y, x] / temperature), compute_softmax(student[b, :, y, x] / temperature)
        )
        for b, y, x in iterate_positions(valid)
    ]
    return temperature**2 * float(np.mean(terms))


def compute_pairwise(student: Array, teacher: Array, valid: Mask, pooling: str) -> float:
    """Liu et al., 2019, equation 2, on nodes of 2×2 pixels that are padded entirely or not at all."""

    def pool_nodes(maps: Array, inside: Mask) -> list[Array]:
        corners = [(y, x) for y in range(0, maps.shape[1], 2) for x in range(0, maps.shape[2], 2)]
        patches = [maps[:, y : y + 2, x : x + 2] for y, x in corners if inside[y : y + 2, x : x + 2].all()]
        return [patch.mean((1, 2)) if pooling == "mean" else patch.max((1, 2)) for patch in patches]

    terms = []
    for b in iterate_images(valid):
        s, t = pool_nodes(student[b], valid[b]), pool_nodes(teacher[b], valid[b])
        for i in range(len(s)):
            for j in range(len(s)):
                terms.append((compute_cosine(s[i], s[j]) - compute_cosine(t[i], t[j])) ** 2)
    return float(np.mean(terms))


def compute_local(student: Array, teacher: Array, valid: Mask) -> float:
    """Compute the same between a position and its 8 neighbors."""
    terms = []
    for b, y, x in iterate_positions(valid):
        for v in range(max(0, y - 1), min(valid.shape[1], y + 2)):
            for u in range(max(0, x - 1), min(valid.shape[2], x + 2)):
                if (v, u) != (y, x) and valid[b, v, u]:
                    cosines = [compute_cosine(maps[b, :, y, x], maps[b, :, v, u]) for maps in (student, teacher)]
                    terms.append((cosines[0] - cosines[1]) ** 2)
    return float(np.mean(terms))


def compute_channelwise(
    student: Array, teacher: Array, valid: Mask, temperature: float, projector: Array | None = None
) -> float:
    """Shu et al., 2021."""
    if projector is not None:
        student = np.einsum("tc,bcyx->btyx", projector, student)
    terms = [
        compute_divergence(
            compute_softmax(teacher[b, c][valid[b]] / temperature),
            compute_softmax(student[b, c][valid[b]] / temperature),
        )
        for b in iterate_images(valid)
        for c in range(student.shape[1])
    ]
    return temperature**2 * float(np.mean(terms))


def compute_attention(student: Array, teacher: Array, valid: Mask) -> float:
    """Zagoruyko and Komodakis, 2017, equation 2, p = 2, squared."""

    def compute_map(maps: Array, inside: Mask) -> Array:
        attention = np.array([maps[:, y, x] @ maps[:, y, x] for y, x in np.argwhere(inside)])
        return attention / np.sqrt(attention @ attention)

    differences = [compute_map(student[b], valid[b]) - compute_map(teacher[b], valid[b]) for b in iterate_images(valid)]
    return float(np.mean([(difference**2).sum() for difference in differences]))


def compute_hint(student: Array, teacher: Array, valid: Mask, projector: Array) -> float:
    """Romero et al., 2015, equation 3, as a mean."""
    terms = [(projector @ student[b, :, y, x] - teacher[b, :, y, x]) ** 2 for b, y, x in iterate_positions(valid)]
    return float(np.mean(terms))


def compute_dist(student: Array, teacher: Array, valid: Mask, inter: float, intra: float) -> float:
    """Huang et al., 2022; a sample is a pixel."""
    q, p = (
        np.array([compute_softmax(maps[b, :, y, x]) for b, y, x in iterate_positions(valid)])
        for maps in (student, teacher)
    )
    classes = [1 - compute_pearson(q[i], p[i]) for i in range(q.shape[0])]
    pixels = [1 - compute_pearson(q[:, k], p[:, k]) for k in range(q.shape[1])]
    return inter * float(np.mean(classes)) + intra * float(np.mean(pixels))


def compute_ifvd(student: Array, teacher: Array, classes: Labels) -> float:
    """Wang et al., 2020: mean over positions of (v_i^student − v_i^teacher)², v_i = cos(f_i, μ_c(i))."""

    def compute_similarity(maps: Array, image: int, row: int, column: int) -> float:
        region = np.argwhere(classes[image] == classes[image, row, column])
        center = np.mean([maps[image, :, y, x] for y, x in region], axis=0)
        return compute_cosine(maps[image, :, row, column], center)

    squares = [
        (compute_similarity(student, *position) - compute_similarity(teacher, *position)) ** 2
        for position in iterate_positions(classes != IGNORE_INDEX)
    ]
    return float(np.mean(squares))


def compute_cirkd(student: Array, teacher: Array, valid: Mask, temperature: float, side: int = 1) -> float:
    """Yang et al., 2022: mean over ordered pairs of images and the positions of the first of KL(p ‖ q)."""

    def compute_similarities(position: Array, others: Array) -> Array:
        return compute_softmax(np.array([compute_cosine(position, other) for other in others]) / temperature)

    student_nodes, teacher_nodes = (
        _pool_valid_positions(student, valid, side),
        _pool_valid_positions(teacher, valid, side),
    )
    divergences = []
    images = [image for image, nodes in enumerate(student_nodes) if len(nodes)]
    for m in images:
        for n in images:
            for a in range(len(student_nodes[m])):
                p = compute_similarities(teacher_nodes[m][a], teacher_nodes[n])
                q = compute_similarities(student_nodes[m][a], student_nodes[n])
                divergences.append(compute_divergence(p, q))
    return float(np.mean(divergences))


def _pool_valid_positions(maps: Array, valid: Mask, side: int) -> list[Array]:
    """Return for each image the mean features of the squares that hold a valid position, n C."""
    _, _, height, width = maps.shape
    squares = [(slice(y, y + side), slice(x, x + side)) for y in range(0, height, side) for x in range(0, width, side)]
    return [
        np.array([image[:, y, x][:, mask[y, x]].mean(1) for y, x in squares if mask[y, x].any()])
        for image, mask in zip(maps, valid, strict=True)
    ]
