"""The schema registry: a client, an embedded registry, and what framed records say."""
