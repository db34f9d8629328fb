"""The job store: announcements, parts, receipts; a local folder or an S3-compatible bucket."""
