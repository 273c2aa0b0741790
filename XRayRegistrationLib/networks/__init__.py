"""Networks, one architecture a file, and the file that weights are kept in. Everything here needs torch."""
