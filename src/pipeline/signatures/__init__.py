"""Verification schemes for webhooks: pure functions of headers, raw body and time."""
