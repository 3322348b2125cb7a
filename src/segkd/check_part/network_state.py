"""Lines of a network's contract about its constructor, its weights and its layers."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

import torch
from yaml import YAMLError

from segkd.check_part.findings import ContractFault, NotApplicable, require
from segkd.check_part.network_maps import make_images, odd_size
from segkd.models.adapter import Adapter
from segkd.models.base import SegmentationModel
from segkd.models.layers import SampleDropout2d
from segkd.models.student_io import load_student, save_student
from segkd.utils.plugins import is_of_plugin

_GIVEN = ("self", "num_classes", "normalization")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_arguments_rebuild_it(network: SegmentationModel) -> None:
    """The class, `num_classes`, `normalization` and `arguments` give a network with the same state dict."""
    kind = type(network)
    parameters = inspect.signature(kind.__init__).parameters
    names = [name for name, p in parameters.items() if name not in _GIVEN and p.kind not in _VARIADIC]
    if isinstance(network, Adapter):
        names.remove("classes_argument")  # its value is among the wrapped network's arguments
    if missing := [name for name in names if name not in network.arguments]:
        raise ContractFault(
            f"the constructor takes {', '.join(missing)}, which `arguments` lacks; pass super().__init__(…, "
            f"{', '.join(f'{name}={name}' for name in missing)}), or student.yaml cannot rebuild the network"
        )
    twin = kind(num_classes=network.num_classes, normalization=network.normalization, **network.arguments)
    ours, theirs = _list_shapes(network), _list_shapes(twin)
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    require(not different, f"rebuilt from its `arguments` it has another {', '.join(different[:3])}")


def check_saved_student_loads(network: SegmentationModel) -> None:
    """A student that is saved and loaded again is the same, bit for bit."""
    kind = type(network)
    if not is_of_plugin(f"{kind.__module__}.") and not kind.__module__.startswith("segkd.models."):
        package = kind.__module__.partition(".")[0]
        raise NotApplicable(
            f"'{package}' is no plugin here; in a test, call segkd.utils.plugins.load_plugins(['{package}']) before"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_student(network, Path(folder), {})
        except YAMLError as error:
            raise ContractFault(f"student.yaml cannot hold {network.arguments} ({error}); give plain values") from error
        loaded = load_student(Path(folder))
    require(type(loaded) is kind, f"what is loaded is a {type(loaded).__name__}")
    same = loaded.arguments == network.arguments
    require(
        same,
        f"saved with the arguments {network.arguments} it is loaded with {loaded.arguments}; give plain values and lists",
    )
    state, loaded_state = network.state_dict(), loaded.state_dict()
    different = [key for key in state if not torch.equal(state[key], loaded_state[key])]
    require(not different, f"{', '.join(different[:3])} is another after loading")
    images = make_images(*odd_size(network))
    with torch.no_grad():
        equal = torch.equal(network.eval()(images).logits, loaded.eval()(images).logits)
    require(equal, "the loaded network gives other logits; make tensors that it holds parameters or buffers")


def check_class_keys(network: SegmentationModel) -> None:
    """The weights that belong to classes are those whose shape follows the number of classes (student.init_from)."""
    keys = network.find_class_keys()
    require(bool(keys), "no weight has another shape with one class more; make the classifier of num_classes outputs")


def check_dropout_by_sample(network: SegmentationModel) -> None:
    """Dropout draws from the seeds of the samples, so that a step is the same in any process and after a resume."""
    layers = [
        (name, module) for name, module in network.named_modules() if isinstance(module, SampleDropout2d) and module.p
    ]
    others = [name for name, m in network.named_modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.p]
    if not layers and not others:
        raise NotApplicable("it has no dropout")
    require(
        not others,
        f"{', '.join(others[:3])} draws from the process's random numbers; use segkd.models.layers.SampleDropout2d",
    )
    salts = [module.salt for _, module in layers]
    require(
        len(salts) == len(set(salts)), "two dropout layers have one salt and drop the same channels; give each its own"
    )


def _list_shapes(network: SegmentationModel) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in network.state_dict().items()}
