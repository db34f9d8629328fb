"""The settings of a process. Only this package reads the TOML file, the environment variables and secret files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.on_demand import on_demand
from pipeline.settings.integrations import EcsIntegration, WeavrIntegration, WebhookIntegration
from pipeline.settings.jobs import JobIntegration, Limits
from pipeline.settings.loading import DEFAULT_FILE, config_path, load_settings
from pipeline.settings.model import RetentionSettings, Settings
from pipeline.settings.refusals import ConfigError, toml_value
from pipeline.settings.toml_file import CONFIG_VARIABLE, parse_toml

if TYPE_CHECKING:
    from pipeline.settings.review import Review, part_key_problems
else:
    __getattr__ = on_demand(
        __name__,
        review="Review part_key_problems",
    )

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_FILE",
    "ConfigError",
    "EcsIntegration",
    "JobIntegration",
    "Limits",
    "RetentionSettings",
    "Review",
    "Settings",
    "WeavrIntegration",
    "WebhookIntegration",
    "config_path",
    "load_settings",
    "parse_toml",
    "part_key_problems",
    "toml_value",
]
