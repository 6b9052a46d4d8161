"""What users need to test a pipeline: virtual time, crash points, random cuts."""
