"""Webhooks: receive, verify, identify, publish, answer."""
