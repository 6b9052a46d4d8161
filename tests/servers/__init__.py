"""Real servers beside the tests and the benchmarks: plain processes, no containers, no mocks.

`python -m servers` (with `tests` on the path; `make servers` does it) fetches what they need into a cache
outside the checkout. Each server is a context manager that starts it on free loopback ports with data in a
temporary folder, waits for a real answer, and stops it by its process id, also when the tests are killed.
"""
