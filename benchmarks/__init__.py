"""Speed and memory compared with a peer in one run: ``make bench``. Not tests, since machines differ and are noisy."""
