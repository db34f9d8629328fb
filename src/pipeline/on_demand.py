"""Lazy exports of packages, so that a process loads only the libraries that it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def on_demand(package: str, **names: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package (PEP 562) that imports a name on first use.

    Under ``TYPE_CHECKING``, the package imports the same names directly, for type checkers and import-linter.

    Args:
        package: ``__name__`` of the package.
        **names: For each module, its exported names, separated by blanks.
    """
    modules = {name: module for module, offered in names.items() for name in offered.split()}
    if modules.keys() & names.keys():  # importing such a module would replace the name by the module
        raise ValueError(f"{package} offers a name that one of its modules has")

    def __getattr__(name: str) -> Any:  # noqa: N807 - the name that PEP 562 gives it
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
