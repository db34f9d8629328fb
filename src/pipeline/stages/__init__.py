"""Process, upload, confirm, audit: one handler each, none knows another."""
