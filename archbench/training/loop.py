"""Trains one network from one seed, on one thread and in a fixed order, so that the same machine repeats it exactly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archbench.catalog.build import build
from archbench.catalog.networks.nonresidual import cifar_densenet
from archbench.model.cell import Network
from archbench.training.settings import SUBJECTS, Images, Point, Schedule, Settings, images_of

_TEST_BATCH = 500
_SHIFT = 4
"""Pixels by which augmented images move at most."""


def densenet22_k12(in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    """DenseNet of 22 layers that each append 12 channels (1608.06993): 267,000 parameters, as ResNet-20 has."""
    return cifar_densenet(22, 12, num_classes, in_channels, "classifier", compact=False)


_images = functools.cache(images_of)
"""Read once a process."""


def train(
    name: str, seed: int, settings: Settings, folder: str, stopped: Callable[[], bool] = lambda: False
) -> list[Point] | None:
    """What one training showed at each of its points; `None` where `stopped` said to give up.

    `folder`: of CIFAR-10, else `digits`. Ends at the first loss that is not finite, whose point says so.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=settings.device != "cpu")
    subject, images = SUBJECTS[name], _images(folder)
    schedule = settings.schedules[subject.kind]
    torch.manual_seed(seed)
    flat = subject.kind == "chain"
    channels = math.prod(images.train.shape[1:]) if flat else images.train.shape[1]
    net = build(Network(name=subject.network, options=subject.options, in_channels=int(channels)), allow_code=True)
    net = net.to(settings.device).train()
    if settings.device == "cpu":  # where convolutions of this layout take a tenth to a quarter less
        net = net.to(memory_format=torch.channels_last)
    return _train(net, name, seed, schedule, settings, images, flat=flat, stopped=stopped)


def _train(
    net: nn.Module, name: str, seed: int, schedule: Schedule, settings: Settings, images: Images,
    *, flat: bool, stopped: Callable[[], bool],
) -> list[Point] | None:  # fmt: skip
    weights = [one.weight for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    optimizer = torch.optim.SGD(
        net.parameters(),
        schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    milestones = [schedule.steps // 2, schedule.steps * 3 // 4]
    rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    every = max(1, schedule.steps // settings.points)
    points: list[Point] = []
    losses: list[Tensor] = []
    right: list[Tensor] = []
    for step, (inputs, labels) in enumerate(_batches(images, schedule, seed, settings.device, flat=flat), start=1):
        if stopped():
            return None
        outputs = net(inputs)
        loss = F.cross_entropy(outputs, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        right.append((outputs.argmax(1) == labels).float().mean())
        last = step % every == 0 or step == schedule.steps or not math.isfinite(losses[-1].item())
        if last:
            norms = tuple(float(weight.grad.norm()) for weight in weights if weight.grad is not None)
        optimizer.step()
        rate.step()
        if last:
            test_loss, test_accuracy = _tested(net, images, settings.device, flat=flat)
            points.append(
                Point(
                    network=name,
                    seed=seed,
                    step=step,
                    train_loss=float(torch.stack(losses).double().mean()),
                    train_accuracy=100 * float(torch.stack(right).double().mean()),
                    test_loss=test_loss,
                    test_accuracy=test_accuracy,
                    gradient_norms=norms,
                )
            )
            if not math.isfinite(points[-1].train_loss):
                break
            losses, right = [], []
    return points


def _batches(
    images: Images, schedule: Schedule, seed: int, device: str, *, flat: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """As many batches as there are steps; each pass over the images in an order of its own, drawn from `seed`."""
    random = np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    for _ in range(schedule.steps):
        if len(waiting) < schedule.batch_size:
            waiting = random.permutation(len(images.train))
        chosen, waiting = waiting[: schedule.batch_size], waiting[schedule.batch_size :]
        inputs = torch.from_numpy(images.train[chosen])
        if images.augmented:
            inputs = _augmented(inputs, random)
        inputs = inputs.flatten(1) if flat else inputs
        yield inputs.to(device), torch.from_numpy(images.train_labels[chosen]).to(device)


def _augmented(inputs: Tensor, random: np.random.Generator) -> Tensor:
    """Padded by four pixels, cut out at a random place, mirrored or not: each image by itself, as in 1512.03385."""
    padded = F.pad(inputs, (_SHIFT,) * 4)
    side = inputs.shape[-1]
    found = []
    for image in padded:
        top, left = (int(place) for place in random.integers(0, 2 * _SHIFT + 1, 2))
        cut = image[:, top : top + side, left : left + side]
        found.append(cut.flip(-1) if random.integers(2) else cut)
    return torch.stack(found)


def _tested(net: nn.Module, images: Images, device: str, *, flat: bool) -> tuple[float, float]:
    """Loss and accuracy in percent over the images that were kept back."""
    net.eval()
    total = right = 0.0
    with torch.no_grad():
        for start in range(0, len(images.test), _TEST_BATCH):
            inputs = torch.from_numpy(images.test[start : start + _TEST_BATCH]).to(device)
            labels = torch.from_numpy(images.test_labels[start : start + _TEST_BATCH]).to(device)
            outputs = net(inputs.flatten(1) if flat else inputs)
            total += float(F.cross_entropy(outputs, labels, reduction="sum"))
            right += float((outputs.argmax(1) == labels).sum())
    net.train()
    return total / len(images.test), 100 * right / len(images.test)
