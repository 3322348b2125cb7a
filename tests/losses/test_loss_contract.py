"""Every loss that has a yaml keeps the contract of `check_part/loss_contract.py`; a new yaml is tested automatically."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.findings import Finding
from segkd.check_part.loss_contract import CHECKS, check_loss
from segkd.config.instantiate import parse_spec
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.types import Step
from tests.helpers.faulty_losses import FAULTY, FeatureL1, Returns
from tests.helpers.losses import SPECS, YAMLS


@pytest.mark.parametrize("name", SPECS)
def test_loss_keeps_the_contract(name: str) -> None:
    findings = check_loss(parse_spec(SPECS[name]).build)
    assert [finding.line for finding in findings] == [*CHECKS]
    assert [str(finding) for finding in findings if finding.is_fault] == []


def test_exemptions() -> None:
    exemptions = {name: set(parse_spec(spec).build().exemptions) for name, spec in SPECS.items()}
    assert {name: lines for name, lines in exemptions.items() if lines} == {
        "cross_entropy": {"zero_at_equality", "labels_do_not_matter"},
        "hint": {"zero_at_equality"},
        "local": {"crop_invariance"},
        "ifvd": {"labels_do_not_matter"},
        "cirkd": {"process_invariance"},
        "cirkd_memory": {"crop_invariance", "labels_do_not_matter"},
        "lovasz": {"zero_at_equality", "labels_do_not_matter"},
    }
    assert len(SPECS) == len(YAMLS) >= 12


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("weight", [-0.5, float("nan")])
def test_negative_weight_is_refused(name: str, weight: float) -> None:
    with pytest.raises(
        UserError, match=f"weight must be 0 or more, not {weight}: a negative one would teach the opposite"
    ):
        parse_spec({**SPECS[name], "weight": weight}).build()


def find(findings: list[Finding], line: str) -> Finding:
    return next(finding for finding in findings if finding.line == line)


def test_loss_of_the_documentation_keeps_the_contract() -> None:
    """Positive control of the losses below."""
    assert [str(finding) for finding in check_loss(FeatureL1) if finding.is_fault] == []


@pytest.mark.parametrize(("line", "index"), [(line, i) for line in CHECKS for i in range(len(FAULTY[line]))])
def test_faults_are_detected_in_a_sentence(line: str, index: int) -> None:
    build, sentence = FAULTY[line][index]
    finding = find(check_loss(build, lines=[line]), line)
    assert finding.verdict == "FAILS"
    assert re.search(sentence, finding.detail), finding.detail
    assert "\n" not in finding.detail


class FullSize(Loss):
    """Compares logits at the size of the images, by the sum over positions."""

    def forward(self, step: Step) -> Tensor:
        assert step.teacher is not None
        size = (step.batch.valid.shape[1], step.batch.valid.shape[2])
        student, teacher = step.student.logits_at(size), step.teacher.logits_at(size).detach()
        return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")


def test_loss_may_compare_at_the_size_of_the_images() -> None:
    lines = ["teacher_is_resized_by_its_own_convention", "zero_at_equality"]
    assert [finding.verdict for finding in check_loss(FullSize, lines=lines)] == ["keeps"] * 3


def test_nothing_else_is_checked_of_a_loss_that_returns_no_scalar() -> None:
    assert [finding.line for finding in check_loss(lambda: Returns(0.5))] == ["returns_a_scalar"]


def test_exemptions_that_hold_no_more_are_faults() -> None:
    kind = type("Exempt", (FeatureL1,), {"exemptions": {"crop_invariance": "once", "batch": "unknown"}})
    findings = check_loss(kind, lines=["crop_invariance"])
    assert str(find(findings, "crop_invariance")) == (
        "crop_invariance FAILS: declared exempt ('once') and kept; remove it from `exemptions`"
    )
    assert "it names batch, which is no line of the contract" in find(findings, "exemptions").detail


def test_crash_is_no_exemption() -> None:
    class Crashing(FeatureL1):
        exemptions = {"sums_in_float32": "bfloat16 is not needed"}

        def forward(self, step: Step) -> Tensor:
            if step.student.logits.dtype == torch.bfloat16:
                raise RuntimeError("not implemented")
            return super().forward(step)

    finding = find(check_loss(Crashing, lines=["sums_in_float32"]), "sums_in_float32")
    assert finding.is_fault
    assert finding.detail.startswith("RuntimeError: not implemented")


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(UserError, match=r"Conv2d is no loss; make it a subclass of segkd\.losses\.base\.Loss"):
        check_loss(lambda: torch.nn.Conv2d(1, 1, 1))  # type: ignore[arg-type,return-value]
    with pytest.raises(
        UserError, match=r"refuses networks of 5 classes .*no feature 'stride4'.*; give those it needs with features="
    ):
        check_loss(lambda: FeatureL1(feature="stride4"))
    findings = check_loss(
        lambda: FeatureL1(feature="stride4"), features=["stride4"], lines=["refuses_missing_features"]
    )
    assert [str(finding) for finding in findings] == ["returns_a_scalar keeps", "refuses_missing_features keeps"]
