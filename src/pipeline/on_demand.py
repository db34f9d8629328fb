"""Names that a package offers without importing their modules: a process loads the libraries of its own work only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def on_demand(package: str, **names: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package (PEP 562) that imports a name when it is first asked for.

    The package imports the same names under ``TYPE_CHECKING``, for type checkers and import-linter, and has this
    function otherwise.

    Args:
        package: ``__name__`` of the package.
        **names: The names of each module, separated by blanks.
    """
    modules = {name: module for module, offered in names.items() for name in offered.split()}
    if modules.keys() & names.keys():  # importing such a module would put it in the place of the name
        raise ValueError(f"{package} offers a name that one of its modules has")

    def __getattr__(name: str) -> Any:  # noqa: N807 - the name that PEP 562 gives it
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
