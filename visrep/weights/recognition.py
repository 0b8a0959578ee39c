"""Which format a weights file has: exactly one of `visrep.weights.formats` and of the plugins'."""

import importlib
import inspect
import pkgutil
from collections import Counter
from types import ModuleType

from visrep import plugins
from visrep.errors import ConfigError, UserError
from visrep.weights import formats
from visrep.weights.containers.pickle_records import Inert, printable
from visrep.weights.containers.tree import Tree, tensors_in
from visrep.weights.formats import visrep_encoder

# The functions of a format and their arguments.
_FUNCTIONS = {"recognise": ("tree",), "read": ("tree", "choice")}


def known_formats() -> list[ModuleType]:
    """The modules of `visrep.weights.formats` in the order of their names, then the plugins'.

    Raises:
        ConfigError: see `check_contract`.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    ours = [importlib.import_module(f"{formats.__name__}.{name}") for name in names]
    theirs = list(plugins.having("recognise"))
    for module in theirs:
        check_contract(module)
    return [*ours, *theirs]


def check_contract(module: ModuleType) -> None:
    """Raises ConfigError naming the member in which `module` is no checkpoint format."""
    name = getattr(module, "NAME", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{module.__name__}: the NAME of a checkpoint format must be a text")
    for member, arguments in _FUNCTIONS.items():
        try:
            inspect.signature(getattr(module, member)).bind(*arguments)
        except (AttributeError, TypeError, ValueError) as error:
            wanted = f"{member}({', '.join(arguments)})"
            raise ConfigError(
                f"{module.__name__}: a checkpoint format must hold a function {wanted}"
            ) from error


def identify(tree: Tree) -> ModuleType:
    """The one format that `tree` has.

    Raises:
        UserError: none or several match; the message lists the prefixes found, with counts.
    """
    if visrep_encoder.recognise(tree):
        return visrep_encoder  # its metadata say what it is; its names alone are torchvision's
    matches = matching(tree)
    if len(matches) == 1:
        return matches[0]
    found = f"found {prefixes(tree)}"
    if isinstance(tree.value, Inert):
        found += (
            f"; it is a whole {printable(tree.value.name)}: save its state dict alone, with "
            "torch.save(model.state_dict(), ...)"
        )
    if matches:
        names = " and ".join(kind.NAME for kind in matches)
        raise UserError(f"{tree.path} fits several formats, {names}; {found}")
    names = ", ".join(kind.NAME for kind in known_formats())
    raise UserError(f"{tree.path} fits none of the known formats ({names}); {found}")


def matching(tree: Tree) -> list[ModuleType]:
    """The formats that `tree` fits."""
    return [kind for kind in known_formats() if kind.recognise(tree)]


def prefixes(tree: Tree, *, most: int = 8) -> str:
    """The first parts of the names of all tensors with their counts, the most frequent first."""
    counts = Counter(_prefix(name) for name, _ in tensors_in(tree.value))
    if not counts:
        return "no tensor"
    shown = [f"{name} {count}" for name, count in counts.most_common(most)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more prefixes" if rest > 0 else "")


def _prefix(name: str) -> str:
    if not name:
        return "a single tensor"
    containers, _, last = name.rpartition("/")
    parts = last.split(".")
    wrappers = 1 if parts[0] in ("module", "model") else 0
    head = ".".join(parts[: wrappers + 1]) + ("." if len(parts) > wrappers + 1 else "")
    return printable(f"{containers}/{head}" if containers else head)
