"""Secret files, and paths relative to the settings file."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pipeline.secret_files import SecretUnreadable, read_secret
from pipeline.settings.refusals import shown
from pipeline.settings.shape import Loc, dotted, fields, is_path, is_secret, item, models
from pipeline.webhooks.verification import Secret, SecretSettings

_SUFFIX: Final = "_file"
_UNREAD: Final = SecretStr("unread-by-this-process")


def resolved(secrets: Iterable[SecretSettings]) -> tuple[Secret, ...]:
    """Return the secrets as their files hold them now.

    Raises:
        SecretUnreadable: A file went away since the settings were loaded.
    """
    return tuple(Secret(one.name, read_secret(one.file), one.not_before, one.not_after) for one in secrets)


class Files:
    """Replaces ``KEY_file = "PATH"`` by the secret in that file, for every setting ``KEY`` that is a secret.

    A key that a room declares as a path itself (the callback token's) stays a path: the room reads it, again and again.
    All relative paths are relative to the folder of the settings file.

    Attributes:
        problems: What could not be read, by the place of the setting that lacks its value.
        warnings: Files that others can read.
    """

    def __init__(self, folder: Path, *, webhook_secrets: bool) -> None:
        self._folder = folder
        self._webhook_secrets = webhook_secrets
        self.problems: dict[Loc, str] = {}
        self.warnings: list[str] = []

    def resolve(self, annotation: Any, data: Any, loc: Loc = ()) -> Any:
        """Return ``data`` with secrets in place of their files, and absolute paths."""
        if isinstance(data, Mapping):
            return self._table(annotation, data, loc)
        if isinstance(data, list):
            return [self.resolve(item(annotation), one, (*loc, index)) for index, one in enumerate(data)]
        if isinstance(data, str) and is_path(annotation):
            return self._folder / data
        return data

    def _table(self, annotation: Any, data: Mapping[str, Any], loc: Loc) -> dict[str, Any]:
        known = fields(annotation)
        resolved: dict[str, Any] = {}
        for key, value in data.items():
            secret = key.removesuffix(_SUFFIX)
            if secret != key and key not in known and secret in known and is_secret(known[secret].annotation):
                if self._webhook_secrets or not _of_ingress(known[secret]):
                    resolved[secret] = self._secret(value, (*loc, key), (*loc, secret), taken=secret in data)
                else:
                    resolved[secret] = _UNREAD
                continue
            inner = known[key].annotation if key in known else item(annotation)
            resolved[key] = self.resolve(inner, value, (*loc, key))
            if key == "file" and SecretSettings in models(annotation) and isinstance(resolved[key], Path):
                self._check(resolved[key], (*loc, key))
        return resolved

    def _check(self, path: Path, loc: Loc) -> None:
        if self._webhook_secrets:
            self._read(path, loc, loc)

    def _secret(self, value: Any, written: Loc, secret: Loc, *, taken: bool) -> SecretStr:
        if taken:
            self.problems[secret] = f"{dotted(written)}: stands beside {secret[-1]}; write one of the two"
        elif not isinstance(value, str) or not value:
            example = f'{written[-1]} = "secrets/{secret[-1]}"'
            self.problems[secret] = f"{dotted(written)}: this is not a path in quotes; write e.g. {example}"
        else:
            return self._read(self._folder / value, written, secret)
        return _UNREAD

    def _read(self, path: Path, written: Loc, secret: Loc) -> SecretStr:
        try:
            value = read_secret(path)
        except SecretUnreadable as error:
            self.problems[secret] = f"{dotted(written)}: {_explained(path, error)}"
            return _UNREAD
        if path.stat().st_mode & stat.S_IROTH:
            self.warnings.append(f"{dotted(written)}: {path} can be read by everybody; run: chmod 600 {path}")
        return value


def _of_ingress(field: FieldInfo) -> bool:
    """Return whether only the ingress reads this secret, so that no other process needs its file."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("read_by") == "ingress"


def _explained(path: Path, error: SecretUnreadable) -> str:
    # somebody may have written the secret itself where its path belongs
    named = str(path) if shown(path.name) == repr(path.name) else "the path given there (is it the secret itself?)"
    fault = f"there is no file {named}" if isinstance(error.__cause__, FileNotFoundError) else f"{named} {error.fault}"
    return f"{fault}; create it with the secret as its only line: (umask 077; printf %s SECRET > {named})"
