"""Networks of other libraries: building them by dotted path, and reading logits and maps from their outputs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from segkd.errors import UserError, get_first_line
from segkd.utils.packages import explain_install
from segkd.utils.plugins import describe_error, explain_missing_plugin, is_of_plugin

EXTRAS = {
    "transformers": "huggingface",
    "timm": "timm",
    "segmentation_models_pytorch": "smp",
    "torchvision": "torchvision",
    "mmseg": None,
}
"""Libraries whose functions may build a network, and the extra of segkd that installs each."""

_BUILDERS = (
    "timm.create_model",
    "timm.models.",
    "torchvision.models.",
    "segmentation_models_pytorch.",
    "mmseg.models.",
)
"""Beginnings of the functions that may build a network. A file may come from a stranger, and other functions of these libraries
write files or run programs."""

_LOGITS_KEYS = ("logits", "out")  # under which Hugging Face and torchvision return the logits


def build_third_party_network(path: str, arguments: dict[str, Any]) -> nn.Module:
    """Build the network of a dotted path.

    Args:
        path: a class that is an `nn.Module`, a method of a class, or a function, of one of `EXTRAS` or of a plugin.
        arguments: of the constructor; of its config object, if the class takes one.

    Raises:
        UserError: the package or the name is missing, the path names something else, or the constructor fails.
    """
    constructor = _resolve_constructor(path)
    if arguments.get("trust_remote_code"):
        raise UserError(
            "trust_remote_code would run code that is downloaded; build the network in a package of your own, plugins=[my_pkg]"
        )
    config_class = getattr(constructor, "config_class", None)
    try:
        network = constructor(config_class(**arguments)) if inspect.isclass(config_class) else constructor(**arguments)
    except (TypeError, ValueError, OSError, RuntimeError, ImportError) as error:
        raise UserError(f"{path} cannot be built with {arguments}: {get_first_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise UserError(f"{path} gives a {type(network).__name__}, not an nn.Module; name what builds the network")
    return network


def extract_logits(output: object, network: str) -> Tensor:
    """Return the logits, B K h w, in the output of a network.

    Args:
        output: a tensor, or a tuple, list or mapping that holds the logits.
        network: its name, for the error.

    Raises:
        UserError: there are none.
    """
    logits: object = output
    if isinstance(output, Mapping):
        logits = next((output[key] for key in _LOGITS_KEYS if key in output), None)
        if logits is None:
            raise UserError(
                f"{network} returns {', '.join(map(str, output))}; logits are expected as {' or '.join(_LOGITS_KEYS)}"
            )
    elif isinstance(output, Sequence) and len(output):
        logits = output[0]
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise UserError(
            f"{network} returns {_describe(logits)}; logits are expected as one tensor B K h w, or the first of several"
        )
    return logits


def extract_feature(output: object, feature: str, path: str) -> Tensor:
    """Return the map, B C h w, in the output of a module.

    Args:
        output: the module's output; None if the module was not called.
        feature: the feature's name, for the error.
        path: the module's dotted path, for the error.

    Raises:
        UserError: there is no map, or more than one.
    """
    if output is None:
        raise UserError(f"the feature '{feature}': module '{path}' took no part in the forward pass; choose another")
    items = list(output) if isinstance(output, tuple | list) else [output]
    if sum(isinstance(item, Tensor) and item.ndim == 4 for item in items) > 1:
        shapes = ", ".join(_describe(item) for item in items)
        raise UserError(
            f"the feature '{feature}': module '{path}' gives several maps ({shapes}); choose a module that gives one"
        )
    maps: object = items[0] if items else output
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        raise UserError(
            f"the feature '{feature}': module '{path}' gives {_describe(maps)}, not a map B C h w; choose another"
        )
    return maps


def _resolve_constructor(path: str) -> Any:
    """Return the class or function of a dotted path: of the libraries in `EXTRAS`, of PyTorch, or of a plugin."""
    names = path.split(".")
    package = names[0]
    if "__main__" in names:  # a program, which would run
        raise UserError(f"{path} is no name of a network; give the dotted path of its class or function")
    if package not in (*EXTRAS, "torch", "segkd") and not is_of_plugin(path):
        cure = explain_missing_plugin(path) or f"name a class of networks of {', '.join(EXTRAS)} or of a plugin"
        raise UserError(f"{path} is not of {', '.join(EXTRAS)}, PyTorch or a plugin; {cure}")
    module, depth = None, len(names) - 1
    while module is None and depth > 0:
        try:
            module = importlib.import_module(".".join(names[:depth]))
        except ModuleNotFoundError as error:
            if error.name is not None and not f"{path}.".startswith(f"{error.name}."):
                raise UserError(f"{path} needs the package '{error.name}', which is not installed") from None
            depth -= 1
        except Exception as error:
            raise UserError(f"{path} cannot be imported: {describe_error(error)}") from None
    if module is None:
        extra = EXTRAS.get(package)
        cure = explain_install(extra) if extra else f"install it, or run where '{package}' can be imported"
        raise UserError(f"the package '{package}' is not installed, and {path} is of it; {cure}")
    target: Any = module
    for name in names[depth:]:
        target = None if name.startswith("_") else getattr(target, name, None)
    if target is None:
        raise UserError(f"'{package}' has no {path}")
    if not _is_network_class(target) and not (_is_of_package(target, path) and _may_build_networks(target, path)):
        raise UserError(
            f"{path} is not a class of networks (nn.Module), nor a function of {', '.join(EXTRAS)} or of a plugin that builds "
            "one; call it in a function of your own package, plugins=[my_pkg]"
        )
    return target


def _is_network_class(target: Any) -> bool:
    return inspect.isclass(target) and issubclass(target, nn.Module)


def _is_of_package(target: Any, path: str) -> bool:
    """Return whether the package that `path` names defines an object; its modules import others, such as `os`."""
    module = str(getattr(target, "__module__", ""))
    return is_of_plugin(f"{module}.") if is_of_plugin(path) else module.partition(".")[0] == path.partition(".")[0]


def _may_build_networks(target: Any, path: str) -> bool:
    """Return whether an object is a function that may build networks, or a method of a class, as in `from_pretrained`."""
    if is_of_plugin(path):
        return callable(target) and not inspect.isclass(target)
    package = path.partition(".")[0]
    return package in EXTRAS and (
        inspect.ismethod(target) or (inspect.isroutine(target) and path.startswith(_BUILDERS))
    )


def _describe(value: object) -> str:
    return f"a tensor {'×'.join(map(str, value.shape))}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
