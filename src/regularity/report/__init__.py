"""What a study found, to look at."""
