"""Training: one loop for every method that learns. Everything here needs torch and Lightning Fabric."""
