"""The only code that speaks Bluesky documents."""
