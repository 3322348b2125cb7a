"""The contract of a network, line by line; `models/base.py` says it in words.

In a test of one's own:

    def test_my_network_keeps_the_contract():
        network = MyNetwork(7, Normalization((110, 110, 110), (55, 55, 55)))
        assert [str(finding) for finding in check_network(network) if finding.is_fault] == []
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch

from segkd.check_part import network_maps, network_state
from segkd.check_part.findings import Finding, check_line
from segkd.models.base import SegmentationModel

FIRST = "features_as_declared"
"""The line that all others build upon."""

CHECKS: Mapping[str, Callable[[SegmentationModel], None]] = {
    FIRST: network_maps.check_features_as_declared,
    "same_features_in_evaluation": network_maps.check_same_features_in_evaluation,
    "min_size": network_maps.check_min_size,
    "every_parameter_gets_a_gradient": network_maps.check_every_parameter_gets_a_gradient,
    "batch_independence": network_maps.check_batch_independence,
    "repeatable_evaluation": network_maps.check_repeatable_evaluation,
    "bfloat16": network_maps.check_bfloat16,
    "arguments_rebuild_it": network_state.check_arguments_rebuild_it,
    "saved_student_loads": network_state.check_saved_student_loads,
    "class_keys": network_state.check_class_keys,
    "dropout_by_sample": network_state.check_dropout_by_sample,
    "compiles": network_maps.check_compiles,
    "traces": network_maps.check_traces,
}
"""Line of the contract → its check, which raises a `ContractFault`."""

OPTIONAL = ("dropout_by_sample", "compiles", "traces")
"""Lines that a network may lack: it trains, and trains less reproducibly, slower, or cannot be exported."""


def check_network(network: SegmentationModel, lines: Iterable[str] = tuple(CHECKS)) -> list[Finding]:
    """Return a finding for each line of the contract, on images of random numbers.

    Args:
        network: a new network of any number of classes; running statistics of its BatchNorm layers change.
        lines: what to check; by default everything. Nothing else is checked if its features are not as declared.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        findings = [check_line(FIRST, partial(CHECKS[FIRST], network))]
        if findings[0].is_fault:
            return findings
        for line in lines:
            if line != FIRST:
                findings.append(check_line(line, partial(CHECKS[line], network), is_optional=line in OPTIONAL))
    return findings
