"""Telling eCard Systems the outcome of a job."""
