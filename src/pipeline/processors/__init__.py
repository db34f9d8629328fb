"""What is done with a chunk of cards: built in, or your own."""
