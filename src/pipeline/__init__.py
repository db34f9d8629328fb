"""Card pipeline."""
