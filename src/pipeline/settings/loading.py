"""Loads the settings from a TOML file, environment variables and secret files, and reports all problems together."""

from __future__ import annotations

import stat
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from pipeline.secret_files import Holds, SecretUnreadable, read_secret
from pipeline.settings.agreement import disagreements
from pipeline.settings.model import ENV_DELIMITER, ENV_PREFIX, Settings
from pipeline.settings.refusals import ConfigError, explained, refusal, unknown_key
from pipeline.settings.shape import Loc, dotted, fields, is_path, is_secret, item, locate, note_of
from pipeline.settings.toml_file import CONFIG_VARIABLE, read_toml

DEFAULT_FILE: Final = "pipeline.toml"
_SUFFIX: Final = "_file"
UNREAD: Final = SecretStr("unread-by-this-process")
"""Replaces a secret whose file this process does not read."""

_log = structlog.get_logger(__name__)


def config_path(option: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return the settings file: the option, otherwise ``PIPELINE_CONFIG``, otherwise ``pipeline.toml`` if it exists."""
    if option is not None:
        return option
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    default = Path(DEFAULT_FILE)
    return default if default.exists() else None


def load_settings(
    path: Path | None,
    env: Mapping[str, str],
    *,
    webhook_secrets: bool = True,
    warn: Callable[[str], None] | None = None,
    unread: Callable[[str], None] | None = None,
) -> Settings:
    """Return the settings of a file (None: no file); environment variables override the file.

    Args:
        path: TOML file. Relative paths in it, and in variables, are relative to its folder.
        env: Variables ``PIPELINE_TABLE__KEY``; lists and tables as JSON.
        webhook_secrets: Whether the files of webhook secrets must exist. Only the ingress reads them.
        warn: Called with each warning; None logs it.
        unread: If given, called with the key of each secret file; no secret file is read then.

    Raises:
        ConfigError: The settings have problems. It lists all of them, without secret values.
    """
    written = read_toml(path) if path else {}
    variables = _Variables(env)
    folder = (path.parent if path else Path()).absolute()
    files = _Files(folder, webhook_secrets=webhook_secrets, unread=unread)
    data = files.resolve(Settings, _with_store(_merged(written, variables())))
    problems = [*_unknown_variables(env), *files.problems.values()]
    settings = None
    try:
        settings = Settings(**data)
    except ValidationError as error:
        problems += _refusals(error, files.problems, variables.names)
    if settings is not None:
        problems += disagreements(settings)
        problems += _options(settings) if webhook_secrets else ()
    if problems or settings is None:
        raise ConfigError(problems) from None
    for warning in files.warnings:
        (warn or _warn)(warning)
    return settings


def _with_store(data: dict[str, Any]) -> dict[str, Any]:
    # not a default of the model, which would be relative to the working directory
    store = data.get("store", {})
    if isinstance(store, dict) and store.get("kind", "local") == "local":
        return {**data, "store": {"kind": "local", "path": "store", **store}}
    return data


def _refusals(error: ValidationError, unread: Container[Loc], variables: Mapping[Loc, str]) -> Iterator[str]:
    """Yield one line for each validation error, except for consequences of another error."""
    errors = error.errors(include_url=False)
    locations = [locate(Settings, one["loc"]).loc for one in errors]
    for one, location in zip(errors, locations, strict=True):
        beneath = any(other[: len(location)] == location and len(other) > len(location) for other in locations)
        if location in unread or (one["type"] == "too_short" and beneath):
            continue
        name = variables.get(location)
        yield refusal(one, Settings) + (f" (environment variable {name})" if name else "")


def _options(settings: Settings) -> Iterator[str]:
    """Yield the options that sources refuse. Only for the ingress: stages need not have the sources installed."""
    for source in settings.webhooks.values():
        try:
            source.kind_with_options()
        except ConfigError as error:
            yield from error.problems


def _warn(warning: str) -> None:
    _log.warning("secret_file_exposed", detail=warning)


class _Variables(EnvSettingsSource):
    """The variables of a given environment, as nested tables."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.names: dict[Loc, str] = {}
        super().__init__(Settings)
        for name in env:
            steps = name.removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER)
            self.names[tuple(steps)] = name

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._env.items() if name.startswith(ENV_PREFIX)}

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """Return decoded JSON, or else the text unchanged, which the validation then reports with its key."""
        try:
            return super().decode_complex_value(field_name, field, value)  # type: ignore[arg-type]  # None for raw types
        except ValueError:
            return value


