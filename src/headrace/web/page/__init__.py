"""The live page of a run: its API, its stream of events, and who may see them."""
