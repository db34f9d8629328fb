"""One module per source: body to topic, key, identity. Pure.

To add a source: 1. its models in ``contracts``, 2. a module here with a class that is a ``Provider``, 3. its findings
in the words of ``model_errors``, 4. its table in ``pipeline.settings``, 5. tests with the bodies of its documentation.
"""

from pipeline.providers.ecs import EcsProvider
from pipeline.providers.findings import Finding, InvalidBody
from pipeline.providers.protocols import Identified, Provider

__all__ = ["EcsProvider", "Finding", "Identified", "InvalidBody", "Provider"]
