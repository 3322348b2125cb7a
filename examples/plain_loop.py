"""Distill a teacher into a student in a plain PyTorch loop: `python plain_loop.py`, seconds on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from segkd.losses.functional import cross_entropy_loss, pairwise_loss, pixelwise_loss

COLORS = torch.tensor([[0.2, 0.4, 0.6], [0.5, 0.5, 0.4], [0.6, 0.3, 0.3]])  # of three classes


def make_data(count: int, seed: int) -> TensorDataset:
    """Your data: pairs of an image, 3 H W, and class indices, H W, 255 where unlabeled."""
    generator = torch.Generator().manual_seed(seed)
    target = F.interpolate(torch.randn(count, 3, 5, 5, generator=generator), size=(64, 64), mode="bicubic").argmax(1)
    images = COLORS[target].movedim(3, 1) + 0.4 * torch.randn(count, 3, 64, 64, generator=generator)
    target[:, :4] = 255
    return TensorDataset(images, target)


class Network(nn.Module):
    """Your network: any module that returns logits, B K h w, and a feature map, B C h w."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(3, width, 4, stride=4), *(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))]
        self.encoder = nn.Sequential(*(nn.Sequential(c, nn.BatchNorm2d(width), nn.ReLU()) for c in convolutions))
        self.classifier = nn.Conv2d(width, 3, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        return self.classifier(features), features


def train(name: str, network: nn.Module, teacher: nn.Module | None = None, epochs: int = 4) -> None:
    """Train on labels and, with a teacher, on its logits and features too."""
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=0.003), []
    for _ in range(epochs):
        for images, target in DataLoader(make_data(128, seed=0), batch_size=8, shuffle=True):
            logits, features = network(images)
            loss = cross_entropy_loss(F.interpolate(logits, size=target.shape[1:], mode="bilinear"), target)
            if teacher is not None:
                with torch.no_grad():
                    teacher_logits, teacher_features = teacher(images)
                loss = loss + 10 / 3 * pixelwise_loss(logits, teacher_logits)  # 10/K and 10: Liu et al., 2019
                loss = loss + 10 * pairwise_loss(features, teacher_features)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    images, target = make_data(64, seed=1).tensors
    predicted = F.interpolate(network.eval()(images)[0], size=target.shape[1:], mode="bilinear").argmax(1)
    accuracy = (predicted == target)[target != 255].float().mean()
    print(f"{name}: loss {losses[0]:.3f} → {losses[-1]:.3f}, pixel accuracy {accuracy:.1%}")


torch.manual_seed(0)
train("teacher", teacher := Network(width=32))
train("student", Network(width=8), teacher)
