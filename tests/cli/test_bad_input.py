"""A user's mistake: one sentence with the cure, exit code 2, no traceback, and nothing left behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNet
from segkd.models.student_io import save_student
from tests.helpers.commands import Command, in_own_process
from tests.helpers.fake_datasets import write_camvid
from tests.helpers.refusals import RunsCode, assert_refused

QUICK = ("trainer=cpu", "trainer.max_epochs=1", "trainer.progress=false", "data.workers=0", "wandb.mode=disabled")
CAMVID = ("dataset=camvid", "dataset.root=camvid", "data.batch_size=2", "data.crop_size=[64,64]")
TEACHER = ("model@teacher=espnet", "teacher.checkpoint=teacher.safetensors", "check_teacher=off")
DISTILLED = (*TEACHER, "loss=[cross_entropy,pixelwise]")


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def find_first_label() -> Path:
    return sorted(Path("camvid/trainannot").glob("*.png"))[0]


def write_checkpoints(classes: int = 11) -> None:
    network = ESPNet(classes, Normalization((110,) * 3, (55,) * 3), p=1, q=1)
    save_student(network, Path(), {})
    for suffix in ("safetensors", "yaml"):
        Path(f"student.{suffix}").rename(f"teacher.{suffix}")
    Path("text.pth").write_text("not weights")
    Path("empty.pth").touch()
    Path("executes.pth").write_bytes(pickle.dumps({"weight": RunsCode()}))
    torch.save({"weight": RunsCode()}, "executes_zip.pth")
    torch.save({"body.weight": torch.zeros(3)}, "other.pth")


def remove_label() -> None:
    find_first_label().unlink()


def write_unknown_ids() -> None:
    label = cv2.imread(str(find_first_label()), cv2.IMREAD_UNCHANGED)
    label[0, :2] = (77, 99)
    cv2.imwrite(str(find_first_label()), label)


def crop_label() -> None:
    label = cv2.imread(str(find_first_label()), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(find_first_label()), np.ascontiguousarray(label[:-2]))


def truncate_label() -> None:
    content = find_first_label().read_bytes()
    find_first_label().write_bytes(content[: len(content) // 2])


MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # arguments → phrases of the sentence
    "misspelled key": (("trainer.max_epoch=3",), ("no key 'trainer.max_epoch'", "trainer.max_epochs")),
    "misspelled inner key": (("loss.cross_entropy.wieght=1",), ("loss.cross_entropy.wieght", "weight")),
    "added key": (("+student.depht=3",), ("student", "ESPNetC takes no 'depht'")),
    "unknown value": (("check_teacher=maybe",), ("check_teacher", "stop", "maybe")),
    "wrong type": (("trainer.max_epochs=abc",), ("trainer.max_epochs", "abc")),
    "unknown option": (("model@student=espnett",), ("espnett", "did you mean 'espnet'")),
    "unknown option like no other": (("model@student=xyz",), ("no model called 'xyz'; there are adapter, enet, ",)),
    "network in place of its keys": (("teacher=espnet",), ("teacher=espnet is not a network", "model@teacher=NAME")),
    "network without its role": (("model=espnet",), ("no key 'model'", "model@student=NAME")),
    "optimizer without its phase": (("optimizer=adamw",), ("no key 'optimizer'", "optimizer@optimizers.student=NAME")),
    "option with dashes": (("--max-epochs=3",), ("no option '--max-epochs'", "trainer.max_epochs=VALUE?")),
    "option with dashes and half its name": (("--epochs", "3"), ("no option '--epochs'", "trainer.max_epochs=VALUE?")),
    "key without its part and half its name": (("epochs=3",), ("no key 'epochs'", "trainer.max_epochs")),
    "a long list without its end": ((f"loss=[{'pixelwise,' * 40}",), ("cannot read 'loss=[pixelwise",)),
    "a folder without a key": (("configs",), ("cannot read 'configs'", "write KEY=VALUE")),
    "more micro-batches than images": (
        ("trainer.micro_batches=9",),
        ("micro_batches=9 is more than the 8 images of a batch",),
    ),
    "Hydra's option with a value": (("--run=runs/mine",), ("--run", "runs/mine", "keys are written without dashes")),
    "Hydra's option cut short": (("--config=mine",), ("ambiguous option", "keys are written without dashes")),
    "no width": (("student.width=0",), ("width must be 1 or more, not 0",)),
    "option without a key": (("--verbose",), ("no option '--verbose'", "KEY=VALUE; --help lists them")),
    "number in place of a name": (("trainer=4",), ("a config group takes a name", "trainer=cpu")),
    "root without its dataset": (("dataset.root=farm",), ("no key 'dataset.root'", "dataset=NAME dataset.root=DIR")),
    "unknown dataset": (("dataset=camvit",), ("camvit", "camvid")),
    "unknown loss": (("loss=[cross_entropy,pixelwize]",), ("pixelwize", "pixelwise")),
    "loss that is not selected": (("loss.pairwise.weight=3",), ("pairwise", "loss=[")),
    "foreign target": (("student._target_=os.system",), ("os.system", "not allowed")),
    "half precision": (("trainer.precision=16-mixed",), ("16-mixed", "bf16-mixed")),
    "precision as a number": (
        ("trainer.precision=32",),
        ("trainer.precision=32: it takes 32-true or bf16-mixed; did you mean trainer.precision=32-true?",),
    ),
    "one side of a crop": (
        ("data.crop_size=64",),
        ("data.crop_size=64: it takes [H,W] or null; did you mean data.crop_size=[64,64]?",),
    ),
    "list in parentheses": (
        ("data.crop_size=(64,64)",),
        ("a list has brackets, not parentheses; write 'data.crop_size=[64,64]'",),
    ),
    "list without brackets": (
        ("data.crop_size=64,64",),
        ("has several values; write 'data.crop_size=[64,64]' for a list", "add -m to run each"),
    ),
    "list that is not closed": (("loss=[pixelwise",), ("[ is not closed; write 'loss=[pixelwise]'",)),
    "fraction in place of a count": (("trainer.max_epochs=2.5",), ("did you mean trainer.max_epochs=2?",)),
    "number with a letter": (("optimizers.student.lr=1e-3x",), ("'lr' must be a number", "did you mean lr=0.001?")),
    "one tag": (("wandb.tags=a",), ("wandb.tags=a: it takes [TEXT,…]; did you mean wandb.tags=[a]?",)),
    "value in place of keys": (("data=5",), ("data=5: it has keys of its own, as in data.batch_size=VALUE",)),
    "losses that are none": (("++loss=5",), ("loss",)),
    "no letters outside ASCII": (("name=jürgen",), ("'ü' needs quotes; write 'name=\"jürgen\"'",)),
    "parentheses": (("name=run (1)",), ("'(' needs quotes; write 'name=\"run (1)\"'",)),
    "key that exists": (("+seed=1",), ("the key 'seed' exists; write it without '+'",)),
    "key of another framework": (("trainer.gpus=1",), ("there is no key 'trainer.gpus'; use 'trainer.devices'",)),
    "user without a home": (("dataset=folder", "dataset.root=~no_such_user/x"), ("there is no user 'no_such_user'",)),
    "missing search path": (("hydra.searchpath=[file://nowhere]",), ("hydra.searchpath: there is no folder nowhere",)),
    "no root": (("dataset=camvid",), ("dataset=camvid needs dataset.root=DIR", "segkd.download")),
    "missing folder": (("dataset=camvid", "dataset.root=nowhere"), ("there is no folder nowhere for dataset=camvid", "segkd.download")),
    "unknown split": (("data.val_split=validation",), ("no split 'validation'", "train, val, test")),
    "too large a batch": (("data.batch_size=5000",), ("data.batch_size=5000", "lower it")),
    "teacher without weights": (("model@teacher=espnet",), ("no weights", "teacher.checkpoint=FILE")),
    "weights without teacher": (("teacher.checkpoint=teacher.safetensors",), ("model@teacher=NAME",)),
    "loss without teacher": (("loss=[cross_entropy,pixelwise]",), ("'pixelwise' needs a teacher", "model@teacher=")),
    "discriminator without teacher": (("adversary=holistic",), ("needs a teacher",)),
    "missing checkpoint": (("student.checkpoint=nowhere.pth",), ("no checkpoint at nowhere.pth",)),
    "empty checkpoint": (("student.checkpoint=empty.pth",), ("empty.pth is empty",)),
    "no checkpoint": (("student.checkpoint=text.pth",), ("text.pth is not a checkpoint",)),
    "another network": (("student.checkpoint=other.pth",), ("other.pth holds no ESPNetC", "keys are missing")),
    "code in a pickle": (("student.checkpoint=executes.pth",), ("executes.pth", "would run code; refused")),
    "code in an archive": (("student.checkpoint=executes_zip.pth",), ("executes_zip.pth", "would run code; refused")),
    "code to resume from": (("resume=executes_zip.pth",), ("executes_zip.pth", "would run code; refused")),
    "nothing to resume": (("resume=nowhere.ckpt",), ("no checkpoint to resume at nowhere.ckpt",)),
    "weights to resume from": (("resume=other.pth",), ("holds no training state",)),
    "missing feature": (
        (*TEACHER, "loss=[cross_entropy,pairwise]", "loss.pairwise.feature=stride4"),
        ("no feature 'stride4'", "encoder"),
    ),
    "crop too small": (("data.crop_size=[16,16]",), ("data.crop_size=[16, 16]", "32")),
    "crop too small for the discriminator": (
        (*TEACHER, "adversary=holistic", "data.crop_size=[64,64]"),
        ("data.crop_size=[64, 64]", "16×16", "128"),
    ),
    "network of a missing package": (
        ("model@student=adapter", "student.network=mmseg.models.Net"),
        ("'mmseg' is not installed",),
    ),
    "pretrained weights of a network that has none": (
        ("model@teacher=espnet", "teacher.checkpoint=pretrained", "loss=[cross_entropy,pixelwise]"),
        ("checkpoint=pretrained is for model=adapter", "ESPNet starts at random"),
    ),
    "adapter without a network": (("model@student=adapter",), ("network=PACKAGE.CLASS",)),
    "ensemble as student": (("model@student=ensemble",), ("an ensemble has members",)),
    "ensemble of nothing": (
        ("model@teacher=ensemble", "teacher.members={first: {_target_: null}}", "loss=[cross_entropy,pixelwise]"),
        ("teacher.members.first names no network",),
    ),
    "incomplete class map": (
        (*DISTILLED, "teacher.class_map={sky: [0]}"),
        ("class_map leaves out building", "bicyclist"),
    ),
    "class map with an unknown class": (
        (*DISTILLED, "teacher.class_map={moon: [0]}"),
        ("class_map names moon", "the classes are sky"),
    ),
    "student with a class map": (("+student.class_map={sky: [0]}",), ("class_map leaves out",)),
    "unlabeled images without a teacher": (
        ("data.unlabeled=camvid/train",),
        ("needs a teacher and at least one distillation loss", "model@teacher=NAME"),
    ),
    "unlabeled images without a distillation loss": (
        (*TEACHER, "loss=[cross_entropy]", "adversary=none", "data.unlabeled=camvid/train"),
        ("needs a teacher and at least one distillation loss", "such a loss"),
    ),
    "no unlabeled images": ((*DISTILLED, "data.unlabeled=nowhere"), ("data.unlabeled=nowhere is no folder",)),
    "unlabeled ratio of zero": (("data.unlabeled_ratio=0",), ("data.unlabeled_ratio", "greater than 0")),
    "no such device": (("trainer.accelerator=tpu",), ("trainer.accelerator=tpu", "auto, cpu, gpu or cuda")),
    "no student": (("model@student=none",), ("no student given", "model@student=NAME")),
    "argument that follows from the dataset": (("+student.num_classes=7",), ("ESPNetC takes no 'num_classes'",)),
    "unknown argument of a dataset": (("+dataset.scenes=3",), ("dataset: Streets takes no 'scenes'",)),
    "argument of a network without arguments": (
        ("model@student=segnet", "+student.depth=3"),
        ("SegNet takes no 'depth' and no other key",),
    ),
    "checkpoint of a loss": (("+loss.cross_entropy.checkpoint=a.pth",), ("CrossEntropy takes no 'checkpoint'",)),
    "discriminator without updates": (
        (*TEACHER, "adversary=holistic", "adversary.n_critic=0"),
        ("n_critic must be 1 or more, not 0",),
    ),
    "no batches": (("trainer.limit_train_batches=0",), ("trainer.limit_train_batches", "greater than 0")),
    "fraction above one": (("trainer.limit_train_batches=1.5",), ("trainer.limit_train_batches", "1.5")),
    "reversed range": (("data.scale=[2.0,0.5]",), ("data.scale", "the least factor comes first")),
    "impossible schedule": (("schedule.power=-1",), ("power must be 0 or more, not -1",)),
    "impossible node": (
        (*TEACHER, "loss=[cross_entropy,pairwise]", "loss.pairwise.node_size=0"),
        ("node_size must be 1 or more, not 0",),
    ),
    "feature without class logits": (
        (*TEACHER, "loss=[cross_entropy,pixelwise]", "loss.pixelwise.feature=encoder"),
        ("feature 'encoder' has 256 channels", "teacher has 11 classes"),
    ),
    "folder that cannot be made": (("output_dir=text.pth/run",), ("cannot make the folder", "text.pth")),
    "impossible value": (("optimizers.student.lr=-1",), ("Adam", "-1")),
    "impossible temperature": (
        (*TEACHER, "loss=[cross_entropy,pixelwise]", "loss.pixelwise.temperature=0"),
        ("Pixelwise: temperature must be positive, not 0",),
    ),
    "missing value": (("trainer.on_nan=null",), ("trainer.on_nan needs a value; it takes stop or skip",)),
    "dry run that is not a boolean": (("dry_run=yes",), ("dry_run=yes: it takes true or false; did you mean dry_run=true?",)),
    "synchronized BatchNorm on CPUs": (("trainer.devices=2", "trainer.sync_batchnorm=true"), ("needs GPUs",)),
    "impossible EMA decay": (("trainer.ema=1",), ("trainer.ema", "less than 1")),
    "unknown handling of NaN": (("trainer.on_nan=ignore",), ("trainer.on_nan=ignore: it takes stop or skip",)),
    "no steps between checkpoints": (("checkpoint.every_steps=0",), ("checkpoint.every_steps", "greater than 0")),
    "key of an earlier version": (("preflight=warn",), ("no key 'preflight'; it is now 'check_teacher'",)),
    "group of an earlier version": (
        ("adversary=holistic", "adversary/form=hinge"),
        ("no key 'adversary/form'; it is now 'adversary/gan_loss'",),
    ),
    "update order of an earlier version": (
        ("adversary=holistic", "adversary.update_first=critic_first"),
        ("adversary.update_first: 'critic_first' is now 'discriminator'",),
    ),
    "features of an earlier version": (
        ("loss=[cross_entropy,hint]", "loss.hint.feature=scores", "adversary=holistic", "adversary.feature=scores"),
        ("loss.hint.feature: 'scores' is now 'kd_logits'; adversary.feature: 'scores' is now 'kd_logits'",),
    ),
    "weights of an earlier version": (
        ("model@teacher=adapter", "teacher.checkpoint=included"),
        ("teacher.checkpoint: 'included' is now 'pretrained'",),
    ),
    "option of an earlier version": (("preset=conference",), ("it is now 'skd_cvpr_code'",)),
    "key of Lightning": (
        ("trainer.accumulate_grad_batches=2",),
        ("no key 'trainer.accumulate_grad_batches'", "use trainer.micro_batches=N: the batch goes through the networks in N parts"),
    ),
    "micro-batches of a compiled network": (
        ("trainer.micro_batches=2", "trainer.compile=true"),
        ("do not go together",),
    ),
    "no micro-batches": (("trainer.micro_batches=0",), ("trainer.micro_batches",)),
    "negative seed": (("seed=-1",), ("seed", "-1")),
    "unreadable": (("name=a b=c",), ("cannot read 'name=a b=c': '=' needs quotes; write 'name=\"a b=c\"'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_refused_in_one_sentence(command: Command, name: str) -> None:
    write_checkpoints()
    arguments, phrases = MISTAKES[name]
    assert_refused(command("train", *QUICK, "output_dir=run", *arguments), *phrases)


@pytest.mark.parametrize(
    ("damage", "phrases"),
    [
        (remove_label, ("have no label", "trainannot")),
        (write_unknown_ids, ("holds the ids 77, 99", "CamVid allows 0–11", "trainannot")),
        (crop_label, ("but its label", "same size")),
        (truncate_label, ("is not a complete image", "trainannot")),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_data_is_refused_in_one_sentence(
    command: Command, damage: Callable[[], None], phrases: tuple[str, ...], workers: int
) -> None:
    write_camvid(Path("camvid"))
    damage()
    result = command("train", *QUICK, *CAMVID, f"data.workers={workers}", "output_dir=run")
    assert_refused(result, *phrases)


def test_teacher_with_other_classes_is_refused(command: Command) -> None:
    write_checkpoints(classes=19)
    result = command("train", *QUICK, *TEACHER, "loss=[cross_entropy,pixelwise]", "output_dir=run")
    assert_refused(result, "teacher.safetensors has 19 classes", "11")


def test_existing_run_is_not_overwritten(command: Command) -> None:
    Path("earlier").mkdir()
    Path("earlier/last.ckpt").write_text("precious")
    assert_refused(command("train", *QUICK, "output_dir=earlier"), "already holds a run", "resume=")
    assert Path("earlier/last.ckpt").read_text() == "precious"


@pytest.mark.process
def test_refusal_of_a_process(tmp_path: Path) -> None:
    """Nothing else is on stderr either."""
    result = in_own_process("train", "dataset=camvid", "dataset.root=nowhere", "output_dir=run", cwd=tmp_path)
    assert_refused(result, "there is no folder nowhere for dataset=camvid")
    assert len(result.err.strip().splitlines()) == 1
