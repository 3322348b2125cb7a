"""Comparing classes by name and order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.errors import UserError
from segkd.models.base import Normalization
from segkd.models.class_names import ClassCheck, check_classes, find_class_difference, has_classes
from segkd.models.ensemble import ClassRemap
from segkd.models.espnet import ESPNetC

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))


def build_network(outputs: int, classes: tuple[str, ...] | None) -> ESPNetC:
    network = ESPNetC(outputs, NORMALIZATION, p=1, q=1)
    network.classes = classes
    return network


@pytest.mark.parametrize(
    ("outputs", "known", "names", "check", "message"),
    [
        (2, ("a", "b"), ("a", "b"), "names", None),
        (2, ("Sky", " traffic  light"), ("sky", "Traffic Light"), "names", None),
        (2, ("la\u0308ufer", "b"), ("l\u00e4ufer", "b"), "names", None),
        (3, ("a", "b"), ("a", "b"), "names", None),  # and void
        (2, ("a", "b"), ("b", "a"), "names", r"class 0 is 'a' in FILE and 'b' in DATA \(the same names in another order\); CURE$"),
        (2, ("a", "b"), ("a", "c"), "names", r"class 1 is 'b' in FILE and 'c' in DATA; CURE, or give check_classes=count"),
        (2, ("a", "A"), ("A", "a"), "names", r"class 0 is 'a' in FILE and 'A' in DATA"),
        (2, ("a", "b"), ("b", "a"), "count", None),
        (3, ("a", "b", "c"), ("a", "b"), "names", r"FILE has 3 classes \(a, b, c\), DATA has 2 classes \(a, b\); CURE$"),
        (3, ("a", "b", "c"), ("a", "b"), "count", r"FILE has 3 classes"),
        (3, None, ("a", "b"), "names", None),  # nothing is known: the last output may be void
        (4, None, ("a", "b"), "names", r"FILE has 4 classes, DATA has 2; CURE"),
        (2, None, ("a", "b", "c"), "count", r"FILE has 2 classes, DATA has 3"),
    ],
)  # fmt: skip
def test_first_difference_is_named(
    outputs: int, known: tuple[str, ...] | None, names: tuple[str, ...], check: ClassCheck, message: str | None
) -> None:
    network = build_network(outputs, known)
    assert has_classes(network, names, check) == (message is None)
    if message is None:
        check_classes(network, names, check, "FILE", "DATA", "CURE")
    else:
        with pytest.raises(UserError, match=message):
            check_classes(network, names, check, "FILE", "DATA", "CURE")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=5, unique=True))
def test_an_order_equals_itself_alone(names: list[str]) -> None:
    assert find_class_difference(names, names) is None
    turned = names[::-1]
    assert find_class_difference(names, turned) is not None
    assert find_class_difference(names, turned, "count") is None
    assert find_class_difference(names, names[1:], "count") is not None


def test_class_map_may_name_the_networks_classes() -> None:
    network = build_network(4, ("Road", "lane", "sky", "ego")).eval()
    by_name = ClassRemap(network, {"way": ["road", "lane"], "above": ["sky"]}, ("above", "way"))
    by_index = ClassRemap(network, {"way": [0, 1], "above": 2}, ("above", "way"))  # type: ignore[dict-item]
    assert by_name.groups == by_index.groups == [[2], [0, 1]]
    assert by_name.classes == ("above", "way")
    images = torch.rand(1, 3, 64, 64) * 255
    assert torch.equal(by_name(images).logits, by_index(images).logits)
    with pytest.raises(UserError, match=r"class_map names 'tree'; the network's classes are Road, lane, sky, ego"):
        ClassRemap(network, {"way": ["tree"], "above": [2]}, ("above", "way"))
    with pytest.raises(
        UserError, match=r"names 'road'; the network's classes are not known by name: give indices, 0 to 3"
    ):
        ClassRemap(build_network(4, None), {"way": ["road"], "above": [2]}, ("above", "way"))
    with pytest.raises(UserError, match=r"class_map has 0 in two classes; .* of coarser classes cannot be mapped"):
        ClassRemap(network, {"way": [0], "above": [0]}, ("above", "way"))
