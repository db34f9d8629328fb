"""Speed and memory beside a peer, in one run: ``make bench``. Never a test: machines differ and are noisy."""
