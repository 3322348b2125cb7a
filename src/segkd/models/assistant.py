"""Labels in a network's input: a teacher of the student's own size that is told more than the image shows.

Qiu et al., 2024 ("Make a Strong Teacher with Label Assistance", 2407.13254). Whoever has the labels says so around the network, as
`with known_labels(target, keys)`; without them the network answers from the image alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.layers import uniform

_known: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("known_labels", default=None)

WIDTH = 16
PIXEL_NOISE = 0.03
_CLASS_SALT, _PIXEL_SALT = 0x1ABE1, 0x1ABE2
_NEVER_INFINITE = 1e-6


@contextmanager
def known_labels(target: Tensor, keys: Tensor) -> Iterator[None]:
    """Within it, networks with an assistant read the labels, B H W, of the images that they are given, and draw from their keys, B."""
    token = _known.set((target, keys))
    try:
        yield
    finally:
        _known.reset(token)


class LabelAssistant(nn.Module):
    """Adds to normalised images what their labels say of them, through a noise:

        x ← x + W₂ ⋆ relu(W₁ ⋆ s),    s_p = place(y_p) + v(y_p) + ε_p

    The places of the classes, void after the last, lie evenly in [-1, 1]. In training each class of each image has a `v` of its own
    from N(0, σ²), and each pixel an ε from N(0, 0.03²): the less noise, the more the network is told. With σ of 1 and more little is left
    but which pixels belong together, as in the authors' code, which has no places. In evaluation nothing is drawn.

    The paper widens the first convolution by one channel. Two convolutions before it leave any network as it is, and W₂ starts
    at zero, so that training starts from that network. Its second path with other noise, and the loss between the two, are left out:
    a step here has one forward pass.

    Args:
        classes: of the labels.
        noise: σ; the places of two neighbours are 2 / `classes` apart.
    """

    def __init__(self, classes: int, noise: float = 0.0) -> None:
        super().__init__()
        self.classes, self.noise = classes, noise
        self.read = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.add = nn.Conv2d(WIDTH, 3, 3, padding=1, bias=False)
        nn.init.zeros_(self.add.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images B 3 H W, with what their labels say; as they are where no labels are known.

        Raises:
            UserError: the labels are of other images, by their size.
        """
        known = _known.get()
        if known is None:
            return images
        target, keys = known
        if target.shape != images[:, 0].shape:
            raise UserError(
                f"labels of {tuple(target.shape)} were given beside images of {tuple(images.shape)}; "
                "a network that reads labels needs those of the same pixels"
            )
        said: Tensor = self.add(self.read(self._told(target, keys).to(images)).relu())
        return images + said

    def _told(self, target: Tensor, keys: Tensor) -> Tensor:
        """s, B 1 H W."""
        labels = target.clamp(max=self.classes).flatten(1)  # void is the class after the last
        told = torch.linspace(-1, 1, self.classes + 1, device=target.device)[labels]
        if self.training:
            told = told + self.noise * _normal(keys, self.classes + 1, _CLASS_SALT).gather(1, labels)
            told = told + PIXEL_NOISE * _normal(keys, labels.shape[1], _PIXEL_SALT)
        return told.view_as(target)[:, None]


def _normal(keys: Tensor, count: int, salt: int) -> Tensor:
    """`count` numbers from N(0, 1) for each key, B count."""
    drawn: Tensor = torch.special.ndtri(uniform(keys, count, salt).clamp(_NEVER_INFINITE, 1 - _NEVER_INFINITE))
    return drawn
