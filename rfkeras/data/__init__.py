"""Audio files and labels on the host: read, check, excerpt, batch."""
