"""Which processes were started together, by the variables that torchrun and Slurm set."""

from __future__ import annotations

import pytest

from segkd.utils.processes import Launcher, find_launcher, is_rank_zero

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "WORLD_SIZE": "4",
}  # fmt: skip
BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, None, id="a plain process"),
        pytest.param(TORCHRUN, Launcher("torchrun", 2, 2, 4), id="torchrun"),
        pytest.param({**BATCH, **TORCHRUN}, Launcher("torchrun", 2, 2, 4), id="torchrun in Slurm"),
        pytest.param({**TORCHRUN, "WORLD_SIZE": "3"}, Launcher("torchrun", 2, 2, 3), id="unequal machines"),
        pytest.param(STEP, Launcher("srun", 4, 2, 8), id="srun"),
        pytest.param(
            {**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"},
            Launcher("srun", 2, 1, 2),
            id="a step smaller than its allocation",
        ),
        pytest.param({**STEP, "SLURM_JOB_NAME": "interactive"}, Launcher("srun", 4, 2, 8), id="srun in salloc"),
        pytest.param(BATCH, None, id="a batch script without srun"),
        pytest.param({**BATCH, "SLURM_JOB_NAME": "bash"}, None, id="a shell of salloc"),
        pytest.param({**BATCH, "SLURM_STEP_ID": str(0xFFFFFFFA)}, None, id="a shell in an interactive step"),
        pytest.param({**BATCH, "SLURM_STEP_ID": str(0xFFFFFFFB)}, None, id="a batch step"),
        pytest.param({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None, id="a notebook or a shell that srun started"),
    ],
)
def test_launcher(environment: dict[str, str], expected: Launcher | None) -> None:
    assert find_launcher(environment) == expected


def test_first_process_of_another_machine_is_not_the_first_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_rank_zero()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_rank_zero()