def _unknown_variables(env: Mapping[str, str]) -> list[str]:
    # a name without the delimiter may be somebody else's: Kubernetes sets PIPELINE_INGRESS_PORT for such a service
    problems = []
    for name in sorted(env):
        table, delimiter, _ = name.removeprefix(ENV_PREFIX).lower().partition(ENV_DELIMITER)
        if name.startswith(ENV_PREFIX) and delimiter and table not in Settings.model_fields:
            problems.append(f"{table}: {unknown_key(table, Settings.model_fields)} (environment variable {name})")
    return problems


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        present = merged.get(key)
        both = isinstance(present, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(present, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


class _Files:
    """Replaces ``KEY_file = "PATH"`` by the secret in that file, for every secret setting ``KEY``.

    A key that is declared as a path (the file of the callback token) stays a path: its package reads the file before
    each use. A relative path is relative to the folder of the settings file.

    Attributes:
        problems: The reasons why secrets could not be read, by the location of the key.
        warnings: Files that every user can read, and odd secrets.
    """

    def __init__(self, folder: Path, *, webhook_secrets: bool, unread: Callable[[str], None] | None) -> None:
        self._folder = folder
        self._webhook_secrets = webhook_secrets
        self._unread = unread
        self.problems: dict[Loc, str] = {}
        self.warnings: list[str] = []

    def resolve(self, annotation: Any, data: Any, loc: Loc = ()) -> Any:
        """Return ``data`` with secrets instead of their files, and with absolute paths."""
        if isinstance(data, Mapping):
            return self._table(annotation, data, loc)
        if isinstance(data, list):
            return [self.resolve(item(annotation), one, (*loc, index)) for index, one in enumerate(data)]
        if isinstance(data, str) and is_path(annotation):
            return self._folder / data
        return data

    def _table(self, annotation: Any, data: Mapping[str, Any], loc: Loc) -> dict[str, Any]:
        known = fields(annotation)
        found: dict[str, Any] = {}
        for key, value in data.items():
            secret = key.removesuffix(_SUFFIX)
            if secret != key and key not in known and secret in known and is_secret(known[secret].annotation):
                if self._webhook_secrets or not _of_ingress(known[secret]):
                    found[secret] = self._secret(value, (*loc, key), (*loc, secret), taken=secret in data)
                else:
                    found[secret] = UNREAD
                continue
            inner = known[key].annotation if key in known else item(annotation)
            found[key] = self.resolve(inner, value, (*loc, key))
            if key in known and isinstance(found[key], Path) and self._webhook_secrets:
                held = note_of(known[key], inner, Holds)
                if held is not None and held.content == "secret":
                    self._read(found[key], (*loc, key), (*loc, key))
        return found

    def _secret(self, value: Any, written: Loc, secret: Loc, *, taken: bool) -> SecretStr:
        if taken:
            self.problems[secret] = f"{dotted(written)}: {secret[-1]} is set too; set only one of the two"
        elif not isinstance(value, str) or not value:
            example = f'{written[-1]} = "secrets/{secret[-1]}"'
            self.problems[secret] = f"{dotted(written)}: this is not a path in quotes; write e.g. {example}"
        else:
            return self._read(self._folder / value, written, secret)
        return UNREAD

    def _read(self, path: Path, written: Loc, secret: Loc) -> SecretStr:
        if self._unread is not None:
            self._unread(dotted(written))
            return UNREAD
        try:
            value = read_secret(path, lambda doubt: self.warnings.append(f"{dotted(written)}: {path} {doubt}"))
        except SecretUnreadable as error:
            self.problems[secret] = f"{dotted(written)}: {explained(path, error, self._folder)}"
            return UNREAD
        if path.stat().st_mode & stat.S_IROTH:
            self.warnings.append(f"{dotted(written)}: {path} can be read by every user; run: chmod 600 {path}")
        return value


def _of_ingress(field: FieldInfo) -> bool:
    """Return whether only the ingress needs the file of this secret."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("read_by") == "ingress"
