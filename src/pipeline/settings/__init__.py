"""The settings of a process: one TOML file, environment variables, secret files. Nothing else reads any of these."""

from pipeline.settings.errors import ConfigError
from pipeline.settings.integration import EcsIntegration, Limits
from pipeline.settings.loading import CONFIG_VARIABLE, DEFAULT_FILE, config_path, load_settings
from pipeline.settings.model import Settings
from pipeline.settings.refusals import toml_value
from pipeline.settings.retention import RetentionSettings
from pipeline.settings.review import Review, review
from pipeline.settings.weavr import WeavrIntegration
from pipeline.settings.webhooks import WebhookSource

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_FILE",
    "ConfigError",
    "EcsIntegration",
    "Limits",
    "RetentionSettings",
    "Review",
    "Settings",
    "WeavrIntegration",
    "WebhookSource",
    "config_path",
    "load_settings",
    "review",
    "toml_value",
]
