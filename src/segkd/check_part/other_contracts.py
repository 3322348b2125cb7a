"""Contracts of the smaller parts: optimizers, schedules, callbacks and loggers."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from segkd.check_part.findings import Finding, check_line, require

_POINTS = 11
_STEPS = 3


def check_optimizer(build: Callable[..., Optimizer]) -> list[Finding]:
    """Return a finding for each line of the contract of an optimizer, built as `build(params=[…])`."""
    return _check_all({"updates": _check_updates, "state_dict_round_trip": _check_optimizer_state}, build)


def check_schedule(build: Callable[..., Any]) -> list[Finding]:
    """Return a finding for each line of the contract of a schedule: a factor from the fraction of steps that are done."""
    return _check_all({"factors": _check_factors, "no_state": _check_no_state}, build)


def check_callback(build: Callable[..., Any]) -> list[Finding]:
    """Return a finding for each line of the contract of a callback: a checkpoint can hold its state."""
    return _check_all({"state_dict": _check_callback_state}, build)


def check_logger(build: Callable[..., Any]) -> list[Finding]:
    """Return a finding for each line of the contract of a logger: it has a name and takes rows of curves."""
    return _check_all({"name": _check_logger_name, "rows": _check_logger_rows}, build)


def _check_all(checks: Mapping[str, Callable[[Any], None]], build: Callable[..., Any]) -> list[Finding]:
    return [check_line(line, partial(check, build)) for line, check in checks.items()]


def _train(optimizer: Optimizer, network: nn.Module) -> None:
    images = torch.linspace(-1, 1, 6).view(2, 3)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


def _build_with_network(build: Callable[..., Optimizer]) -> tuple[Optimizer, nn.Linear]:
    torch.manual_seed(0)
    network = nn.Linear(3, 4)
    groups = [{"params": [network.weight]}, {"params": [network.bias], "weight_decay": 0.0}]
    return build(params=groups), network


def _check_updates(build: Callable[..., Optimizer]) -> None:
    optimizer, network = _build_with_network(build)
    rates = [group.get("lr") for group in optimizer.param_groups]
    require(None not in rates, "its groups have no 'lr', which the schedule sets")
    before = network.weight.detach().clone()
    _train(optimizer, network)
    require(not torch.equal(network.weight, before), f"{_STEPS} steps change no weight")
    require(bool(network.weight.isfinite().all()), f"the weights are NaN or infinite after {_STEPS} steps")


def _check_optimizer_state(build: Callable[..., Optimizer]) -> None:
    """Two optimizers with one state make the same step, so that a resumed run goes on exactly."""
    (first, network), (second, twin) = _build_with_network(build), _build_with_network(build)
    _train(first, network)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second.load_state_dict(torch.load(stored, weights_only=True))
    twin.load_state_dict(network.state_dict())
    _train(first, network)
    _train(second, twin)
    difference = float((network.weight - twin.weight).detach().abs().max())
    require(
        difference == 0,
        f"after loading its state dict the weights differ by up to {difference:.3g}; keep its state in self.state",
    )


def _list_factors(build: Callable[..., Any]) -> list[float]:
    schedule = build()
    return [schedule(i / (_POINTS - 1)) for i in range(_POINTS)]


def _check_factors(build: Callable[..., Any]) -> None:
    for i, factor in enumerate(_list_factors(build)):
        where = f"at progress {i / (_POINTS - 1):g}"
        is_number = isinstance(factor, (int, float))
        require(is_number, f"it returns an object of type {type(factor).__name__} {where}; return a float")
        require(0 <= factor < float("inf"), f"the factor of the learning rate is {factor:g} {where}; it is 0 or more")


def _check_no_state(build: Callable[..., Any]) -> None:
    """A factor follows from the progress alone, since no checkpoint holds the state of a schedule."""
    schedule, forward = build(), _list_factors(build)
    backward = [schedule(i / (_POINTS - 1)) for i in reversed(range(_POINTS))][::-1]
    different = [i / (_POINTS - 1) for i in range(_POINTS) if forward[i] != backward[i]]
    require(
        not different,
        f"the factor at progress {different[:1]} depends on earlier calls; compute it from the progress alone",
    )


def _check_callback_state(build: Callable[..., Any]) -> None:
    """The state passes through a checkpoint, which holds plain values and tensors only."""
    state = build().state_dict()
    require(isinstance(state, dict), f"state_dict returned an object of type {type(state).__name__}; return a dict")
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    build().load_state_dict(torch.load(stored, weights_only=True))


def _check_logger_name(build: Callable[..., Any]) -> None:
    name = build().name
    require(name is None or isinstance(name, str), f"its name is {name!r}; return a text")


def _check_logger_rows(build: Callable[..., Any]) -> None:
    """A logger takes the keys of a run, rows of numbers, and the end of the run."""
    logger = build()
    logger.log_hyperparams({"seed": 0, "trainer": {"max_epochs": 1}, "loss": ["cross_entropy"]})
    for step in range(_STEPS):
        logger.log_metrics({"train/total": 1.0, "val/miou": 0.5}, step)
    logger.save()
    logger.finalize("success")
