"""Pre-signed download and upload, and the host guard."""
