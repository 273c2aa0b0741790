"""Pictures that show a clinician what was found, and whether to believe it."""
