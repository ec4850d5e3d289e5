"""What can be said of a network without timing it: counts, a second opinion on them, predicted memory. Needs torch."""
