"""Reading the settings: one TOML file, environment variables over it, secret files into it; all problems at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from pipeline.settings.files import Files
from pipeline.settings.model import ENV_DELIMITER, ENV_PREFIX, Settings
from pipeline.settings.refusals import ConfigError, refusal, unknown_key
from pipeline.settings.shape import Loc, locate

CONFIG_VARIABLE: Final = "PIPELINE_CONFIG"
DEFAULT_FILE: Final = "pipeline.toml"

_log = structlog.get_logger(__name__)


def config_path(option: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return which settings file counts: the option, ``PIPELINE_CONFIG``, or ``pipeline.toml`` where it exists."""
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
) -> Settings:
    """Return the settings of a file (None: no file) and of environment variables, which count more.

    Args:
        path: TOML file. Relative paths in it, and in variables, are relative to its folder.
        env: Variables ``PIPELINE_TABLE__KEY``; lists and tables as JSON.
        webhook_secrets: Whether the files of webhook secrets must be there: only the ingress reads them.
        warn: Takes each warning; None logs it.

    Raises:
        ConfigError: With every problem; no secret value is in it.
    """
    written = _read(path) if path else {}
    variables = _Variables(env)
    folder = (path.parent if path else Path()).absolute()
    files = Files(folder, webhook_secrets=webhook_secrets)
    data = files.resolve(Settings, _with_store(_merged(written, variables())))
    problems = [*_unknown_variables(env), *files.problems.values()]
    settings = None
    try:
        settings = Settings(**data)
    except ValidationError as error:
        problems += _refusals(error, files.problems, variables.places)
    if settings is not None and webhook_secrets:
        problems += _options(settings)
    if problems or settings is None:
        raise ConfigError(problems) from None
    for warning in files.warnings:
        (warn or _warn)(warning)
    return settings


def _with_store(data: dict[str, Any]) -> dict[str, Any]:
    # a default of the model would be relative to wherever the process was started
    store = data.get("store", {})
    if isinstance(store, dict) and store.get("kind", "local") == "local":
        return {**data, "store": {"kind": "local", "path": "store", **store}}
    return data


def _refusals(error: ValidationError, unread: Container[Loc], variables: Mapping[Loc, str]) -> Iterator[str]:
    """Yield one line per validation error, but none that only follows from another."""
    errors = error.errors(include_url=False)
    places = [locate(Settings, one["loc"]).loc for one in errors]
    for one, place in zip(errors, places, strict=True):
        beneath = any(other[: len(place)] == place and len(other) > len(place) for other in places)
        if place in unread or (one["type"] == "too_short" and beneath):
            continue
        name = variables.get(place)
        yield refusal(one, Settings) + (f" (environment variable {name})" if name else "")


def _options(settings: Settings) -> Iterator[str]:
    """Yield what providers refuse of their options. Only the ingress asks: a stage need not have them installed."""
    for source in settings.webhooks.values():
        try:
            source.opened()
        except ConfigError as error:
            yield from error.problems


def _warn(warning: str) -> None:
    _log.warning("secret_file_exposed", detail=warning)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be read ({error.strerror}); name the settings file by --config or {CONFIG_VARIABLE}"],
            code="config_unreadable",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: is not TOML: {error}"], code="config_unreadable") from None


class _Variables(EnvSettingsSource):
    """The variables of a given environment, as nested tables."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.places: dict[Loc, str] = {}
        super().__init__(Settings)
        for name in env:
            steps = name.removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER)
            self.places[tuple(steps)] = name

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._env.items() if name.startswith(ENV_PREFIX)}

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """Return JSON decoded, or the text as it is: validation then says what is needed, with the key."""
        try:
            return super().decode_complex_value(field_name, field, value)  # type: ignore[arg-type]  # None for raw types
        except ValueError:
            return value


def _unknown_variables(env: Mapping[str, str]) -> list[str]:
    # only names with the delimiter are surely ours: Kubernetes sets PIPELINE_INGRESS_PORT for a service of that name
    problems = []
    for name in sorted(env):
        table, delimiter, _ = name.removeprefix(ENV_PREFIX).lower().partition(ENV_DELIMITER)
        if name.startswith(ENV_PREFIX) and delimiter and table not in Settings.model_fields:
            problems.append(f"{table}: {unknown_key(table, Settings.model_fields)} (environment variable {name})")
    return problems


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        standing = merged.get(key)
        both = isinstance(standing, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(standing, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged
