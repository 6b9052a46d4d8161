"""What Headrace costs, as ratios against a peer in the same run. `python -m bench --help`."""
