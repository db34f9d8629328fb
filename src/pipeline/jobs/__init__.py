"""Card batch jobs: process, upload, confirm, and the store that holds what each job has reached."""
