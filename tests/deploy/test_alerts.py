"""The alert rules go with the metrics and the runbook."""

from __future__ import annotations

import re
from typing import Final

import pytest
from prometheus_client import generate_latest
from support.manifests import COMPONENTS, Manifest, of_kind
from support.paths import ROOT

from pipeline.observability import Metrics

(RULE,) = of_kind("PrometheusRule", COMPONENTS / "alerts")
ALERTS: Final = [pytest.param(one, id=one["alert"]) for group in RULE["spec"]["groups"] for one in group["rules"]]
HEADINGS: Final = re.findall(r"^##+ (.*)$", (ROOT / "docs" / "how-to" / "runbook.md").read_text("utf-8"), re.MULTILINE)
SECTIONS: Final = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_uses_metrics_that_exist_and_names_its_section_of_the_runbook(alert: Manifest) -> None:
    exposed = generate_latest(Metrics().registry).decode()
    names = re.findall(r"pipeline_[a-z_]+", alert["expr"])
    assert names
    for name in names:
        assert f"# TYPE {re.sub('_(count|sum|bucket)$', '', name)} " in exposed, name
    assert alert["annotations"]["runbook"] in SECTIONS
    assert alert["annotations"]["summary"]
    assert alert["labels"]["severity"] in {"warning", "critical"}


def test_no_two_alerts_have_the_same_name() -> None:
    names = [param.values[0]["alert"] for param in ALERTS]  # type: ignore[index]
    assert len(names) == len(set(names))
