"""The contract of a loss, line by line; `losses/base.py` says it in words.

In a test of one's own:

    def test_my_loss_keeps_the_contract():
        assert [str(finding) for finding in check_loss(MyLoss) if finding.is_fault] == []
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch

from segkd.check_part import loss_behavior, loss_values
from segkd.check_part.findings import Finding, check_line
from segkd.check_part.loss_case import LossCase
from segkd.losses.base import Loss

FIRST = "returns_a_scalar"
"""The line that all others build upon."""

CHECKS: Mapping[str, Callable[[LossCase], None]] = {
    FIRST: loss_behavior.check_returns_a_scalar,
    "reproducible": loss_behavior.check_reproducible,
    "odd_sizes": loss_values.check_odd_sizes,
    "nothing_valid": loss_values.check_nothing_valid,
    "zero_at_equality": loss_values.check_zero_at_equality,
    "batch_invariance": loss_values.check_batch_invariance,
    "crop_invariance": loss_values.check_crop_invariance,
    "process_invariance": loss_values.check_process_invariance,
    "padding_does_not_matter": loss_values.check_padding_does_not_matter,
    "labels_do_not_matter": loss_values.check_labels_do_not_matter,
    "only_the_student_gets_gradients": loss_behavior.check_only_the_student_gets_gradients,
    "leaves_the_step_unchanged": loss_behavior.check_leaves_the_step_unchanged,
    "sums_in_float32": loss_values.check_sums_in_float32,
    "zero_features": loss_behavior.check_zero_features,
    "teacher_is_resized_by_its_own_convention": loss_values.check_teacher_is_resized_by_its_own_convention,
    "teacher_of_other_classes": loss_values.check_teacher_of_other_classes,
    "works_without_teacher": loss_behavior.check_works_without_teacher,
    "refuses_missing_features": loss_behavior.check_refuses_missing_features,
    "parameters": loss_behavior.check_parameters,
    "state_dict_round_trip": loss_behavior.check_state_dict_round_trip,
    "weight": loss_behavior.check_weight,
    "compiles": loss_behavior.check_compiles,
}
"""Line of the contract → its check, which raises a `ContractFault`."""


def check_loss(
    build: Callable[..., Loss],
    classes: int = 5,
    features: Iterable[str] = (),
    lines: Iterable[str] = tuple(CHECKS),
) -> list[Finding]:
    """Return a finding for each line of the contract, on small maps of random numbers.

    Args:
        build: the class, or a function that returns a new loss; it is called without arguments, or with `weight` alone.
        classes: number of classes of student and teacher.
        features: names of the features that the loss reads, besides `encoder` and `kd_logits`.
        lines: what to check; by default everything. Nothing else is checked if the loss returns no scalar.

    Raises:
        UserError: what is built is no `Loss`, or refuses networks of these classes and features.
    """
    case = LossCase(build, classes, tuple(features))
    with torch.random.fork_rng(devices=[]):
        case.check_can_be_set_up()
        exemptions = case.build().exemptions
        findings = [check_line(FIRST, partial(CHECKS[FIRST], case), exemptions.get(FIRST))]
        if findings[0].is_fault:
            return findings
        for line in lines:
            if line != FIRST:
                findings.append(check_line(line, partial(CHECKS[line], case), exemptions.get(line)))
    if unknown := exemptions.keys() - CHECKS.keys():
        detail = f"it names {', '.join(sorted(unknown))}, which is no line of the contract; the lines are {', '.join(CHECKS)}"
        findings.append(Finding("exemptions", "FAILS", detail))
    return findings
